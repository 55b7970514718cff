"""Checks: one at a time, never longer than promised, remembered for a while."""

import os
import threading

import pytest

from mltrading_health import Health, Result, Status


class Clock:
    """A clock that moves when told."""

    def __init__(self):
        self.time = 100.0

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def health(clock, tmp_path):
    return Health("dashboard", runtime_dir=tmp_path, clock=clock)


@pytest.fixture
def gate():
    """An event that a hanging check waits for; set at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def one(health):
    return health.report().checks["c"]


def counted(health, answer=True, **settings):
    calls = []

    def check():
        calls.append(threading.get_ident())
        return answer() if callable(answer) else answer

    health.check("c", check, **settings)
    return calls


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (None, Status.PASS),
        (True, Status.PASS),
        (False, Status.FAIL),
        (Result(Status.WARN), Status.WARN),
    ],
)
def test_what_a_check_returns_is_its_status(health, answer, status):
    counted(health, answer)
    assert one(health).status is status


def test_a_check_that_raises_has_failed(health):
    counted(health, lambda: 1 / 0)
    assert one(health).output == "ZeroDivisionError: division by zero"
    assert one(health).status is Status.FAIL


def test_a_result_is_kept_for_its_time_to_live(health, clock):
    calls = counted(health, ttl=5)
    one(health)
    clock.time += 4.9
    one(health)
    assert len(calls) == 1


def test_an_old_result_is_asked_for_again(health, clock):
    calls = counted(health, ttl=5)
    one(health)
    clock.time += 10
    one(health)
    assert len(calls) == 2


def test_a_failure_is_kept_for_a_shorter_time(health, clock):
    answers = iter([False, True])
    counted(health, lambda: next(answers), ttl=5, fail_ttl=1)
    assert one(health).status is Status.FAIL
    clock.time += 2
    assert one(health).status is Status.PASS


def test_a_stale_result_is_given_while_the_next_is_fetched(health, clock, gate):
    answers = iter([lambda: True, gate.wait])
    calls = counted(health, lambda: next(answers)(), ttl=5)
    one(health)
    clock.time += 6
    assert one(health).status is Status.PASS
    assert len(calls) == 2


def test_a_result_fetched_in_time_counts_when_it_is_asked_for_later(health, clock):
    ended = threading.Event()
    answers = iter([True, False])

    def check():
        ended.set()
        return next(answers)

    health.check("c", check, ttl=5, timeout=1)
    one(health)
    ended.clear()
    clock.time += 6
    one(health)
    ended.wait(2)
    run = health.checks["c"]._run
    assert run is None or run.ended.wait(2)
    clock.time += 0.5
    assert one(health).status is Status.FAIL


def test_a_hung_check_fails_at_its_timeout(health, gate):
    counted(health, gate.wait, timeout=0.02)
    assert one(health) == Result(Status.FAIL, "no answer in 0.02 s")


def test_a_hung_check_delays_nobody_twice_and_is_not_started_again(health, clock, gate):
    calls = counted(health, gate.wait, timeout=0.02, fail_ttl=1)
    one(health)
    check = health.checks["c"]
    for _ in range(3):
        clock.time += 10
        assert check.begin() is None
        assert one(health).status is Status.FAIL
    assert len(calls) == 1


def test_a_late_result_counts_as_a_failure(health, clock, gate):
    counted(health, gate.wait, timeout=0.02)
    one(health)
    run = health.checks["c"]._run
    clock.time += 0.5
    gate.set()
    run.ended.wait(2)
    assert run.result.status is Status.PASS
    assert one(health).status is Status.FAIL


def test_a_hung_check_is_started_again_after_it_has_ended(health, clock, gate):
    calls = counted(health, gate.wait, timeout=0.02, fail_ttl=1)
    one(health)
    run = health.checks["c"]._run
    clock.time += 0.5
    gate.set()
    run.ended.wait(2)
    one(health)
    clock.time += 3
    assert one(health).status is Status.PASS
    assert len(calls) == 2


def test_many_askers_share_one_run(health, gate):
    calls = counted(health, gate.wait, timeout=2)
    found = []
    askers = [
        threading.Thread(target=lambda: found.append(one(health))) for _ in range(8)
    ]
    for asker in askers:
        asker.start()
    gate.set()
    for asker in askers:
        asker.join(3)
    assert [r.status for r in found] == [Status.PASS] * 8
    assert len(calls) == 1


def test_checks_run_beside_each_other(health):
    meeting = threading.Barrier(2, timeout=2)
    health.check("a", lambda: meeting.wait() is not None, timeout=2)
    health.check("b", lambda: meeting.wait() is not None, timeout=2)
    assert health.report().status is Status.PASS


def test_a_run_of_the_parent_process_is_forgotten(health, gate, monkeypatch):
    answers = iter([gate.wait, lambda: True])
    counted(health, lambda: next(answers)(), timeout=0.02, fail_ttl=0)
    one(health)
    health.checks["c"]._run.pid = os.getpid() + 1
    health.checks["c"].timeout = 2
    health.checks["c"]._result = None
    assert one(health).status is Status.PASS


def test_a_report_is_as_bad_as_its_worst_check(health):
    health.check("a", lambda: Result(Status.WARN))
    assert health.report().status is Status.WARN
    health.check("b", lambda: False)
    assert health.report().status is Status.FAIL


def test_a_report_without_checks_passes(health):
    assert health.report().status is Status.PASS


def test_a_report_can_be_of_one_group_or_of_the_critical_checks(health):
    health.check("a", lambda: True)
    health.check("b", lambda: True, critical=False)
    health.check("c", lambda: True, groups=())
    assert list(health.report("ready").checks) == ["a", "b"]
    assert list(health.report("ready", critical=True).checks) == ["a"]


def test_two_checks_cannot_have_one_name(health):
    health.check("a", lambda: True)
    with pytest.raises(ValueError, match="'a'"):
        health.check("a", lambda: True)


def test_drain_is_seen_by_all_who_share_the_folder(health, tmp_path):
    other = Health("dashboard", runtime_dir=tmp_path)
    assert not other.draining
    health.drain()
    assert other.draining and (tmp_path / "drain").exists()
    health.drain(False)
    assert not other.draining


def test_drain_needs_a_folder():
    with pytest.raises(ValueError, match="runtime_dir"):
        Health("dashboard").drain()
