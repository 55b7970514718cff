"""Flaky tests: a warning once, then an owner and a day, then red."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from ops import errors, flaky
from ops.flaky import Entry
from tests.ops.checkouts import write

TODAY = date(2026, 5, 1)


def listed(until: date) -> dict[str, Entry]:
    return {"t": Entry("t", "ann", until, "a race")}


@pytest.mark.parametrize(
    ("known", "before", "red"),
    [
        ({}, 0, False),
        ({}, 1, True),
        (listed(date(2026, 5, 1)), 7, False),
        (listed(date(2026, 4, 30)), 0, True),
    ],
)
def test_the_ruling(known: dict[str, Entry], before: int, red: bool) -> None:
    (sight,) = flaky.judge({"t": "said"}, known, {"t": before}, TODAY)
    assert sight.red is red and sight.said == "said"


def test_an_entry_whose_day_has_passed_is_named_though_its_test_passed() -> None:
    (said,) = flaky.overdue(listed(date(2026, 4, 30)), TODAY)
    assert said == "t: ann was to mend it until 2026-04-30"


@pytest.mark.parametrize(
    "row",
    [
        'test = "t"',
        'test = "t"\nowner = " "\nuntil = 2026-05-01\nwhy = "x"',
        'test = "t"\nowner = "ann"\nuntil = "soon"\nwhy = "x"',
        "=",
    ],
)
def test_an_entry_that_lacks_something_is_refused(tmp_path: Path, row: str) -> None:
    write(tmp_path, flaky.LIST, f"[[flaky]]\n{row}\n")
    with pytest.raises(errors.Usage, match="can't be read"):
        flaky.load(tmp_path)


def test_without_a_list_nothing_is_listed(tmp_path: Path) -> None:
    assert flaky.load(tmp_path) == {}
