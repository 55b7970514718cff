"""The gates: each goes red on its fault, and verdicts are kept by content."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ops import errors, findings, gates
from ops.advisories import DATABASE
from ops.gates import BY_NAME, TABLE, Tree, quality, run
from ops.shell import Result
from tests.ops.checkouts import checkout, write

CASES = json.loads((Path(__file__).parents[1] / "cases/commits.json").read_text())
FAULTS = {
    "black": ("ops/plan.py", '"""plan."""\nx = {  "a":1 }\n', "--- ops/plan.py"),
    "isort": ("ops/plan.py", '"""plan."""\nimport sys\nimport os\n', "+import os"),
    "flake8": ("ops/plan.py", '"""plan."""\n\nimport os\n', "ops/plan.py:3:1: F401"),
    "bandit": ("ops/plan.py", '"""plan."""\n\nexec("1")\n', "ops/plan.py:3: B102"),
    "imports": (
        "ops/plan.py",
        '"""plan."""\n\nfrom ops import shell\n',
        "ops.plan -> ops.shell",
    ),
    "lock": ("requirements.txt", "flask==0.1\n", "requirements.txt is not what"),
    "dependencies": ("advisories/insecure.json", "{}", "not an advisory database"),
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLTRADING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(DATABASE, str(tmp_path / "here" / "advisories"))
    return checkout(tmp_path / "here")


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
    assert (verdict.data["judged"], verdict.data["files"]) == (1, 18)


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
@pytest.mark.parametrize("name", ["black", "isort", "flake8", "bandit", "imports"])
def test_a_file_that_is_no_python_is_red_in_one_gate_at_least(
    tree: Path, name: str
) -> None:
    write(tree, "ops/plan.py", "def (:\n")
    states = {v.name: v.state for v in run((name, "flake8"), root=tree)}
    assert states["flake8"] == "red"
    assert states[name] == "red" or name == "isort"


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


@pytest.mark.integration
def test_fmt_mends_what_black_and_isort_find(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tree, "ops/plan.py", 'import sys\nimport os\nx = {  "a":1 }\n')
    assert gates.fmt(root=tree) == ("ops/plan.py",)
    assert {v.state for v in run(("black", "isort"), root=tree)} == {"green"}
    assert "formatted ops/plan.py" in capsys.readouterr().out


@pytest.mark.integration
def test_fmt_says_that_a_file_cannot_be_parsed(tree: Path) -> None:
    write(tree, "ops/plan.py", "def (:\n")
    with pytest.raises(errors.StepFailed, match="can't be formatted"):
        gates.fmt(root=tree)


def test_an_unknown_gate_names_the_known_ones() -> None:
    with pytest.raises(errors.Usage) as usage:
        run(("blak",))
    assert usage.value.allowed.startswith("quality, black, isort")


def test_a_tool_that_is_not_installed_is_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLTRADING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gates, "installed", dict)
    write(tmp_path, ".flake8", "")
    write(tmp_path, "a.py", "")
    (verdict,) = run(("flake8",), root=tmp_path)
    assert verdict.state == "red" and verdict.fix == "uv sync"


@pytest.mark.parametrize("read", ["black", "isort", "flake8", "bandit"])
def test_a_crash_is_never_read_as_green(read: str) -> None:
    crash = Result(1, "", "Traceback: boom", 0.1)
    assert not getattr(findings, read)(crash, ("a.py",), "/root").understood


def test_bandit_must_account_for_every_file() -> None:
    empty = json.dumps({"errors": [], "results": [], "metrics": {}})
    assert not findings.bandit(Result(0, empty, "", 0.1), ("a.py",), "/").understood


def test_a_diff_line_that_looks_like_a_header_splits_nothing() -> None:
    out = "--- a.py\tnow\n+++ a.py\tnow\n@@ -1 +1 @@\n--- b.sql\n+-- b.sql\n"
    found = findings.black(Result(1, out, "", 0.1), ("a.py", "b.py"), "/")
    assert list(found.text) == ["a.py"]
    assert found.text["a.py"].endswith("--- b.sql\n+-- b.sql")


def test_made_folders_are_no_input_at_the_root_only(tmp_path: Path) -> None:
    for name in ("dist/a.py", ".venv/a.py", "x/__pycache__/a.py", "x/build/a.py"):
        write(tmp_path, name, "")
    assert Tree(tmp_path).paths == ("x/build/a.py",)


def test_a_setting_of_one_tool_is_read_apart_from_the_others(tmp_path: Path) -> None:
    write(tmp_path, "pyproject.toml", "[tool.black]\nx = 1\n[tool.isort]\nx = 2\n")
    tree = Tree(tmp_path)
    assert tree.config("pyproject.toml#tool.black") == {"x": 1}
    assert tree.config("pyproject.toml#tool.none") == {}
    assert tree.config("none.cfg") == ""


def test_imports_are_what_a_module_imports_wherever_it_does() -> None:
    source = b"def f():\n    from a import (\n        b,\n    )\n    import c\n"
    assert gates.imported(source) == "#\nfrom a import b\nimport c"
    assert gates.imported(b"x = 1") == "#"
    assert gates.imported(b"def (:") == ""


def test_tests_are_no_input_of_bandit(tmp_path: Path) -> None:
    write(tmp_path, "tests/a.py", "")
    write(tmp_path, "ops/a.py", "")
    assert Tree(tmp_path).inputs(BY_NAME["bandit"]) == ("ops/a.py",)


def test_versions_are_those_that_are_installed() -> None:
    from importlib.metadata import version

    found = gates.installed()
    assert found["black"] == version("black")
    assert found["import-linter"] == version("import-linter")


@pytest.mark.parametrize("case", CASES, ids=[case["message"][:40] for case in CASES])
def test_commit_message(tmp_path: Path, case: dict) -> None:
    write(tmp_path, "message", case["message"])
    try:
        gates.commit_message(tmp_path / "message")
        assert case["good"]
    except errors.Refused as refused:
        assert not case["good"]
        assert "type(scope)" in refused.allowed
