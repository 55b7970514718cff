"""Verdicts by content: what is judged again, what is shown and written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ops import errors
from ops.quality import quality, run
from tests.ops.checkouts import FAULTS, write


@pytest.mark.integration
def test_a_red_verdict_from_the_cache_prints_its_finding_again(tree: Path) -> None:
    write(tree, "ops/plan.py", FAULTS["flake8"][1])
    first, again = (run(("flake8",), root=tree)[0] for _ in range(2))
    assert not first.cached and again.cached
    assert again.state == "red"
    assert again.findings == first.findings


@pytest.mark.integration
def test_only_the_changed_file_is_judged_again(tree: Path) -> None:
    run(("isort",), root=tree)
    write(tree, "ops/plan.py", '"""another plan."""\n')
    (verdict,) = run(("isort",), root=tree)
    assert verdict.data is not None
    assert (verdict.data["judged"], verdict.data["files"]) == (1, 20)


@pytest.mark.integration
def test_a_checkout_in_another_place_shares_the_verdicts(
    tree: Path, tmp_path: Path
) -> None:
    run(("flake8", "isort"), root=tree)
    there = shutil.copytree(tree, tmp_path / "there", copy_function=shutil.copyfile)
    assert all(verdict.cached for verdict in run(("flake8", "isort"), root=there))


@pytest.mark.integration
def test_a_changed_setting_judges_everything_again(tree: Path) -> None:
    run(("flake8",), root=tree)
    write(tree, ".flake8", "[flake8]\nmax-line-length = 5\n")
    (verdict,) = run(("flake8",), root=tree)
    assert verdict.state == "red" and not verdict.cached


@pytest.mark.integration
def test_without_the_cache_everything_is_judged_again(tree: Path) -> None:
    run(("flake8",), root=tree)
    (verdict,) = run(("flake8",), root=tree, use_cache=False)
    assert not verdict.cached


@pytest.mark.integration
def test_a_change_that_imports_nothing_new_keeps_the_layers_verdict(
    tree: Path,
) -> None:
    run(("imports",), root=tree)
    write(tree, "ops/plan.py", '"""plan."""\n\nX = 1\n')
    assert run(("imports",), root=tree)[0].cached
    write(tree, "ops/plan.py", FAULTS["imports"][1])
    assert run(("imports",), root=tree)[0].state == "red"


@pytest.mark.integration
def test_a_tool_that_crashes_is_red_and_not_remembered(tree: Path) -> None:
    write(tree, ".flake8", "[flake8]\nmax-line-length = wide\n")
    first, again = (run(("flake8",), root=tree)[0] for _ in range(2))
    assert first.state == again.state == "red"
    assert not again.cached
    assert "flake8 ended with" in first.findings


@pytest.mark.integration
def test_quality_shows_every_red_gate_and_writes_the_reports(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tree, "ops/plan.py", FAULTS["bandit"][1] + "import os\n")
    with pytest.raises(errors.Refused, match="2 of 2 gates are red: flake8, bandit"):
        quality(("flake8", "bandit"), root=tree)
    shown = capsys.readouterr().err
    assert "B102" in shown and "F401" in shown and shown.count("fix: ") == 2
    bandit = json.loads((tree / "reports/bandit.json").read_text())
    assert [item["test_id"] for item in bandit["results"]] == ["B102"]
