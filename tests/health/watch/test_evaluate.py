"""An alert is pending, fires and resolves as one of Prometheus does."""

import pytest

from mltrading_health.watch.evaluate import (
    FIRING,
    PENDING,
    RESOLVED,
    Active,
    Alert,
    adopted,
    evaluate,
    inhibited,
)
from tests.health.watch.given import DISK, ERRORS, MEAN, SLOW, Told, labels


class Service:
    """Something that is evaluated every 15 seconds."""

    def __init__(self, *rules, state=None):
        self.rules, self.told, self.state = rules, Told(*rules), state or {}
        self.good = self.bad = 0

    def look(self, samples=None):
        if samples is not None:
            self.told.snapshot(samples)
        self.state, changes = evaluate(
            self.rules, self.told.history, self.told.now, self.state
        )
        return [(change.alert.name, change.to) for change in changes]

    def requests(self, good, bad, times=1):
        seen = []
        for _ in range(times):
            self.good, self.bad = self.good + good, self.bad + bad
            self.told.requests(self.good, self.bad)
            seen.append([to for _, to in self.look()])
        return seen


def test_an_outage_is_pending_then_fires_then_resolves(rule_of):
    service = Service(rule_of(ERRORS))
    assert service.requests(150, 0, times=9) == [[]] * 9
    assert service.requests(0, 150, times=3) == [[PENDING], [], [FIRING]]
    seen = service.requests(150, 0, times=9)
    assert seen[:7] == [[]] * 7 and [RESOLVED] in seen
    assert service.state == {}


def test_a_break_begins_the_waiting_anew(rule_of):
    service = Service(rule_of(DISK))
    size = {"disk_size_bytes": {labels(disk="a"): 100}}
    full = {"disk_free_bytes": {labels(disk="a"): 4}, **size}
    free = {"disk_free_bytes": {labels(disk="a"): 6}, **size}
    seen = [service.look(each) for each in (full, full, free, full, full, full)]
    words = [[to for _, to in each] for each in seen]
    assert words == [[PENDING], [], [], [PENDING], [], [FIRING]]


def test_each_set_of_labels_is_an_alert_of_its_own(rule_of):
    service = Service(rule_of(DISK, for_s=0))
    disks = {labels(disk=name): 100 for name in "abc"}
    free = {labels(disk="a"): 1, labels(disk="b"): 50, labels(disk="c"): 4}
    service.look({"disk_free_bytes": free, "disk_size_bytes": disks})
    assert {alert.labels for alert in service.state} == {
        labels(disk="a"),
        labels(disk="c"),
    }


def test_little_traffic_is_no_alarm(rule_of):
    service = Service(rule_of(ERRORS, for_s=0))
    assert service.requests(0, 1, times=30) == [[]] * 30
    assert [FIRING] in service.requests(0, 2, times=9)


def test_what_strangers_make_up_is_no_alarm(rule_of):
    service = Service(rule_of(ERRORS, for_s=0))
    for i in range(20):
        service.told.requests(0, 100 * i, route="<unknown callback>")
        assert service.look() == []


def test_a_restart_of_all_counters_is_no_alarm(rule_of):
    service = Service(rule_of(ERRORS, for_s=0))
    service.requests(1000, 40, times=10)
    service.good = service.bad = 0
    assert service.requests(1000, 40, times=10) == [[]] * 10


def test_the_share_above_a_bound_is_measured(rule_of):
    service = Service(rule_of(SLOW, for_s=0))
    name, bound = "http_request_duration_seconds", labels(route="chart a", le="10.0")
    for i in range(3):
        count = {labels(route="chart a"): 100 * i}
        service.look({f"{name}_bucket": {bound: 90 * i}, f"{name}_count": count})
    (active,) = service.state.values()
    assert active.phase == FIRING and active.value == pytest.approx(0.1)


