"""A look at a service becomes messages; a look that fails changes nothing."""

import errno
import json
import logging
import os
import queue
import threading

import pytest

from mltrading_health import watch
from mltrading_health.watch.elect import Seat
from mltrading_health.watch.rules import RulesError, parse
from mltrading_health.watch.watcher import Watcher
from tests.doubles import slack as doubles
from tests.health.watch.given import DISK, DOCUMENT, ERRORS, MILD, labels
from tests.health.watch.test_book import Clock

WHERE = {"env": "prod", "service": "dashboard"}


class Channel:
    """Someone who hears of what is critical."""

    name = "slack"

    def people(self, severity):
        return ("#alerts",) if severity == "critical" else ()

    def send(self, message):
        raise AssertionError("nobody carries in these tests")


class Service:
    """A watcher whose clock and samples are ours."""

    def __init__(self, folder, *rules):
        self.clock, self.samples = Clock(), {}
        self.watcher = Watcher(
            parse({**DOCUMENT, "rules": list(rules)}),
            lambda: self.samples,
            [Channel()],
            folder,
            WHERE,
            clock=self.clock,
            wall=lambda: 1_000_000.0 + self.clock.now,
        )

    def disk(self, free, times=1):
        disk = labels(disk="a")
        self.samples = {"disk_free_bytes": {disk: free}, "disk_size_bytes": {disk: 100}}
        for _ in range(times):
            self.clock.now += 15.0
            self.watcher.look(self.clock.now)

    @property
    def waiting(self):
        return self.watcher.book.waiting


@pytest.fixture
def service(tmp_path):
    return Service(tmp_path, DISK)


def test_who_is_told_learns_what_where_since_when_and_what_to_do(tmp_path):
    service = Service(tmp_path, {**DISK, "hint": "inv prune --env {env}"})
    service.disk(free=2, times=3)
    (message,) = service.waiting
    assert message.firing and (message.alert, message.severity) == (
        *("LowDisk", "critical"),
    )
    assert dict(message.labels) == {"disk": "a", **WHERE}
    assert (message.value, message.limit) == ("2 %", "5 %")
    assert message.hint == "inv prune --env prod"
    assert message.began == 1_000_015.0 and message.ended is None
    assert message.to == ("#alerts",)


def test_the_end_says_how_long_it_was(service):
    service.disk(free=2, times=5)
    service.disk(free=50)
    assert [message.firing for message in service.waiting] == [True, False]
    end = service.waiting[1]
    assert (end.began, end.ended) == (1_000_015.0, 1_000_090.0)
    assert (end.value, end.limit) == ("2 %", "5 %")


