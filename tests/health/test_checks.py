"""Checks: one at a time, never longer than promised, remembered for a while."""

import os
import threading
from datetime import datetime, timezone

import pytest

from mltrading_health import Health, Result, Status, tokens


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

    health.check("c", check, ttl=5, timeout=1, fall=1)
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


def test_a_run_of_the_parent_process_is_forgotten(health, clock, gate):
    answers = iter([gate.wait, lambda: True])
    counted(health, lambda: next(answers)(), timeout=0.02, fail_ttl=0)
    one(health)
    health.checks["c"]._run.pid = os.getpid() + 1
    health.checks["c"].timeout = 2
    health.checks["c"]._result = None
    clock.time += 1
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


def turns(health, clock, *answers, **settings):
    """Return the states that a check shows after each of some answers."""
    rest = iter(answers)
    counted(health, lambda: next(rest), **settings)
    seen = []
    for _ in answers:
        seen.append(one(health).status)
        clock.time += 100
    return seen


P, W, F = Status.PASS, Status.WARN, Status.FAIL


@pytest.mark.parametrize(
    ("fall", "rise", "answers", "shown"),
    [
        # Never up before the first pass, so the first failure counts at once.
        (2, 1, [False, False, True], [F, F, P]),
        (2, 1, [True, False, True, False, False], [P, W, P, W, F]),
        (1, 1, [True, False, True], [P, F, P]),
        (3, 1, [True, False, False, False, False], [P, W, W, F, F]),
        (
            2,
            2,
            [True, True, False, False, True, False, True, True],
            [F, P, W, F, F, F, F, P],
        ),
    ],
)
def test_fall_and_rise_keep_a_check_from_flapping(
    health, clock, fall, rise, answers, shown
):
    assert turns(health, clock, *answers, fall=fall, rise=rise) == shown


def test_what_does_not_turn_a_check_yet_is_said(health, clock):
    turns(health, clock, True, False)
    assert health.latest().checks["c"].output == "failed 1 of 2 times"


def test_a_first_failure_is_looked_at_again_soon(health, clock):
    answers = iter([True, False, False])
    counted(health, lambda: next(answers), ttl=5, fail_ttl=1)
    one(health)
    clock.time += 10
    assert one(health).status is Status.WARN
    clock.time += 2
    assert one(health).status is Status.FAIL


def test_a_check_that_goes_on_hanging_fails_though_it_ran_once(health, clock, gate):
    answers = iter([lambda: True, gate.wait])
    calls = counted(health, lambda: next(answers)(), timeout=0.02, ttl=5, fail_ttl=1)
    one(health)
    clock.time += 20
    assert one(health).status is Status.WARN
    clock.time += 2
    assert one(health) == Result(Status.FAIL, "no answer in 0.02 s")
    assert len(calls) == 2


def test_a_check_that_ends_its_thread_has_failed(health):
    counted(health, lambda: exec("raise SystemExit(3)"))
    assert one(health) == Result(Status.FAIL, "SystemExit: 3")


def test_what_a_check_says_holds_no_password_and_no_novel(health):
    said = "postgresql://me:hunter22@host " + "x" * 2000

    def check():
        raise OSError(said)

    health.check("c", check)
    assert "hunter22" not in one(health).output
    assert len(one(health).output) == 500


def test_a_turn_is_logged_once(health, clock, caplog):
    turns(health, clock, True, False, False, False, True, True)
    told = [record.getMessage() for record in caplog.records]
    assert told == ["check c fails: ", "check c passes again"]


def test_a_report_is_the_same_object_until_something_can_change(health, clock):
    health.check("a", lambda: True, ttl=5)
    health.check("b", lambda: True, ttl=60)
    first = health.report()
    clock.time += 4.9
    assert health.report() is first
    clock.time += 0.2
    health.report()
    assert health.report("ready") is not first


def test_a_report_changes_when_a_run_has_ended_and_not_before(health, clock, gate):
    answers = iter([lambda: True, lambda: gate.wait() and False])
    counted(health, lambda: next(answers)(), ttl=5, fall=1)
    first = health.report()
    clock.time += 6
    assert health.report() is first and health.report() is first
    run = health.checks["c"]._run
    gate.set()
    run.ended.wait(2)
    assert health.report().status is Status.FAIL and first.status is Status.PASS


def test_a_report_can_leave_checks_out_without_asking_them(health):
    calls = counted(health, ttl=5)
    health.check("a", lambda: True)
    assert list(health.report(exclude={"c"}).checks) == ["a"]
    assert not calls


def test_the_latest_results_are_had_without_asking(health, clock):
    calls = counted(health, ttl=5)
    assert health.latest().checks == {} and not calls
    one(health)
    clock.time += 299
    assert health.latest().checks["c"].status is Status.PASS
    clock.time += 2
    assert health.latest().checks == {} and len(calls) == 1


