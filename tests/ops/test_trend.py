"""How the pipeline went over time: lines in, a table and a picture out."""

from __future__ import annotations

import json
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

from ops import trend
from ops.trend import Entry

MONDAY = 1_764_547_200.0  # 2025-12-01, 00:00 UTC


def entry(day: float, **more: object) -> Entry:
    known = {"commit": "c", "ok": True, "seconds": 60.0, "tests": 5, "coverage": 90.0}
    return Entry(**{"at": MONDAY + day * 86_400, **known, **more})


def test_what_is_appended_is_read_back_in_order(tmp_path: Path) -> None:
    runs = [entry(0, over=("tests",)), entry(1, ok=False, coverage=None)]
    for run in runs:
        trend.append(run, tmp_path)
    assert trend.entries(tmp_path) == runs


@pytest.mark.parametrize(
    "rest", ['{"at": 1', "nonsense", '{"schema": "to come"}', "[]"]
)
def test_half_a_line_of_a_killed_run_is_passed_over(tmp_path: Path, rest: str) -> None:
    trend.append(entry(0), tmp_path)
    with (tmp_path / trend.FILE).open("a") as file:
        file.write(rest + "\n")
    assert trend.entries(tmp_path) == [entry(0)]


def test_a_week_counts_its_runs_and_shows_its_last() -> None:
    runs = [entry(0, tests=4), entry(6.9, ok=False, seconds=90.0), entry(7)]
    first, second = trend.weeks(runs)
    assert (first.monday, first.runs, first.green) == ("2025-12-01", 2, 0.5)
    assert (first.p50, first.p95, first.tests) == (60.0, 90.0, 5)
    assert second.monday == "2025-12-08"


def test_the_picture_has_a_point_for_each_run_and_a_red_one_for_a_red_run() -> None:
    drawn = xml.fromstring(trend.picture([entry(0), entry(1, ok=False), entry(2)]))
    points = [e.get("fill") for e in drawn.iter() if e.tag.endswith("circle")]
    assert len(points) == 9 and points.count("#dc2626") == 3


def test_the_picture_and_the_table_are_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trend.append(entry(0, flaky=1, over=("tests",)), tmp_path)
    trend.show(since="all", folder=tmp_path, root=tmp_path)
    shown = capsys.readouterr().out
    assert "2025-12-01" in shown and "flaky: 1 times; over budget: tests" in shown
    assert (tmp_path / "reports/pipeline.svg").read_text().startswith("<svg")


def test_as_json_there_is_one_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trend.append(entry(0), tmp_path)
    trend.show(since="all", as_json=True, folder=tmp_path, root=tmp_path)
    assert json.loads(capsys.readouterr().out)["runs"][0]["tests"] == 5
