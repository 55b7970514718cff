"""The record: tests/cases/record.json holds one case a rule.

Moments in the cases are days before Friday, 2026-06-19, 12:00 UTC.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ops.errors import Usage
from ops.history import History, Run, Took
from ops.record import DAY, Week, chart, measure, moment, spread, told

CASES = json.loads((Path(__file__).parent.parent / "cases" / "record.json").read_text())
NOW = datetime(2026, 6, 19, 12, tzinfo=UTC).timestamp()


def run(number: int, said: Mapping[str, Any]) -> Run:
    return Run(
        id=f"r{number}",
        op=said["op"],
        release=said.get("release"),
        previous=said.get("previous"),
        began=NOW + said["began"] * DAY,
        commit=said.get("commit", ""),
        outcome=said["outcome"],
        seconds=float(said["seconds"]),
        steps=tuple(Took(*each) for each in said.get("steps", ())),
    )


def holds(there: Any, wanted: Any) -> bool:
    """Compare what a case names, and nothing else."""
    if isinstance(wanted, dict):
        return all(holds(there[name], value) for name, value in wanted.items())
    if isinstance(wanted, list):
        return list(there) == wanted
    return there == (pytest.approx(wanted) if isinstance(wanted, float) else wanted)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_record_of_a_case(case: dict[str, Any]) -> None:
    runs = tuple(run(number, said) for number, said in enumerate(case["runs"]))
    commits = {name: NOW + at * DAY for name, at in case.get("commits", {}).items()}
    found = asdict(
        measure(History(runs), since=NOW - 90 * DAY, until=NOW, commits=commits)
    )
    for name, wanted in case["expect"].items():
        assert holds(found[name], wanted), (name, found[name], wanted)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    found = spread(float(number) for number in range(1, 101))
    assert found and (found.count, found.p50, found.p95) == (100, 50.0, 95.0)
    assert spread([]) is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("90d", NOW - 90 * DAY),
        ("2w", NOW - 14 * DAY),
        ("24h", NOW - DAY),
        ("2026-06-19", NOW - DAY / 2),
        ("all", 0.0),
    ],
)
def test_a_span_of_time_is_understood(text: str, wanted: float) -> None:
    assert moment(text, NOW) == wanted


@pytest.mark.parametrize("text", ["", "90", "d", "0d", "-3d", "2026-13-01", "week"])
def test_what_is_no_span_of_time_says_what_is(text: str) -> None:
    with pytest.raises(Usage, match="no span of time") as usage:
        moment(text, NOW)
    assert "90d" in usage.value.allowed


def test_a_line_of_the_chart_is_a_week_readable_without_colour() -> None:
    weeks = [Week("2026-06-01", 3, 1), Week("2026-06-08", 0, 0)]
    assert chart(weeks) == [
        "2026-06-01  ███░ 3 good, 1 not",
        "2026-06-08  0 good",
    ]


def test_a_busy_week_still_fits_a_line() -> None:
    (line,) = chart([Week("2026-06-01", 900, 100)])
    assert len(line) < 80 and line.endswith("900 good, 100 not")


RUNS = tuple(
    run(number, {"op": "deploy", "release": number, "previous": number - 1 or None,
                 "began": number - 9, "seconds": 1, "outcome": "good"})
    for number in range(1, 6)
)  # fmt: skip


def test_the_last_runs_are_told_oldest_first() -> None:
    found = told(RUNS, release=None, lines=2)
    assert [each.release for each in found] == [4, 5]
    assert told(RUNS, release=None, lines=0) == ()


def test_a_release_is_told_with_what_took_its_place() -> None:
    found = told(RUNS, release=2, lines=1)
    assert [each.release for each in found] == [2, 3]


def test_a_release_that_never_was_is_said() -> None:
    with pytest.raises(Usage, match="knows no v9") as usage:
        told(RUNS, release=9, lines=1)
    assert usage.value.allowed == "v1 to v5"
