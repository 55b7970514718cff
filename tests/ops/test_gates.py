"""The gates: each goes red on its planted fault, and never by accident green."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops import errors, toolchain
from ops.gates import BY_NAME, TABLE
from ops.quality import run
from ops.tree import Tree
from tests.ops.checkouts import FAULTS, write


@pytest.mark.integration
@pytest.mark.parametrize("name", [gate.name for gate in TABLE])
def test_a_planted_fault_turns_its_gate_red(tree: Path, name: str) -> None:
    if name != "dependencies":
        assert [v.state for v in run((name,), root=tree)] == ["green"]
    file, text, says = FAULTS[name]
    write(tree, file, text)
    (verdict,) = run((name,), root=tree)
    assert verdict.state == "red"
    assert says in verdict.findings
    assert verdict.fix


@pytest.mark.integration
@pytest.mark.parametrize("name", ["black", "isort", "flake8", "bandit", "imports"])
def test_a_file_that_is_no_python_is_red_in_one_gate_at_least(
    tree: Path, name: str
) -> None:
    write(tree, "ops/plan.py", "def (:\n")
    states = {v.name: v.state for v in run((name, "flake8"), root=tree)}
    assert states["flake8"] == "red"
    assert states[name] == "red" or name == "isort"


def test_an_unknown_gate_names_the_known_ones() -> None:
    with pytest.raises(errors.Usage) as usage:
        run(("blak",))
    assert usage.value.allowed.startswith("quality, black, isort")


def test_a_tool_that_is_not_installed_is_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLTRADING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(toolchain, "installed", dict)
    write(tmp_path, ".flake8", "")
    write(tmp_path, "a.py", "")
    (verdict,) = run(("flake8",), root=tmp_path)
    assert verdict.state == "red" and verdict.fix == "uv sync"


def test_tests_are_no_input_of_bandit(tmp_path: Path) -> None:
    write(tmp_path, "tests/a.py", "")
    write(tmp_path, "ops/a.py", "")
    assert BY_NAME["bandit"].judges(Tree(tmp_path)) == ("ops/a.py",)
