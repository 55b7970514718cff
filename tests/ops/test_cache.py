"""The store of verdicts: what it believes, and that it never stands in the way."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from ops.cache import Store, Verdict, key

GREEN = Verdict("black", "green", seconds=0.5)
DAY = 86_400


def quiet(text: str) -> None:
    raise AssertionError(f"warned: {text}")


class Opener:
    """Open stores that are closed when the test ends."""

    def __init__(self) -> None:
        self.opened: list[Store] = []

    def __call__(self, folder: Path, **options: Any) -> Store:
        self.opened.append(Store.open(folder, **{"warn": quiet, **options}))
        return self.opened[-1]


@pytest.fixture
def opened() -> Iterator[Opener]:
    opener = Opener()
    yield opener
    for store in opener.opened:
        store.close()


def test_a_verdict_comes_back_marked_as_cached(opened: Opener, tmp_path: Path) -> None:
    opened(tmp_path).put("k", GREEN)
    again = opened(tmp_path).get("k")
    assert again == Verdict("black", "green", cached=True, seconds=0.5)


def test_a_red_verdict_keeps_its_findings_and_data(
    opened: Opener, tmp_path: Path
) -> None:
    store = opened(tmp_path)
    store.put("k", Verdict("x", "red", findings="a.py:1: no", data={"results": [1]}))
    again = store.get("k")
    assert again is not None and again.findings == "a.py:1: no"
    assert again.data == {"results": [1]}


def test_an_unknown_key_has_no_verdict(opened: Opener, tmp_path: Path) -> None:
    assert opened(tmp_path).get("k") is None


@pytest.mark.parametrize("junk", [b"", b"junk" * 4096])
def test_a_file_that_is_no_database_is_rebuilt(
    opened: Opener, tmp_path: Path, junk: bytes
) -> None:
    (tmp_path / "verdicts.db").write_bytes(junk)
    said: list[str] = []
    store = opened(tmp_path, warn=said.append)
    store.put("k", GREEN)
    assert store.get("k") is not None
    assert (tmp_path / "verdicts-1.db").exists() == len(said) == bool(junk)


def test_a_row_that_was_tampered_with_is_not_believed(
    opened: Opener, tmp_path: Path
) -> None:
    store = opened(tmp_path, warn=print)
    store.put("k", Verdict("black", "red"))
    with sqlite3.connect(tmp_path / "verdicts.db") as raw:
        raw.execute("UPDATE verdicts SET value = replace(value, 'red', 'green')")
    raw.close()
    assert store.get("k") is None


def test_a_verdict_under_another_key_is_not_believed(
    opened: Opener, tmp_path: Path
) -> None:
    store = opened(tmp_path, warn=print)
    store.put("k", GREEN)
    with sqlite3.connect(tmp_path / "verdicts.db") as raw:
        raw.execute("UPDATE verdicts SET key = 'other'")
    raw.close()
    assert store.get("other") is None


def test_a_folder_that_cannot_be_made_costs_only_speed(
    opened: Opener, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    said: list[str] = []
    store = opened(tmp_path / "file" / "cache", warn=said.append)
    store.put("k", GREEN)
    assert store.get("k") is None
    assert len(said) == 1


def test_a_full_disk_is_told_once_and_fails_nothing(
    opened: Opener, tmp_path: Path
) -> None:
    said: list[str] = []
    store = opened(tmp_path, warn=said.append)
    assert store._connection is not None
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    for number in range(50):
        store.put(str(number), Verdict("x", "red", findings="long " * 500))
    assert len(said) == 1 and "full" in said[0]


def test_verdicts_that_nobody_used_for_a_month_are_pruned(
    opened: Opener, tmp_path: Path
) -> None:
    opened(tmp_path, now=0).put_all({"old": GREEN, "used": GREEN})
    opened(tmp_path, now=20 * DAY).get("used")
    store = opened(tmp_path, now=40 * DAY)
    assert store.get("old") is None
    assert store.get("used") is not None


def test_a_store_that_grew_too_large_loses_what_was_used_longest_ago(
    opened: Opener, tmp_path: Path
) -> None:
    long = Verdict("x", "red", findings="long " * 2000)
    opened(tmp_path, now=0).put_all({f"old{n}": long for n in range(20)})
    opened(tmp_path, now=DAY).put_all({f"new{n}": long for n in range(10)})
    store = opened(tmp_path, now=2 * DAY, limit=200_000)
    assert store.get("old0") is None and store.get("new9") is not None
    assert (tmp_path / "verdicts.db").stat().st_size < 400_000


def test_one_row_that_lies_makes_all_others_doubtful(
    opened: Opener, tmp_path: Path
) -> None:
    said: list[str] = []
    store = opened(tmp_path, warn=said.append)
    store.put_all({"true": GREEN, "lie": Verdict("black", "red")})
    with sqlite3.connect(tmp_path / "verdicts.db") as raw:
        raw.execute("UPDATE verdicts SET value = '{}' WHERE key = 'lie'")
    raw.close()
    assert store.get("true") is not None
    assert store.get("lie") is None and store.get("true") is None
    assert store.renewed == 1 and "not believed" in said[0]


def test_a_file_whose_pages_are_damaged_is_begun_anew(
    opened: Opener, tmp_path: Path
) -> None:
    store = opened(tmp_path)
    store.put_all({str(n): GREEN for n in range(500)})
    store.close()
    file = tmp_path / "verdicts.db"
    whole = file.read_bytes()
    file.write_bytes(whole[:4096] + b"\0" * (len(whole) - 4096))
    said: list[str] = []
    store = opened(tmp_path, warn=said.append)
    store.get("7")
    store.put("k", GREEN)
    assert store.get("k") is not None
    assert len(said) == 1 and "not believed" in said[0]


def test_two_that_find_the_same_fault_begin_anew_once(
    opened: Opener, tmp_path: Path
) -> None:
    one, two = opened(tmp_path, warn=print), opened(tmp_path, warn=print)
    one.distrust("a test")
    one.put("k", GREEN)
    two.distrust("a test")
    assert two.get("k") is not None
    assert not (tmp_path / "verdicts-2.db").exists()


def test_a_folder_that_everybody_may_write_is_not_believed(
    opened: Opener, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    said: list[str] = []
    store = opened(tmp_path, warn=said.append)
    store.put("k", GREEN)
    assert store.get("k") is None and "everybody may write" in said[0]


def test_a_store_that_was_left_behind_is_removed_after_a_day(
    opened: Opener, tmp_path: Path
) -> None:
    store = opened(tmp_path, now=DAY, warn=print)
    store.distrust("a test")
    os.utime(tmp_path / "verdicts.db", (0, 0))
    opened(tmp_path, now=2 * DAY)
    assert [file.name for file in tmp_path.glob("*.db")] == ["verdicts-1.db"]


def write(folder: Path, name: str) -> None:
    store = Store.open(folder, warn=quiet)
    for number in range(50):
        store.put(f"{name}{number}", GREEN)
    store.close()


@pytest.mark.integration
def test_writers_side_by_side_lose_nothing(opened: Opener, tmp_path: Path) -> None:
    fresh = get_context("spawn")
    writers = [fresh.Process(target=write, args=(tmp_path, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    store = opened(tmp_path)
    assert all(store.get(f"{name}{n}") for name in "ab" for n in range(50))


@pytest.mark.integration
def test_a_writer_that_is_killed_midway_leaves_a_store_that_reads(
    opened: Opener,
    tmp_path: Path,
) -> None:
    fresh = get_context("spawn")
    writer = fresh.Process(target=write, args=(tmp_path, "a"))
    writer.start()
    while not (tmp_path / "verdicts.db-wal").exists() and writer.is_alive():
        writer.join(0.005)
    writer.kill()
    writer.join()
    store = opened(tmp_path)
    store.put("k", GREEN)
    assert store.get("k") is not None


def test_any_part_of_a_key_changes_it() -> None:
    one = key(gate="black", argv=["black"], inputs=["a.py", "1"])
    assert one == key(inputs=["a.py", "1"], argv=["black"], gate="black")
    assert one != key(gate="black", argv=["black"], inputs=["b.py", "1"])
