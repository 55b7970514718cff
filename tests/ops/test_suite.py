"""The test task and the pipeline: what counts as a pass, and what is shown."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from ops import errors, pythons, suite, tested
from tests.ops.checkouts import write

PYTEST = '[tool.pytest.ini_options]\njunit_family = "xunit1"\nmarkers = ["smoke: x"]\n'
# The plugin that dash brings takes longer to load than these tests to run.
PYTEST += 'addopts = "-p no:dash"\n'
GOOD = "def test_good():\n    pass\n"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLTRADING_CACHE", f"{tmp_path}-cache")
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


MARKED = """
import pytest
@pytest.mark.{kind}
def test_marked():
    pass
"""


@pytest.mark.integration
def test_a_kind_leaves_the_others_out(tree: Path) -> None:
    # In one piece the marker's name would make this file one that has smoke tests.
    marked = MARKED.format(kind="smoke")
    write(tree, "test_a.py", marked + GOOD)
    assert suite.run(("smoke",), root=tree)[0].passed == 1


@pytest.mark.integration
def test_a_python_that_is_not_here_says_how_to_get_it(tree: Path) -> None:
    with pytest.raises(errors.Usage, match="Python 3.99 is not on this mach") as usage:
        suite.run(root=tree, python="3.99")
    assert usage.value.next == "uv python install 3.99"


def test_a_python_that_is_not_on_the_path_is_found(tmp_path: Path) -> None:
    for place in (
        "pyenv/versions/3.12.1",
        "pyenv/versions/3.1.0",
        "uv/cpython-3.13.1-x",
    ):
        write(tmp_path, f"{place}/bin/python", "")
    environ = {"PYENV_ROOT": f"{tmp_path}/pyenv"}
    environ["UV_PYTHON_INSTALL_DIR"] = f"{tmp_path}/uv"
    versions = tmp_path / "pyenv" / "versions"
    assert pythons.near("3.12", environ) == f"{versions}/3.12.1/bin/python"
    assert pythons.near("3.13", environ) == f"{tmp_path}/uv/cpython-3.13.1-x/bin/python"
    assert pythons.near("3.2", environ) == ""


def test_a_python_on_the_path_is_no_shim(tmp_path: Path) -> None:
    for place, text in (("shims", "#!/bin/sh\n"), ("usr", "\x7fELF")):
        write(tmp_path, f"{place}/python3.12", text)
        (tmp_path / place / "python3.12").chmod(0o755)
    environ = {"PATH": f"{tmp_path}/shims:{tmp_path}/usr", "HOME": str(tmp_path)}
    assert pythons.near("3.12", environ) == f"{tmp_path}/usr/python3.12"


@pytest.fixture
def checkout(tree: Path) -> Path:
    """A checkout with two test files; `a` uses a module and reads a file."""
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    write(tree, ".gitignore", "reports/\n.coverage*\n__pycache__/\n.pytest_cache/\n")
    write(
        tree,
        "own.py",
        "import json, pathlib\nHERE = pathlib.Path(__file__).parent\n"
        "def value():\n    return json.loads((HERE / 'v.json').read_text())\n",
    )
    write(tree, "v.json", "1")
    write(tree, "test_a.py", "import own\ndef test_a():\n    assert own.value()\n")
    write(tree, "test_b.py", GOOD)
    return tree


def ran(tree: Path, **asked: object) -> set[str]:
    (outcome,) = suite.run(root=tree, **{"coverage": False, **asked})
    return {file for file, said in outcome.files.items() if said["state"] != "cached"}


@pytest.mark.integration
def test_what_did_not_change_is_not_run_again(checkout: Path) -> None:
    assert ran(checkout) == {"test_a.py", "test_b.py"}
    assert ran(checkout) == set()
    assert ran(checkout, use_cache=False) == {"test_a.py", "test_b.py"}


@pytest.mark.integration
def test_what_a_run_makes_in_a_folder_that_a_test_lists_is_no_change(
    checkout: Path,
) -> None:
    body = "import os\nROOT = os.path.dirname(__file__)\n"
    body += "def test_l():\n    assert os.listdir(ROOT)\n"
    write(checkout, "test_l.py", body)
    assert "test_l.py" in ran(checkout)
    for name in (".hypothesis", ".pytest_cache", "reports", "dist"):
        (checkout / name).mkdir(exist_ok=True)
    write(checkout, ".coverage.host.1", "")
    assert ran(checkout) == set()
    write(checkout, "new.txt", "")
    assert "test_l.py" in ran(checkout)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("own.py", "\n", {"test_a.py"}),
        ("v.json", " ", {"test_a.py"}),
        ("test_b.py", "\n", {"test_b.py"}),
        ("README.md", "x", set()),
        ("conftest.py", "", {"test_a.py", "test_b.py"}),
        ("uv.lock", "x", {"test_a.py", "test_b.py"}),
    ],
)
def test_a_change_runs_what_depends_on_it_and_nothing_else(
    checkout: Path, file: str, text: str, expected: set[str]
) -> None:
    ran(checkout)
    with (checkout / file).open("a") as opened:
        opened.write(text)
    assert ran(checkout) == expected


@pytest.mark.integration
def test_another_clone_shares_the_verdicts(checkout: Path, tmp_path: Path) -> None:
    ran(checkout)
    clone = tmp_path.parent / f"{tmp_path.name}-clone"
    shutil.copytree(checkout, clone, ignore=shutil.ignore_patterns("reports"))
    assert ran(clone) == set()
    assert "test_a" in (clone / "reports/junit.xml").read_text()


STARTS = """
import subprocess, sys
def test_p():
    assert subprocess.run([sys.executable, "-c", ""]).returncode == 0
