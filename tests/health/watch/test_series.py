"""Rates are those of PromQL; what no rule reads is not kept."""

import pytest

from mltrading_health.watch.rules import Selector
from mltrading_health.watch.series import History, per_second
from tests.health.watch.given import DISK, labels

TIMES = [0.0, 15.0, 30.0, 45.0, 60.0]


@pytest.mark.parametrize(
    ("times", "values", "start", "end", "grown"),
    [
        # On both edges: what was counted.
        (TIMES, [10, 20, 30, 40, 50], 0, 60, 40),
        # Near both edges: carried on to them.
        (TIMES, [10, 20, 30, 40, 50], -5, 65, 40 * 70 / 60),
        # A gap at the start: carried on by half a distance only.
        (TIMES, [100, 110, 120, 130, 140], -60, 60, 40 * 67.5 / 60),
        # Just too far from the start to be near it.
        (TIMES, [100, 110, 120, 130, 140], -17, 60, 40 * 67.5 / 60),
        (TIMES, [100, 110, 120, 130, 140], -16, 60, 40 * 76 / 60),
        # Not to before it was zero.
        (TIMES, [2, 12, 22, 32, 42], -60, 60, 40 * 63 / 60),
        # A fall is a restart from zero.
        (TIMES, [10, 20, 5, 15, 25], 0, 60, 35),
        (TIMES, [7, 7, 7, 7, 7], 0, 60, 0),
        # Only what is in the window counts.
        (TIMES, [0, 1000, 1010, 1020, 1030], 15, 60, 30),
    ],
)
def test_growth_is_estimated_as_promql_does(times, values, start, end, grown):
    rate = per_second(times, values, start, end)
    assert rate * (end - start) == pytest.approx(grown)


@pytest.mark.parametrize(("start", "end"), [(0, 14), (61, 90), (-9, -1)])
def test_fewer_than_two_points_have_no_growth(start, end):
    assert per_second(TIMES, [1, 2, 3, 4, 5], start, end) is None


def test_rates_of_the_chosen_series_are_summed(told, alerts):
    history = told(*alerts.rules)
    for i in range(9):
        history.requests(100 * i, 30 * i)
    every, bad = alerts.rules[0].asks.whole, alerts.rules[0].asks.part
    rate = history.history.rate
    assert rate(every, 120, history.now) == pytest.approx(130 / 15)
    assert rate(bad, 120, history.now) == pytest.approx(2)
    assert rate(Selector("nothing"), 120, history.now) is None


def test_what_no_rule_reads_is_not_kept(alerts):
    history = History(alerts.rules)
    bucket, name = "http_request_duration_seconds_bucket", labels(route="chart a")
    history.add(
        0.0,
        {
            "up": {labels(): 1.0},
            "http_requests_total": {labels(route="<unknown callback>"): 1.0},
            bucket: {name | labels(le="10.0"): 1.0, name | labels(le="5.0"): 1.0},
        },
    )
    assert len(history) == 1


def test_memory_is_bounded_by_the_longest_window(told, alerts):
    history = told(*alerts.rules)
    for i in range(500):
        history.requests(i, i)
    assert history.history.keep_s == 300
    assert len(history.history) == 2 * (300 / 15 + 1)
    assert history.history.snapshots == 300 / 15 + 1


def test_series_that_have_ended_are_forgotten(told, alerts):
    history = told(*alerts.rules)
    for i in range(200):
        history.requests(i, i, route=str(i))
    assert len(history.history) == 2 * (300 / 15 + 1)


def test_a_series_that_a_snapshot_misses_has_no_value(told, rule_of):
    history = told(rule_of(DISK))
    free = Selector("disk_free_bytes")
    history.snapshot({"disk_free_bytes": {labels(disk="a"): 1.0}})
    assert history.history.values(free, history.now) == {labels(disk="a"): 1.0}
    assert history.history.values(free, history.now + 299) != {}
    assert history.history.values(free, history.now + 301) == {}
    history.snapshot({})
    assert history.history.values(free, history.now) == {}


def test_what_came_later_has_no_value_before(told, rule_of):
    history = told(rule_of(DISK)).snapshot({})
    history.snapshot({"disk_free_bytes": {labels(disk="a"): 1.0}})
    assert history.history.values(Selector("disk_free_bytes"), 14.0) == {}


def test_time_never_goes_back(alerts):
    history = History(alerts.rules)
    history.add(1.0, {})
    with pytest.raises(ValueError, match="a snapshot of 1.0 after one of 1.0"):
        history.add(1.0, {})
