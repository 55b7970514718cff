"""The test task and the pipeline: what counts as a pass, and what is shown."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from ops import artefact, errors, pythons, quality, suite
from tests.ops.checkouts import write

PYTEST = '[tool.pytest.ini_options]\njunit_family = "xunit1"\nmarkers = ["smoke: x"]\n'
GOOD = "def test_good():\n    pass\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write(tmp_path, "pyproject.toml", PYTEST)
    return tmp_path


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((), ""),
        (("smoke",), "smoke"),
        (("unit",), "not (regression or integration or e2e)"),
        (("unit", "e2e"), "not (regression or integration or e2e) or e2e"),
    ],
)
def test_kinds_become_a_marker_expression(kinds: tuple, expected: str) -> None:
    assert suite.markers(kinds) == expected


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(errors.Usage) as usage:
        suite.markers(("fast",))
    assert usage.value.allowed == "unit, smoke, regression, integration, e2e"


@pytest.mark.integration
def test_a_pass_writes_the_report(tree: Path) -> None:
    write(tree, "test_a.py", GOOD)
    (outcome,) = suite.run(root=tree, coverage=False)
    assert outcome.ok and (outcome.passed, outcome.failed) == (1, 0)
    assert (tree / "reports/junit.xml").is_file()


@pytest.mark.integration
@pytest.mark.parametrize(
    "text", ["", "import pytest\npytest.skip(allow_module_level=True)"]
)
def test_no_test_at_all_is_a_failure(tree: Path, text: str) -> None:
    write(tree, "test_a.py", text)
    with pytest.raises(errors.StepFailed, match="0 tests ran"):
        suite.run(root=tree, coverage=False)


@pytest.mark.integration
def test_each_failing_test_comes_with_its_command(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = "class TestA:\n    def test_b(self):\n        assert 0\n"
    write(tree, "tests/test_a.py", GOOD + body)
    with pytest.raises(errors.StepFailed, match="1 of 2 tests failed"):
        suite.run(root=tree, coverage=False)
    shown = capsys.readouterr().err
    assert "again: uv run pytest 'tests/test_a.py::TestA::test_b'" in shown


@pytest.mark.integration
def test_a_module_that_cannot_be_imported_is_a_failure(tree: Path) -> None:
    write(tree, "test_a.py", "import nothing_like_this\n")
    with pytest.raises(errors.StepFailed):
        suite.run(root=tree, coverage=False)


@pytest.mark.integration
def test_the_tests_see_the_test_environment(tree: Path) -> None:
    body = "import os\ndef test_a():\n    e = os.environ\n"
    body += "    assert e['ENVIRONMENT'] == 'test' and e['TESTING'] == 'True'\n"
    body += "    assert e['DASH_DEBUG'] == 'False'\n"
    body += "    assert e['DATABASE_URL'].startswith('sqlite:////')\n"
    write(tree, "test_a.py", body)
    assert suite.run(root=tree, coverage=False)[0].ok


@pytest.mark.integration
def test_pytests_closing_line_is_visible(
    tree: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tree, "test_a.py", GOOD)
    suite.run(root=tree, coverage=False)
    assert "1 passed" in capfd.readouterr().out.splitlines()[-1]


@pytest.mark.integration
def test_json_is_all_that_goes_to_the_output(
    tree: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tree, "test_a.py", GOOD)
    suite.run(root=tree, coverage=False, as_json=True)
    shown = capfd.readouterr()
    assert json.loads(shown.out)["tests"][0]["passed"] == 1
    assert "1 passed" in shown.err


@pytest.mark.integration
def test_a_kind_leaves_the_others_out(tree: Path) -> None:
    mark = "import pytest\n@pytest.mark.smoke\ndef test_smoke():\n    pass\n"
    write(tree, "test_a.py", mark + GOOD)
    assert suite.run(("smoke",), root=tree)[0].passed == 1


def test_a_python_that_is_not_here_says_how_to_get_it(tree: Path) -> None:
    with pytest.raises(errors.Usage, match="Python 3.99 is not on this mach") as usage:
        suite.run(root=tree, python="3.99")
    assert usage.value.next == "uv python install 3.99"


def test_a_python_of_pyenv_is_found_though_not_on_the_path(tree: Path) -> None:
    for version in ("3.12.1", "3.1.0"):
        write(tree, f"versions/{version}/bin/python", "")
    environ = {"PYENV_ROOT": str(tree)}
    assert pythons.pyenv("3.12", environ) == f"{tree}/versions/3.12.1/bin/python"
    assert pythons.pyenv("3.2", environ) == ""


@pytest.fixture
def parts(tree: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Replace the three parts by ones that are red on request."""
    red = {"quality": False, "tests": False, "build": False}

    def part(name: str, value: object) -> object:
        def act(*args: object, **kwargs: object) -> object:
            if red[name]:
                raise errors.Refused(f"{name} says no")
            return value

        return act

    made = artefact.Artefact("d", tree, "c", False, (), tree, "l", "3.13", 1.0, False)
    outcome = suite.Outcome("3.13", 0, 5, 0, 0, 1.0, ())
    monkeypatch.setattr(quality, "quality", part("quality", ()))
    monkeypatch.setattr(suite, "run", part("tests", (outcome,)))
    monkeypatch.setattr(artefact, "build_task", part("build", made))
    return red


