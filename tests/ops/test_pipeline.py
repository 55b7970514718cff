"""The whole pipeline: three parts, one report, and what GitHub is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ops import artefact, errors, pipeline, quality, suite, trend
from tests.ops.checkouts import write


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLTRADING_STATE", str(tmp_path / "state"))
    return tmp_path


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
    pipeline.ci(root=tree, environ={})
    document = json.loads((tree / ".ci/report.json").read_text())
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
        pipeline.ci(root=tree, environ={})
    document = json.loads((tree / ".ci/report.json").read_text())
    states = [part["state"] for part in document["parts"].values()]
    assert sorted(states) == ["green", "green", "red"]


def test_a_part_over_its_budget_is_named(
    tree: Path,
    parts: dict[str, bool],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(pipeline.BUDGETS, "build", -1)
    pipeline.ci(root=tree, environ={"GITHUB_STEP_SUMMARY": str(tree / "summary.md")})
    over = [line for line in capsys.readouterr().err.splitlines() if "OVER" in line]
    assert len(over) == 1 and "build" in over[0]
    assert "| build | green |" in (tree / "summary.md").read_text()


def test_the_run_is_added_to_the_history(tree: Path, parts: dict[str, bool]) -> None:
    pipeline.ci(root=tree, environ={})
    (entry,) = trend.entries()
    assert (entry.ok, entry.tests, entry.commit) == (True, 5, "c")


def test_the_artefact_gets_its_answers_beside_it(
    tree: Path, parts: dict[str, bool]
) -> None:
    (tree / "dist" / "d").mkdir(parents=True)
    parts["tests"] = True
    with pytest.raises(errors.StepFailed):
        pipeline.ci(root=tree, environ={})
    said = json.loads((tree / "dist/d/gates.json").read_text())
    assert said["artefact"] == "d" and said["ok"] is False
    assert said["parts"] == {"quality": "green", "tests": "red", "build": "green"}


def test_a_run_that_is_killed_leaves_no_report_of_another(
    tree: Path, parts: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(**_: object) -> None:
        raise KeyboardInterrupt

    pipeline.ci(root=tree, environ={})
    monkeypatch.setattr(suite, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        pipeline.ci(root=tree, environ={})
    assert not (tree / pipeline.REPORT).exists()


def test_github_is_shown_groups_and_what_is_red(
    tree: Path, parts: dict[str, bool], capsys: pytest.CaptureFixture[str]
) -> None:
    red = {"gate": "flake8", "state": "red", "findings": "ops/a.py:3:1: F401 x"}
    write(tree, "reports/quality.json", json.dumps({"gates": [red]}))
    pipeline.ci(root=tree, environ={"GITHUB_ACTIONS": "true"})
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("::")] == [
        "::group::quality",
        "::endgroup::",
        "::group::build",
        "::endgroup::",
        "::group::tests",
        "::endgroup::",
        "::error title=flake8,file=ops/a.py,line=3::F401 x",
    ]


def good(**changes: object) -> str:
    parts = {
        "quality": {"state": "green", "gates": {"black": "green"}},
        "tests": {"state": "green", "pythons": [{"passed": 5}]},
        "build": {"state": "green", "artefact": "d"},
    }
    whole = {"schema_version": 2, "ok": True, "commit": "c", "parts": parts}
    return json.dumps(whole | changes)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "there is no report"),
        ("{", "it can't be read"),
        (good(schema_version=1), "another version"),
        (good().replace('"state": "green"', '"state": "red"', 1), "quality red"),
        (good().replace('{"black": "green"}', "{}"), "0 gates"),
        (good().replace('"passed": 5', '"passed": 0'), "0 tests ran"),
        (good().replace('[{"passed": 5}]', "[]"), "no tests ran"),
        (good(ok=False), "not green"),
    ],
)
def test_a_report_that_proves_nothing_holds_the_gate_shut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, why: str
) -> None:
    write(tmp_path, "one/report.json", good())
    if text is not None:
        write(tmp_path, "two/.ci/report.json", text)
    with pytest.raises(errors.StepFailed, match="1 of 2 reports"):
        pipeline.check(tmp_path, expected=["one", "two"])
    assert why in capsys.readouterr().err


def test_reports_that_are_all_there_and_green_open_the_gate(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path, f"{name}/report.json", good())
    pipeline.check(
        tmp_path,
        expected=["one", "two"],
        environ={"GITHUB_OUTPUT": str(tmp_path / "output")},
    )
    assert (tmp_path / "output").read_text() == "artefact=d\n"


@pytest.mark.parametrize(
    "other",
    [('"commit": "c"', '"commit": "x"'), ('"artefact": "d"', '"artefact": "x"')],
)
def test_reports_of_two_artefacts_hold_the_gate_shut(
    tmp_path: Path, other: tuple[str, str]
) -> None:
    write(tmp_path, "one/report.json", good())
    write(tmp_path, "two/report.json", good().replace(*other))
    with pytest.raises(errors.StepFailed, match="2 artefacts"):
        pipeline.check(tmp_path, expected=["one", "two"])


def test_a_gate_that_expects_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.Usage):
        pipeline.check(tmp_path, expected=[])