def test_a_result_says_when_it_was_found(tmp_path):
    moment = datetime(2026, 1, 2, tzinfo=timezone.utc)
    health = Health("dashboard", now=lambda: moment)
    health.check("c", lambda: Result(Status.WARN, "close"))
    assert one(health).at == moment


def test_check_is_a_decorator_too(health):
    @health.check("c", kind="datastore")
    def ask():
        return False

    assert ask() is False and one(health).status is Status.FAIL
    assert health.checks["c"].kind == "datastore"


@pytest.mark.parametrize(
    ("name", "settings"),
    [("a:b", {}), ("", {}), ("1", {}), ("c", {"kind": "thing"}), ("c", {"fall": 0})],
)
def test_what_a_check_cannot_be_is_refused(health, name, settings):
    with pytest.raises(ValueError, match="check"):
        health.check(name, lambda: True, **settings)


def test_a_service_may_start_slowly():
    health = Health("dashboard", starting=True)
    assert health.starting
    health.started()
    assert not health.starting and not Health("dashboard").starting


TOKEN = "correct-horse-battery"


@pytest.mark.parametrize(
    ("header", "known"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer  {TOKEN} ", True),
        (f"Basic {TOKEN}", False),
        ("Bearer wrong-horse-battery", False),
        ("Bearer \xff\ud800", False),
        ("Bearer ", False),
        ("", False),
    ],
)
def test_a_bearer_token_opens(header, known):
    assert Health("dashboard", token=TOKEN).knows(header) is known


def test_the_token_of_the_runtime_folder_opens_too_whenever_it_is_made(tmp_path):
    health = Health("dashboard", runtime_dir=tmp_path, token=TOKEN)
    assert not health.knows("Bearer " + tokens.read(tmp_path))
    for _ in range(2):
        tokens.write(tmp_path)
        assert health.knows("Bearer " + tokens.read(tmp_path))
    assert health.knows(f"Bearer {TOKEN}")
    assert oct((tmp_path / "token").stat().st_mode & 0o777) == "0o600"
    assert os.listdir(tmp_path) == ["token"]


@pytest.mark.parametrize("text", ["", "short", "\xff" * 20, "with a space in it"])
def test_a_token_file_that_is_none_opens_nothing(tmp_path, text):
    (tmp_path / "token").write_text(text, encoding="latin-1")
    assert not Health("dashboard", runtime_dir=tmp_path).knows(f"Bearer {text}")


def test_access_by_token_without_a_token_is_closed():
    assert not Health("dashboard", access="token").opens_to("Bearer ")
    assert Health("dashboard", access="token", token=TOKEN).opens_to(f"Bearer {TOKEN}")
    assert Health("dashboard").opens_to("")


@pytest.mark.parametrize("settings", [{"token": "short"}, {"access": "closed"}])
def test_a_token_or_access_that_is_none_is_refused_unseen(settings):
    with pytest.raises(ValueError) as caught:
        Health("dashboard", **settings)
    assert "short" not in str(caught.value)


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


def test_results_are_kept_fresh_though_nobody_asks():
    health = Health("dashboard")
    failed, passed = threading.Event(), threading.Event()
    well = [False, True]
    seen = []

    def heard(name, result):
        seen.append(result.status)
        (passed if result.status is Status.PASS else failed).set()

    health.listeners.append(heard)
    health.check("c", lambda: well[0], ttl=0.01, fail_ttl=0.01, fall=1)
    assert not health.latest().checks
    end = health.keep_fresh(0.005)
    try:
        assert failed.wait(5)
        well[0] = True
        assert passed.wait(5)
    finally:
        end()
    many = len(seen)
    assert "checks" not in {thread.name for thread in threading.enumerate()}
    assert len(seen) == many


def test_checks_are_kept_fresh_after_they_could_not_be_asked(health, caplog):
    asked, faults = threading.Event(), [RuntimeError("can't start new thread")]

    def report():
        if faults:
            raise faults.pop()
        asked.set()

    health.report = report
    end = health.keep_fresh(0.001)
    assert asked.wait(5)
    end()
    assert caplog.text.count("the checks could not be asked") == 1


def test_a_check_runs_no_more_often_for_being_kept_fresh(clock, health):
    calls = counted(health, ttl=5.0)
    asked = threading.Semaphore(0)
    health.check("d", lambda: True, ttl=5.0)
    report = health.report
    health.report = lambda *args, **kwargs: (report(*args, **kwargs), asked.release())
    end = health.keep_fresh(0.001)
    try:
        for _ in range(20):
            assert asked.acquire(timeout=5)
    finally:
        end()
    assert len(calls) == 1