def test_the_pipeline_writes_its_report(tree: Path, parts: dict[str, bool]) -> None:
    suite.ci(root=tree, environ={})
    document = json.loads((tree / "reports/ci.json").read_text())
    assert {name: part["state"] for name, part in document["parts"].items()} == {
        "quality": "green",
        "tests": "green",
        "build": "green",
    }
    assert document["parts"]["tests"]["budget"] == 480


@pytest.mark.parametrize("name", ["quality", "tests", "build"])
def test_one_red_part_hides_no_other(
    tree: Path, parts: dict[str, bool], name: str
) -> None:
    parts[name] = True
    with pytest.raises(errors.StepFailed, match=f"{name} red"):
        suite.ci(root=tree, environ={})
    document = json.loads((tree / "reports/ci.json").read_text())
    states = [part["state"] for part in document["parts"].values()]
    assert sorted(states) == ["green", "green", "red"]


def in_git(tree: Path) -> Path:
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    (tree / ".gitignore").write_text("reports/\n.coverage*\n__pycache__/\n")
    return tree


@pytest.mark.integration
def test_a_green_run_of_these_very_files_is_believed_where_asked(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLTRADING_CACHE", str(tree.parent / "cache"))
    write(in_git(tree), "test_a.py", GOOD)
    suite.run(root=tree, coverage=False)
    monkeypatch.setattr(suite, "_pytest", None)
    (known,) = suite.run(root=tree, believe=True)
    assert (known.passed, known.failed) == (1, 0)


@pytest.mark.integration
def test_a_changed_file_of_any_kind_is_not_believed(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLTRADING_CACHE", str(tree.parent / "cache"))
    write(in_git(tree), "test_a.py", GOOD)
    suite.run(root=tree, coverage=False)
    (tree / "page.css").write_text("body {}\n")
    assert suite._known(tree) is None


@pytest.mark.integration
def test_a_red_run_is_not_remembered(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLTRADING_CACHE", str(tree.parent / "cache"))
    write(in_git(tree), "test_a.py", "def test_a():\n    assert 0\n")
    with pytest.raises(errors.StepFailed):
        suite.run(root=tree, coverage=False)
    assert suite._known(tree) is None


def test_a_part_over_its_budget_is_named(
    tree: Path,
    parts: dict[str, bool],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(suite.BUDGETS, "build", -1)
    suite.ci(root=tree, environ={"GITHUB_STEP_SUMMARY": str(tree / "summary.md")})
    over = [line for line in capsys.readouterr().err.splitlines() if "OVER" in line]
    assert len(over) == 1 and "build" in over[0]
    assert "| build | green |" in (tree / "summary.md").read_text()
