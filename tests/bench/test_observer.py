"""The campaign's observer sees each violation when one is planted."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.faults import observer
from bench.faults.observer import Door, Ended, Journal, Place, Sight

PLACE = Place("one", Path("/nowhere"), "http://127.0.0.1:1/")


def journal(*events: dict[str, Any]) -> bytes:
    """Return a journal whose chain is whole."""
    last, lines = observer.START, []
    for event in events:
        line = {"run": "a", "op": "deploy", "epoch": 1, **event, "prev": last}
        line["hash"] = last = observer.digest(line)
        lines.append(json.dumps(line, sort_keys=True, separators=(",", ":")))
    return "".join(f"{line}\n" for line in lines).encode()


def deploy(number: int, epoch: int, previous: int | None = None) -> list[dict]:
    """Return the events of a deploy that went well."""
    own = {"run": f"r{number}", "release": number, "epoch": epoch}
    steps = [
        {**own, "phase": phase, "step": step, "host": "one"}
        for step in ("stage", "boot", "gate", "switch")
        for phase in ("intent", "done")
    ]
    begin = {**own, "phase": "begin", "facts": {"previous": previous}}
    return [begin, *steps, {**own, "phase": "end", "facts": {"outcome": "good"}}]


def sight(**changed: Any) -> Sight:
    """Return a host on which v2 serves, v1 stands by, and nothing is wrong."""
    events = [*deploy(1, 1), *deploy(2, 2, 1)]
    well = Sight(
        place=PLACE,
        current="releases/v2",
        slots={1: {"number": 1}, 2: {"number": 2}},
        journal=observer.parse(journal(*events)),
        epoch=2,
        running=frozenset((1, 2)),
        door=Door("v2", "abc", "b"),
    )
    return replace(well, **changed)


def judged(seen: Sight) -> list[str]:
    """Return the invariants that do not hold on a host."""
    found = [
        *observer.serves(seen),
        *observer.chained(seen, 0),
        *observer.announced(seen),
        *observer.settled([seen], 3, {"one": [1, 2]}),
    ]
    return sorted({each.invariant for each in found})


def test_a_host_that_is_well_has_no_violation() -> None:
    assert judged(sight()) == []


@pytest.mark.parametrize(
    ("invariant", "changed"),
    [
        ("I1", {"door": Door(problem="/livez answered 502")}),
        ("I2", {"door": Door("v1", "abc", "a")}),
        ("I2", {"current": "", "door": Door()}),
        ("I2", {"slots": {1: {"number": 1}, 2: None}}),
        ("I4", {"locked": True}),
        ("I6", {"slots": {2: {"number": 2}}}),
        ("I8", {"slots": {1: {"number": 1}, 2: {"number": 2}, 3: {"number": 3}}}),
        ("I8", {"running": frozenset((2, 9))}),
        ("I8", {"current": "releases/v1", "door": Door("v1", "abc", "a")}),
    ],
    ids=[
        *("nobody answers", "another answers", "no pointer", "half a release"),
        *("the lock is held", "a good release is gone", "staged without an intent"),
        *("runs without an intent", "traffic that the journal does not know"),
    ],
)
def test_what_is_planted_on_a_host_is_seen(
    invariant: str, changed: dict[str, Any]
) -> None:
    assert invariant in judged(sight(**changed))


def test_a_release_that_never_passed_a_gate_may_not_serve() -> None:
    events = [each for each in deploy(2, 2) if each.get("step") != "gate"][:-1]
    seen = sight(journal=observer.parse(journal(*deploy(1, 1), *events)))
    assert any("never passed" in each.what for each in observer.serves(seen))


def broken(change: Callable[[list[bytes]], list[bytes]]) -> list[str]:
    lines = journal(*deploy(1, 1), *deploy(2, 2, 1)).splitlines(keepends=True)
    said = observer.parse(b"".join(change(lines)))
    found = observer.chained(sight(journal=said), 0)
    return sorted({each.invariant for each in found})


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:3] + lines[4:],
        lambda lines: [lines[0].replace(b'"release":1', b'"release":7'), *lines[1:]],
        lambda lines: [*lines[:-1], lines[-1][:20]],
    ],
    ids=["a line is lost", "a line is changed", "a line is torn"],
)
def test_a_journal_that_was_touched_is_seen(change: Any) -> None:
    assert broken(change) == ["I8"]


def test_an_older_epoch_after_a_newer_one_is_seen() -> None:
    late = {"run": "r1", "release": 1, "epoch": 1, "phase": "done", "step": "switch"}
    said = observer.parse(journal(*deploy(1, 1), *deploy(2, 2, 1), late))
    found = observer.chained(sight(journal=said), 0)
    assert [each.invariant for each in found] == ["I5"]


def test_two_holders_that_take_turns_are_seen() -> None:
    one, two = deploy(1, 3), deploy(2, 3)
    mixed = [event for pair in zip(one, two, strict=True) for event in pair]
    found = observer.chained(sight(journal=observer.parse(journal(*mixed))), 0)
    assert {each.invariant for each in found} == {"I4"}


def test_hosts_that_differ_are_seen() -> None:
    less = observer.parse(journal(*deploy(1, 1), *deploy(2, 2, 1)[:-1]))
    two = sight(place=replace(PLACE, name="two"), current="releases/v1", journal=less)
    found = observer.settled([sight(), two], 3, {})
    said = "; ".join(map(str, found))
    assert "hosts serve" in said
    assert "lacks 1 of" in said


def test_a_run_that_is_left_open_is_seen() -> None:
    events = [*deploy(1, 1), *deploy(2, 2, 1)[:-1]]
    found = observer.settled(
        [sight(journal=observer.parse(journal(*events)))], 3, {"one": [1, 2]}
    )
    assert any("left open" in each.what for each in found)


def test_a_second_run_that_changes_something_is_seen() -> None:
    more = Journal((*sight().journal.events, {"run": "x"}))
    assert observer.same(sight(), sight()) == []
    assert observer.same(sight(), sight(current="releases/v1"))
    assert observer.same(sight(), sight(journal=more))


def test_a_file_of_a_good_release_that_changed_is_seen(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "wsgi.py").write_text("good")
    (tmp_path / "app.log").write_text("")
    before = {"v1": observer.files(tmp_path, {})}
    (tmp_path / "app.log").write_text("a line more")
    assert observer.kept("one", before, {"v1": observer.files(tmp_path, {})}) == []
    (tmp_path / "lib" / "wsgi.py").write_text("bad!")
    (found,) = observer.kept("one", before, {"v1": observer.files(tmp_path, {})})
    assert "lib/wsgi.py" in found.what


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        ([(0, "0001", "v1", ""), (1, "0002", "v2", "b.dump")], 0),
        ([(1, "0002", "v2", "b"), (1, "0002", "v3", "b")], 1),
        ([(1, "0002", "v2", "")], 1),
    ],
    ids=["well", "applied twice", "no backup"],
)
def test_migrations_are_applied_once_and_after_a_backup(rows: Any, count: int) -> None:
    assert len(observer.migrated(rows)) == count


def test_a_secret_in_a_file_or_an_argument_is_seen(tmp_path: Path) -> None:
    place = replace(PLACE, root=tmp_path)
    (tmp_path / "environ.json").write_text("canary")
    (tmp_path / "environ.json").chmod(0o600)
    assert observer.leaks(place, ["canary"], {}) == []
    (tmp_path / "environ.json").chmod(0o644)
    (tmp_path / "app.log").write_text("it is canary")
    assert len(observer.leaks(place, ["canary"], {})) == 2
    assert observer.whispered({"arguments": "psql canary"}, ["canary"])


@pytest.mark.parametrize(
    ("ended", "after", "holds"),
    [
        (Ended(0, "v2 serves"), {"one": 2, "two": 2}, True),
        (Ended(0, "v2 serves"), {"one": 2, "two": 1}, False),
        (Ended(1, "v1 serves"), {"one": 1, "two": 1}, True),
        (Ended(1, "v1 serves"), {"one": 2, "two": 1}, False),
        (Ended(4, "v1 serves"), {"one": 2, "two": 2}, False),
        (Ended(130, "interrupted"), {"one": 2, "two": 2}, False),
        (Ended(5, "revert failed"), {"one": 1, "two": 1}, False),
        (Ended(77, ""), {"one": 1, "two": 1}, False),
        (Ended(1, "Traceback (most recent call last)"), {"one": 1, "two": 1}, False),
        (Ended(-9, ""), {"one": 2, "two": 1}, True),
        (Ended(-2, "Traceback, KeyboardInterrupt"), {"one": 1, "two": 1}, True),
    ],
)
def test_exit_codes_are_held_against_what_serves(
    ended: Ended, after: dict[str, int], holds: bool
) -> None:
    found = observer.honest(ended, {"one": 1, "two": 1}, after)
    assert (found == []) is holds


def test_a_failed_request_needs_an_outage_at_that_time_on_that_host() -> None:
    failures = [
        ("one", 10.0, 10.5, "timeout"),
        ("one", 30.0, 30.1, "5xx"),
        ("two", 10.0, 10.5, "reset"),
    ]
    found, unreachable = observer.excused(failures, [("one", 9.0, 12.0)])
    assert [each.where for each in found] == ["one", "two"]
    assert unreachable == 1


def test_a_kept_connection_that_an_outage_ended_is_excused_when_it_is_found() -> None:
    failures = [("one", 8.0, 30.1, "reuse"), ("one", 29.0, 30.1, "reuse")]
    found, unreachable = observer.excused(failures, [("one", 9.0, 12.0)])
    assert (len(found), unreachable) == (1, 1)


def test_a_host_that_was_out_of_reach_may_differ_where_the_command_says_so() -> None:
    was, now = {"one": 2, "two": 2}, {"one": 1, "two": 2}
    said = Ended(0, "  two is left out (no connection: it took too long)")
    assert observer.honest(said, was, now, outage=True) == []
    assert observer.honest(said, was, now) != []
    assert observer.honest(Ended(0, ""), was, now, outage=True) != []


def test_a_lock_that_somebody_holds_is_seen(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert not observer.locked(lock)
    with lock.open("w") as file:
        assert not observer.locked(lock)
        fcntl.flock(file, fcntl.LOCK_EX)
        assert observer.locked(lock)


def test_a_dry_run_that_writes_is_seen(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    before = observer.everything(tmp_path, {})
    (tmp_path / "state" / "epoch").write_text("2")
    assert observer.everything(tmp_path, {}) != before


def rollback(number: int, previous: int, epoch: int) -> list[dict]:
    """Return the events of a rollback that went well."""
    own = {"run": f"b{epoch}", "op": "rollback", "release": number, "epoch": epoch}
    begin = {**own, "phase": "begin", "facts": {"previous": previous}}
    return [begin, {**own, "phase": "end", "facts": {"outcome": "good"}}]


def five() -> list[dict]:
    """Return the events of five deploys, the last of which pruned."""
    events = [e for n in range(1, 6) for e in deploy(n, n, n - 1 or None)]
    prune = {"run": "r5", "release": 5, "epoch": 5, "step": "prune", "phase": "done"}
    return [*events[:-1], prune, events[-1]]


def gone(events: list[dict], serves: int, slots: set[int]) -> list[str]:
    """Return what is said of a host from which some of v1 to v5 are gone."""
    seen = sight(
        current=f"releases/v{serves}",
        slots={number: {"number": number} for number in slots},
        journal=observer.parse(journal(*events)),
        running=frozenset((serves,)),
        door=Door(f"v{serves}", "abc", "x"),
    )
    found = observer.settled([seen], 3, {"one": [1, 2, 3, 4, 5]})
    return [each.what for each in found if each.invariant == "I6"]


def test_what_was_pruned_before_rollbacks_made_it_the_newest_is_not_missed() -> None:
    back = [*five(), *rollback(4, 5, 6), *rollback(3, 4, 7)]
    assert gone(back, 3, {3, 4, 5}) == []


def test_what_was_among_the_newest_when_a_host_pruned_is_missed() -> None:
    back = [*five(), *rollback(4, 5, 6), *rollback(3, 4, 7)]
    assert gone(five(), 5, {4, 5}) == ["good releases [3] are gone"]
    assert gone(back, 3, {5}) == ["good releases [3] are gone"]


def test_what_is_gone_though_no_host_ever_pruned_is_missed() -> None:
    events = [e for n in range(1, 4) for e in deploy(n, n, n - 1 or None)]
    assert gone(events, 3, {1, 3}) == ["good releases [2] are gone"]


def test_a_release_is_whole_only_where_every_host_holds_it() -> None:
    assert observer.whole([sight()], 1)
    assert not observer.whole([sight(), sight(slots={1: None})], 1)


def test_where_traffic_moves_while_we_look_we_look_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = replace(PLACE, root=tmp_path)
    current = tmp_path / "current"
    current.symlink_to("releases/v1")

    def ask(door: Any) -> Door:
        # What the agent still had to do is done between our two glances.
        current.unlink()
        current.symlink_to("releases/v2")
        return Door("v2", "abc", "b")

    monkeypatch.setattr(observer, "ask", ask)
    monkeypatch.setattr(observer, "processes", lambda place: [])
    seen = observer.look(place)
    assert (seen.current, seen.door.release) == ("releases/v2", "v2")
