"""The health bench runs, keeps its parts and finds what it looks for."""

import json
import shutil

import pytest

from bench.health import report, restarts, small
from ops.errors import Usage


def test_a_part_that_is_not_there_is_refused():
    with pytest.raises(Usage, match="no such part: nothing"):
        report.measure(1, only="scrape,nothing")


def test_the_figures_of_a_part_are_kept_beside_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.run.RESULTS", tmp_path)
    monkeypatch.setattr("bench.run.ROOT", tmp_path)
    rows = [{"what": "nothing", "median": 1}]
    monkeypatch.setitem(report.PARTS, "browser", lambda runs: {"figures": rows})
    monkeypatch.setitem(report.PARTS, "probes", lambda runs: {"figures": rows * 2})
    assert report.measure(1, only="browser") == {"parts": ["browser"], "figures": rows}
    report.measure(1, only="probes")
    kept = json.loads((tmp_path / "health.json").read_text())["parts"]
    assert [len(kept[part]["figures"]) for part in ("browser", "probes")] == [1, 2]


@pytest.mark.integration
def test_reports_and_timed_functions_are_measured(monkeypatch):
    monkeypatch.setattr(small, "TIMES", 10)
    figures = small.measure(1)["figures"]
    assert [row["limit"] for row in figures] == [30.0, 30.0, 5.0]
    assert all(row["median"] > 0 for row in figures)


@pytest.mark.integration
def test_restarts_under_load_are_measured_and_lose_nothing(monkeypatch):
    monkeypatch.setattr(restarts, "WORKERS", 2)
    monkeypatch.setattr(restarts, "SCRAPES", 5)
    monkeypatch.setattr(restarts, "RELOADS", 1)
    figures = {row["what"]: row for row in restarts.measure(2)["figures"]}
    lost = [row["median"] for what, row in figures.items() if "lost" in what]
    assert lost == [0, 0]
    assert figures["files of metrics after"]["median"] <= 16
    if shutil.which("promtool"):
        assert figures["complaints of promtool check metrics"]["median"] == 0
