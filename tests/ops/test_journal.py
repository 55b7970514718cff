"""The journal: what is written is read, what is torn or changed is not believed."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ops.history import fold
from ops.journal import Journal


def event(run: str, phase: str, at: float = 0.0, **more: Any) -> dict[str, Any]:
    facts = more.pop("facts", {})
    base = {"run": run, "op": "deploy", "phase": phase, "at": at, "release": 1}
    return {**base, "facts": facts, **more}


def deploy(run: str, number: int, outcome: str, **more: Any) -> list[dict[str, Any]]:
    facts = {"previous": number - 1 or None, "by": "ann@laptop"}
    end = {"outcome": outcome}
    return [
        event(run, "begin", 10.0, release=number, facts=facts, **more),
        event(run, "end", 12.5, release=number, facts=end, **more),
    ]


def test_events_come_back_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for at in range(3):
        journal.append(event("r", "intent", float(at), step="boot"))
    assert [each["at"] for each in journal.events()[0]] == [0.0, 1.0, 2.0]


def test_a_torn_tail_is_passed_over_and_the_next_line_stands_alone(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(event("r", "begin"))
    with journal.path.open("a") as file:
        file.write('{"run":"r","phase":"int')
    journal.append(event("r", "end", facts={"outcome": "good"}))
    events, torn = journal.events()
    assert [each["phase"] for each in events] == ["begin", "end"]
    assert torn == 1


def test_a_line_that_was_changed_is_not_believed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(event("r", "end", facts={"outcome": "reverted"}))
    text = journal.path.read_text().replace("reverted", "good")
    journal.path.write_text(text)
    assert journal.events() == ((), 1)


def test_each_line_holds_the_hash_of_the_one_before(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(event("r", "begin"))
    journal.append(event("r", "intent"))
    first, second = map(json.loads, journal.path.read_text().splitlines())
    assert second["prev"] == first["hash"]


def test_a_missing_journal_is_an_empty_history(tmp_path: Path) -> None:
    history = Journal(tmp_path / "none").history()
    assert (history.runs, history.last, history.open) == ((), 0, None)


def test_a_good_deploy_gets_traffic() -> None:
    history = fold(deploy("a", 1, "good"))
    assert (history.traffic, history.good(1), history.last) == ((1,), True, 1)


@pytest.mark.parametrize("outcome", ["aborted", "reverted", "interrupted"])
def test_a_deploy_that_was_put_back_gets_none(outcome: str) -> None:
    history = fold([*deploy("a", 1, "good"), *deploy("b", 2, outcome)])
    assert (history.traffic, history.good(2)) == ((1,), False)


def test_a_rollback_marks_what_it_left_as_bad() -> None:
    facts = {"previous": 2}
    history = fold(
        [
            *deploy("a", 1, "good"),
            *deploy("b", 2, "good"),
            event("c", "begin", op="rollback", release=1, facts=facts),
            event("c", "end", op="rollback", release=1, facts={"outcome": "good"}),
        ]
    )
    assert (history.traffic, history.good(2), history.good(1)) == ((1,), False, True)


def test_a_run_without_an_end_is_open() -> None:
    history = fold([*deploy("a", 1, "good"), event("b", "begin", release=2)])
    assert history.open is not None
    assert (history.open.id, history.open.release) == ("b", 2)


def test_a_run_that_was_finished_by_recovery_keeps_its_own_operation() -> None:
    begun = event("b", "begin", release=2, facts={"previous": 1})
    ended = event("b", "end", op="recover deploy", release=2)
    history = fold([begun, {**ended, "facts": {"outcome": "good"}}])
    assert (history.runs[0].op, history.traffic) == ("deploy", (2,))


def test_steps_and_seconds_are_kept() -> None:
    facts = {"seconds": 0.8}
    done = event("a", "done", 11.0, step="boot", host="one", facts=facts)
    begin, end = deploy("a", 1, "good")
    run = fold([begin, done, end]).runs[0]
    assert (run.steps, run.seconds, run.by) == (
        (("boot", 0.8, "done", "one"),),
        2.5,
        "ann@laptop",
    )


def test_a_full_disk_takes_the_reserve_before_it_refuses(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.keep_reserve()
    left = [OSError(errno.ENOSPC, "full"), OSError(errno.ENOSPC, "full")]

    def append(event: dict[str, Any]) -> None:
        if left:
            raise left.pop()

    journal._append = append
    with pytest.raises(OSError, match="full"):
        journal.append(event("r", "begin"))
    assert not journal.reserve.exists()
    journal.append(event("r", "begin"))


def test_a_line_of_which_the_disk_takes_half_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(event("r", "begin"))
    before, write = journal.path.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda fd, text: write(fd, text[:20]))
    with pytest.raises(OSError, match="No space left"):
        journal.append(event("r", "end", facts={"outcome": "good"}))
    assert journal.path.read_bytes() == before


def test_a_line_that_was_removed_is_seen(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for at in range(3):
        journal.append(event("r", "intent", float(at)))
    first, _, third = journal.path.read_text().splitlines(keepends=True)
    journal.path.write_text(first + third)
    assert Journal(journal.path).events()[1] == 1


def test_only_new_lines_are_read_again(tmp_path: Path) -> None:
    journal, writer = Journal(tmp_path / "j"), Journal(tmp_path / "j")
    writer.append(event("r", "begin"))
    assert len(journal.events()[0]) == 1
    writer.append(event("r", "end", facts={"outcome": "good"}))
    assert len(journal.events()[0]) == 2


def test_a_deploy_that_was_put_back_after_its_end_gives_traffic_up() -> None:
    good, late = deploy("a", 2, "good"), deploy("a", 2, "reverted")[1]
    history = fold([*deploy("z", 1, "good"), *good, late])
    assert (history.traffic, history.good(2)) == ((1,), False)


def test_going_forward_leaves_a_good_release_good() -> None:
    begin = event("c", "begin", op="rollback", release=3, facts={"previous": 2})
    end = event("c", "end", op="rollback", release=3, facts={"outcome": "good"})
    history = fold([*deploy("b", 2, "good"), *deploy("d", 3, "reverted"), begin, end])
    assert (history.good(2), history.good(3)) == (True, True)


def test_the_schema_is_where_the_last_migration_left_it() -> None:
    def migrated(run: str, **facts: Any) -> dict[str, Any]:
        return event(run, "done", step="migrate", facts=facts)

    found = fold([migrated("a", schema="0001"), migrated("b", schema="0002")])
    assert found.schema == "0002"
    assert fold([migrated("a", schema="0001"), migrated("b")]).schema == "0001"