def test_the_mean_is_measured(rule_of):
    service = Service(rule_of(MEAN, for_s=0))
    name = "database_query_duration_seconds"
    for i in range(3):
        sums, counts = {labels(name="bars"): 60 * i}, {labels(name="bars"): 100 * i}
        service.look({f"{name}_sum": sums, f"{name}_count": counts})
    (active,) = service.state.values()
    assert active.value == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("free", "size", "fires"),
    [(0, 0, False), (-1, 0, True), (1, 0, False), (float("nan"), 1, False)],
)
def test_a_share_of_nothing_is_that_of_promql(rule_of, free, size, fires):
    service = Service(rule_of(DISK, for_s=0))
    disk = labels(disk="a")
    service.look({"disk_free_bytes": {disk: free}, "disk_size_bytes": {disk: size}})
    assert bool(service.state) is fires


def test_an_alert_whose_series_ends_resolves(rule_of):
    service = Service(rule_of(DISK, for_s=0, over=None, threshold=5))
    assert service.look({"disk_free_bytes": {labels(): 1}}) == [("LowDisk", FIRING)]
    assert service.look({}) == [("LowDisk", RESOLVED)]


def test_an_alert_whose_rule_is_gone_resolves():
    old = Alert("Forgotten", "critical")
    service = Service(state={old: Active(FIRING, 0.0, 1.0)})
    assert service.look({}) == [("Forgotten", RESOLVED)]


def test_what_is_pending_ends_without_a_word(rule_of):
    service = Service(rule_of(DISK, over=None, threshold=5))
    assert service.look({"disk_free_bytes": {labels(): 1}}) == [("LowDisk", PENDING)]
    assert service.look({}) == []


# -- taken over ----------------------------------------------------------------------

ALERT = Alert("HighErrorRate", "critical")


def test_a_heir_without_history_leaves_alone_what_fires(rule_of):
    state = adopted({ALERT: Active(FIRING, 5.0, 0.5)}, now=0.0)
    service = Service(rule_of(ERRORS), state=state)
    assert service.requests(150, 0, times=8) == [[]] * 8
    assert service.requests(150, 0) == [[RESOLVED]]


def test_a_heir_goes_on_waiting_where_the_other_stopped(rule_of):
    state = adopted({ALERT: Active(PENDING, -20.0, 0.5)}, now=0.0)
    service = Service(rule_of(ERRORS), state=state)
    assert service.requests(0, 150, times=2) == [[], [FIRING]]


def test_a_heir_ends_what_was_pending_when_it_knows_better(rule_of):
    state = adopted({ALERT: Active(PENDING, -20.0, 0.5)}, now=0.0)
    service = Service(rule_of(ERRORS), state=state)
    assert service.requests(150, 0, times=2) == [[], []]
    assert service.state == {}


def test_a_heir_with_a_full_window_resolves_as_everybody_does(rule_of):
    state = adopted({ALERT: Active(FIRING, 0.0, 0.5)}, now=0.0)
    service = Service(rule_of(ERRORS), state=state)
    service.requests(0, 150, times=10)
    assert not service.state[ALERT].inherited
    assert [RESOLVED] in service.requests(150, 0, times=9)


@pytest.mark.parametrize(("phase", "end"), [(FIRING, [RESOLVED]), (PENDING, [])])
def test_a_heir_asks_its_checks_before_it_ends_what_they_say(rule_of, phase, end):
    disk = Alert("LowDisk", "critical", labels(disk="a"))
    state = adopted({disk: Active(phase, 0.0, 0.01)}, now=0.0)
    service = Service(rule_of(DISK), state=state)
    assert service.look({}) == [] and disk in service.state
    assert [to for _, to in service.look({})] == end
    assert service.state == {}


def test_no_alert_began_after_a_restart_of_the_clock():
    (active,) = adopted({ALERT: Active(FIRING, 99.0, 0.5)}, now=7.0).values()
    assert active.since == 7.0


# -- inhibition ----------------------------------------------------------------------


def test_a_critical_alert_silences_the_warning_of_its_name_and_labels():
    critical = Alert("LowDisk", "critical", labels(disk="a"))
    same = Alert("LowDisk", "warning", labels(disk="a"))
    other = Alert("LowDisk", "warning", labels(disk="b"))
    firing, pending = Active(FIRING, 0.0, 0.0), Active(PENDING, 0.0, 0.0)
    assert inhibited({critical: firing, same: firing, other: firing}) == {same}
    assert inhibited({critical: pending, same: firing}) == set()
    assert inhibited({same: firing}) == set()