def test_nobody_is_told_twice_within_four_hours(service):
    service.disk(free=2, times=3 + 4 * 3600 // 15 - 1)
    assert len(service.waiting) == 1
    service.disk(free=2)
    assert [message.firing for message in service.waiting] == [True, True]


def test_who_does_not_hear_of_a_severity_is_not_told(tmp_path):
    service = Service(tmp_path, {**DISK, "severity": "warning"})
    service.disk(free=2, times=3)
    assert service.waiting == () and service.watcher.state


def test_a_critical_alert_is_told_instead_of_the_warning(tmp_path):
    service = Service(tmp_path, {**DISK, "severity": "warning"}, DISK)
    service.watcher.channels["slack"].people = lambda severity: ("#alerts",)
    service.disk(free=2, times=3)
    assert [message.severity for message in service.waiting] == ["critical"]


def test_transitions_are_logged(service, caplog):
    caplog.set_level(logging.INFO)
    service.disk(free=2, times=3)
    service.disk(free=50)
    said = [(record.levelname, record.message) for record in caplog.records]
    assert said == [
        ("INFO", "alert pending: critical LowDisk (disk a): 2 %"),
        ("ERROR", "alert firing: critical LowDisk (disk a): 2 %"),
        ("WARNING", "alert resolved: critical LowDisk (disk a): 2 %"),
    ]


def test_a_heir_tells_nothing_twice_and_the_end_once(tmp_path):
    first = Service(tmp_path, DISK)
    first.disk(free=2, times=3)
    heir = Service(tmp_path, DISK)
    heir.clock.now = first.clock.now
    heir.watcher.begin()
    assert heir.waiting == first.waiting
    heir.disk(free=2, times=20)
    assert len(heir.waiting) == 1
    heir.disk(free=50, times=3)
    assert [message.firing for message in heir.waiting] == [True, False]


def test_a_heir_waits_no_longer_than_the_other_would_have(tmp_path):
    first = Service(tmp_path, DISK)
    first.disk(free=2, times=2)
    heir = Service(tmp_path, DISK)
    heir.clock.now = first.clock.now
    heir.watcher.begin()
    heir.disk(free=2)
    assert [message.firing for message in heir.waiting] == [True]


def test_an_alert_whose_rule_is_gone_is_told_to_have_ended(tmp_path):
    Service(tmp_path, DISK).disk(free=2, times=3)
    heir = Service(tmp_path, ERRORS)
    heir.watcher.begin()
    heir.disk(free=2)
    assert heir.waiting[-1].summary == "this rule is no more"


def test_a_look_that_fails_changes_nothing_and_is_not_the_last(tmp_path, caplog):
    looks, seen = [], threading.Event()

    def snapshot():
        looks.append(None)
        if len(looks) == 2:
            raise RuntimeError("the files are being replaced")
        if len(looks) > 3:
            seen.set()
        return {"disk_free_bytes": {labels(disk="a"): 1.0}}

    rule = {**DISK, "over": None, "threshold": 5, "for_s": 0}
    alerts = parse({**DOCUMENT, "interval_s": 0.01, "rules": [rule]})
    watcher = Watcher(alerts, snapshot, [], tmp_path, WHERE)
    watcher.start()
    assert seen.wait(10)
    watcher.stop()
    assert "the alerts could not be evaluated" in caplog.text
    assert caplog.text.count("alert firing") == 1
    assert "alert resolved" not in caplog.text


def test_a_look_that_is_late_is_still_of_its_beat(tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    late, free, clock = [0.9, 0.1, 0.5, 0.2], [50.0, 2.0, 2.0, 2.0], Clock()
    size = {labels(disk="a"): 100.0}

    def snapshot():
        disk = {labels(disk="a"): free.pop(0)}
        return {"disk_free_bytes": disk, "disk_size_bytes": size}

    alerts = parse({**DOCUMENT, "rules": [DISK]})
    more = {"clock": clock, "serves": lambda: bool(free)}
    watcher = Watcher(alerts, snapshot, [], tmp_path, WHERE, **more)
    monkeypatch.setattr(
        watcher, "_rest", lambda until: vars(clock).update(now=until + late.pop(0))
    )
    clock.now = 15.0
    watcher._watch()
    # Pending at 30.9, firing at 60.5: two looks of 15 s for the 30 s that are asked.
    assert "alert firing" in caplog.text


def test_beats_that_were_missed_are_left_out(tmp_path, monkeypatch):
    clock, looks, late = Clock(), [], [50.0, 0.0, 0.0]
    more = {"clock": clock, "serves": lambda: len(looks) < 3}
    watcher = Watcher(parse(DOCUMENT), dict, [], tmp_path, WHERE, **more)
    monkeypatch.setattr(watcher, "look", looks.append)
    monkeypatch.setattr(
        watcher, "_rest", lambda until: vars(clock).update(now=until + late.pop(0))
    )
    clock.now = 17.0
    watcher._watch()
    assert looks == [17.0, 75.0, 90.0]


def test_only_one_of_a_folder_watches(tmp_path):
    looked = threading.Event()
    alerts = parse({**DOCUMENT, "interval_s": 0.01})

    def first():
        looked.set()
        return {}

    def second():
        raise AssertionError("it was not elected")

    watcher = Watcher(alerts, first, [], tmp_path, WHERE)
    watcher.start()
    assert looked.wait(10)
    other = Watcher(alerts, second, [], tmp_path, WHERE)
    assert not other.seat.take(wait=False)
    watcher.stop()
    assert other.seat.take(wait=False)
    other.seat.leave()


def test_the_watch_goes_with_the_traffic_and_tells_nothing_twice(tmp_path, caplog):
    caplog.set_level("INFO", "mltrading_health.watch")
    serving, looks = ["old"], queue.Queue()
    full = {"disk_free_bytes": {labels(disk="a"): 1.0}}
    rule = {**DISK, "over": None, "threshold": 5, "for_s": 0}
    alerts = parse({**DOCUMENT, "interval_s": 0.01, "rules": [rule]})

    def release(name):
        def snapshot():
            looks.put(name)
            return full

        return Watcher(
            alerts, snapshot, [], tmp_path, WHERE, serves=lambda: serving == [name]
        )

    def looked(name):
        while looks.get(timeout=10) != name:
            pass

    old, new = release("old"), release("new")
    for watcher in (old, new):
        watcher.start()
    looked("old")
    looked("old")
    serving[:] = ["new"]
    looked("new")
    # The seat is another's now: what comes from here on comes from that one alone.
    assert [looks.get(timeout=10) for _ in range(5)] == ["new"] * 5
    new.stop()
    old.stop()
    assert caplog.text.count("this worker watches") == 2
    assert caplog.text.count("alert firing") == 1


def test_a_folder_that_is_not_there_is_said_once_and_tried_again(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("mltrading_health.watch.watcher.RETRY_S", 0.001)
    looked, folder = threading.Event(), tmp_path / "late"
    tries = iter(range(1, 1000))

    def serves():
        # A third try shows that the second has not been the last.
        if next(tries) == 3:
            folder.mkdir()
        return True

    watcher = Watcher(
        parse(DOCUMENT), lambda: looked.set() or {}, [], folder, WHERE, serves=serves
    )
    watcher.start()
    assert looked.wait(10)
    watcher.stop()
    assert caplog.text.count("no alerts from here for now") == 1
    assert "No such file or directory" in caplog.text


def test_a_watch_that_breaks_off_gives_its_seat_away_and_begins_anew(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("mltrading_health.watch.watcher.RETRY_S", 0.001)
    looked, seats = threading.Event(), []
    watcher = Watcher(parse(DOCUMENT), lambda: looked.set() or {}, [], tmp_path, WHERE)
    begin = watcher.begin

    def fail_once():
        seats.append(watcher.seat.taken)
        if len(seats) == 1:
            raise RuntimeError("can't start new thread")
        begin()

    monkeypatch.setattr(watcher, "begin", fail_once)
    other = Watcher(parse(DOCUMENT), dict, [], tmp_path, WHERE)
    watcher.start()
    assert looked.wait(10)
    watcher.stop()
    assert "the watch broke off" in caplog.text
    assert seats == [True, True] and other.seat.take(wait=False)
    other.seat.leave()


def test_a_full_disk_keeps_nobody_from_the_seat(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("mltrading_health.watch.elect.os.write", full)
    seat, other = Seat(tmp_path / "watch.lock"), Seat(tmp_path / "watch.lock")
    assert seat.take() and not other.take(wait=False)
    seat.leave()
    assert other.take(wait=False)
    other.leave()


# -- start ----------------------------------------------------------------------------


@pytest.fixture
def begin(tmp_path):
    """Return what starts a watcher as gunicorn's hook does; it ends with the test."""
    started = []

    def begin(samples, environment="prod", interval=0.02, **environ):
        path = tmp_path / "alerts.json"
        rules = [{**each, "for_s": 0} for each in (DISK, ERRORS, MILD)]
        path.write_text(
            json.dumps({**DOCUMENT, "interval_s": interval, "rules": rules})
        )
        watcher = watch.start(
            lambda: samples,
            rules=path,
            environment=environment,
            service="dashboard",
            folder=tmp_path,
            labels={"host": "web-1"},
            environ=environ,
        )
        started.append(watcher)
        return watcher

    yield begin
    for watcher in started:
        watcher.stop()


def test_a_full_disk_reaches_slack_and_its_end_too(begin):
    disk = labels(disk="data")
    samples = {"disk_free_bytes": {disk: 1.0}, "disk_size_bytes": {disk: 100.0}}
    with doubles.serving() as double:
        watcher = begin(samples, SLACK_WEBHOOK_URL_PRODUCTION=double.url)
        until(watcher, lambda: len(double.messages) == 1)
        samples["disk_free_bytes"] = {disk: 50.0}
        until(watcher, lambda: len(double.messages) == 2)
        watcher.stop()
    assert [said["text"].partition(":")[0] for said in double.messages] == [
        "CRITICAL LowDisk",
        "resolved LowDisk",
    ]
    fields = {
        f["title"]: f["value"] for f in double.messages[0]["attachments"][0]["fields"]
    }
    assert (fields["disk"], fields["host"]) == ("data", "web-1")


def until(watcher, fact):
    """Wait until something is true; it can change whenever the book does."""
    with watcher.book.changed:
        assert watcher.book.changed.wait_for(fact, 10)


def test_addresses_come_from_the_environment(begin):
    watcher = begin(
        {},
        SLACK_WEBHOOK_URL="https://hooks.example.org/secret",
        SMTP_URL="smtp://me:secret@mail.example.org",
        MAIL_TO_ONCALL="me@example.org",
        MAIL_TO_DEVOPS="me@example.org",
    )
    assert list(watcher.channels) == ["slack", "mail"]
    assert watcher.channels["mail"].people("critical") == ("me@example.org",)
    assert "secret" not in repr(vars(watcher))


def test_an_address_of_the_wrong_kind_takes_no_other_channel_away(begin, caplog):
    watcher = begin(
        {}, SLACK_WEBHOOK_URL="https://hooks.example.org/x", SMTP_URL="secret"
    )
    assert list(watcher.channels) == ["slack"]
    assert "no alerts by mail: SMTP_URL is no" in caplog.text
    assert "secret" not in caplog.text


def test_without_addresses_alerts_are_logged_only(begin):
    assert begin({}).channels == {}


def test_an_environment_that_the_rules_do_not_know_is_refused(begin):
    with pytest.raises(RulesError, match="no 'porduction'"):
        begin({}, environment="porduction")


def test_nothing_of_watch_is_imported_unless_used():
    import subprocess
    import sys

    asked = "import sys, mltrading_health as m; m.Metrics; print(*sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True
    )
    assert not {"smtplib", "mltrading_health.watch"} & set(said.stdout.split())
