"""Parting test files among machines: each once, about equally long, alike for all."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops import errors, shards

TIMES = {"a": 60.0, "b": 50.0, "c": 20.0, "d": 10.0, "e": 5.0}


def test_every_file_is_in_one_part() -> None:
    files = [*TIMES, "new"]
    for count in (1, 2, 3, 9):
        parts = shards.part(files, TIMES, count)
        assert sorted(file for part in parts for file in part) == sorted(files)


def test_the_parts_take_about_equally_long() -> None:
    loads = [sum(TIMES[f] for f in part) for part in shards.part(list(TIMES), TIMES, 2)]
    assert max(loads) - min(loads) <= 5.0


def test_the_order_of_the_files_plays_no_part() -> None:
    files = list(TIMES)
    assert shards.part(files, TIMES, 2) == shards.part(files[::-1], TIMES, 2)


@pytest.mark.parametrize("text", ["", "0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(errors.Usage, match="no shard"):
        shards.parse(text)


def test_recorded_times_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    shards.record(tmp_path, {"b": 1.26, "a": 0.01})
    assert shards.times(tmp_path) == {"a": 0.0, "b": 1.3}