"""


@pytest.mark.integration
def test_a_test_that_starts_our_python_rests_on_the_whole_tree(checkout: Path) -> None:
    write(checkout, "test_p.py", STARTS)
    ran(checkout)
    write(checkout, "v.json", "2")
    assert ran(checkout) == {"test_a.py", "test_p.py"}


@pytest.mark.integration
def test_another_program_of_the_system_is_named_as_that(
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    write(checkout, "test_p.py", STARTS)
    ran(checkout)
    monkeypatch.setattr(tested, "_system", lambda: ("nginx 2",))
    assert ran(checkout, explain=True) == {"test_p.py"}
    assert "test_p.py: the system's programs changed\n" in capfd.readouterr().err


@pytest.mark.integration
def test_a_red_file_is_run_again_and_says_why(
    checkout: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(checkout, "v.json", "0")
    for _ in range(2):
        with pytest.raises(errors.StepFailed, match="1 of 2 tests failed"):
            ran(checkout)
    write(checkout, "v.json", "3")
    assert ran(checkout, explain=True) == {"test_a.py"}
    assert "test_a.py: it never passed here" in capfd.readouterr().err


@pytest.mark.integration
def test_what_changed_since_it_passed_is_named(
    checkout: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ran(checkout)
    write(checkout, "v.json", "3")
    ran(checkout, explain=True)
    assert "test_a.py: v.json changed" in capfd.readouterr().err


FLAKY = """
import pathlib
def test_f():
    seen = pathlib.Path({seen!r})
    seen.write_text(seen.read_text() + "x" if seen.exists() else "x")
    assert len(seen.read_text()) % 2 == 0
"""


@pytest.mark.integration
def test_a_flaky_test_is_asked_again_then_red_unless_listed(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    seen = tmp_path_factory.mktemp("seen") / "count"
    write(checkout, "test_f.py", FLAKY.format(seen=str(seen)))
    (outcome,) = suite.run(root=checkout, coverage=False)
    assert list(outcome.flaky) == ["test_f.py::test_f"] and outcome.ok
    with pytest.raises(errors.StepFailed, match="is flaky: the 2nd|2th time"):
        suite.run(root=checkout, coverage=False, use_cache=False)
    entry = '[[flaky]]\ntest = "test_f.py::test_f"\nowner = "ann"\n'
    write(checkout, "tests/flaky.toml", entry + 'until = 2999-01-01\nwhy = "a race"\n')
    assert suite.run(root=checkout, coverage=False, use_cache=False)[0].flaky


@pytest.mark.integration
def test_coverage_counts_files_that_were_not_run_again(checkout: Path) -> None:
    extra = '[tool.coverage.run]\nsource = ["."]\nbranch = true\n'
    write(checkout, "pyproject.toml", PYTEST + extra)
    (first,) = suite.run(root=checkout)
    with (checkout / "test_b.py").open("a") as opened:
        opened.write("\n")
    (second,) = suite.run(root=checkout)
    assert second.cached == 1 and first.coverage == second.coverage > 90
    assert (checkout / "reports/coverage/index.html").is_file()
    assert 'filename="own.py"' in (checkout / "reports/coverage.xml").read_text()


@pytest.mark.integration
def test_two_shards_run_each_file_once(checkout: Path) -> None:
    parts = [ran(checkout, shard=f"{n}/2", use_cache=False) for n in (1, 2)]
    assert sorted(map(len, parts)) == [1, 1] and parts[0] != parts[1]


@pytest.mark.integration
def test_a_worker_that_dies_is_a_failure_and_stops_no_other(checkout: Path) -> None:
    write(checkout, "test_d.py", "import os\ndef test_d():\n    os._exit(0)\n")
    with pytest.raises(errors.StepFailed, match="1 of 3 tests failed"):
        suite.run(root=checkout, coverage=False)
    (said,) = json.loads((checkout / "reports/tests.json").read_text())["tests"]
    assert said["passed"] == 2 and said["failing"] == ["test_d.py::test_d"]


@pytest.mark.parametrize(
    ("url", "kinds"),
    [("ftp://x", ("smoke",)), ("http://x", ()), ("http://x", ("e2e",))],
)
def test_an_address_is_asked_by_smoke_or_integration_tests_only(
    tree: Path, url: str, kinds: tuple[str, ...]
) -> None:
    with pytest.raises(errors.Usage):
        suite.run(kinds, url=url, root=tree)


@pytest.mark.parametrize(
    ("jobs", "light", "most"),
    [(3, True, 1), (3, False, 2), (1, True, 1), (1, False, 1), (8, True, 4)],
)
def test_deploys_share_the_processors(jobs: int, light: bool, most: int) -> None:
    from ops.forks import most_heavy

    assert most_heavy(jobs, light=light) == most
