"""Reading the logs of a host: what was read is not read twice, and nothing is lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ops.targets import written
from ops.targets.written import look


class Reader:
    """A reader that keeps its positions, as `inv logs --follow` does."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "app.log"
        self.path.write_text("")
        self.positions: dict[str, Any] | None = None

    def write(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)

    def read(self, **asked: Any) -> list[str]:
        said = look({"v1": self.path}, self.positions, **asked)
        found = said["logs"].items()
        self.positions = (self.positions or {}) | {n: p["position"] for n, p in found}
        return [text for _, piece in found for _, text in piece["lines"]]


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(tmp_path)


def test_each_line_is_read_once_and_half_a_line_later(reader: Reader) -> None:
    reader.write("a\nb\n")
    assert reader.read() == ["a\nb"]
    reader.write("c\nhal")
    assert reader.read() == ["c"]
    reader.write("f\n")
    assert reader.read() == ["half"]
    assert reader.read() == []


def test_a_first_look_reads_no_more_than_it_needs(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"2026-03-01T12:00:00Z {n}\n" for n in range(200)]
    reader.write("".join(lines))
    monkeypatch.setattr(written, "PIECE", 400)
    monkeypatch.setattr(written, "FIRST", 1000)
    assert reader.read(last=3) == [line.rstrip() for line in lines[-3:]]
    assert reader.read() == []
    reader.positions = None
    said = look({"v1": reader.path}, None, grep=" 1")
    # 1,000 bytes hold so many lines; that older ones were not looked at is said.
    assert len(said["logs"]["v1"]["lines"]) == 40
    assert said["logs"]["v1"]["partly"]


def test_a_last_line_without_its_end_is_for_who_will_not_come_back(
    reader: Reader,
) -> None:
    reader.write("2026-03-01T12:00:00Z a\n2026-03-01T12:00:01Z Killed")
    assert len(reader.read(torn=True)) == 2


def test_a_rotated_log_is_read_to_its_end_and_then_the_new_one(reader: Reader) -> None:
    reader.write("a\n")
    reader.read()
    reader.write("b\n")
    os.rename(reader.path, reader.path.with_name("app.log.1"))
    reader.path.write_text("")
    assert reader.read() == ["b"]
    with reader.path.with_name("app.log.1").open("a") as late:
        late.write("c\n")
    assert reader.read() == ["c"]
    reader.write("d\n")
    assert reader.read() == ["d"]


@pytest.mark.parametrize("size", [1, 3])
def test_a_log_that_was_emptied_is_read_from_its_beginning(
    reader: Reader, size: int
) -> None:
    reader.write("old\nold\n")
    reader.read()
    # Shorter than what was read, or longer: both are another text.
    reader.path.write_text("new\n" * size)
    assert reader.read() == ["new"] * size


def test_a_log_that_comes_later_is_read_from_its_beginning(
    reader: Reader, tmp_path: Path
) -> None:
    reader.read()
    new = tmp_path / "new.log"
    new.write_text("x\n")
    said = look({"v2": new, "gone": tmp_path / "gone"}, reader.positions)
    assert [text for _, text in said["logs"]["v2"]["lines"]] == ["x"]
    assert "gone" not in said["logs"]


def test_a_line_without_an_end_is_handed_on_in_pieces(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader.read()
    monkeypatch.setattr(written, "PIECE", 10)
    reader.write("x" * 15 + "\n")
    assert [*reader.read(), *reader.read()] == ["x" * 10, "x" * 5]


def test_what_is_new_ends_the_wait(reader: Reader) -> None:
    reader.read()
    reader.write("a\n")
    assert reader.read(wait=30.0) == ["a"]
