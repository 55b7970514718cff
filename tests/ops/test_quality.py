"""Verdicts by content: what is judged again, what is shown and written."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ops import errors, inquiry, judges, quality, toolchain
from ops.cache import Store, Verdict
from ops.environment import ROOT
from ops.gates import BY_NAME
from ops.quality import run
from ops.shell import Result
from ops.tree import Tree
from tests.ops.checkouts import FAULTS, FILES, commit, write


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
    assert (verdict.data["judged"], verdict.data["files"]) == (1, FILES)


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
        quality.quality(("flake8", "bandit"), root=tree)
    shown = capsys.readouterr().err
    assert "B102" in shown and "F401" in shown and shown.count("fix: ") == 2
    bandit = json.loads((tree / "reports/bandit.json").read_text())
    assert [item["test_id"] for item in bandit["results"]] == ["B102"]


def asked(root: Path, *names: str, **options: Any) -> dict[str, Any]:
    """Return the report of a run that may be red."""
    with contextlib.suppress(errors.Refused):
        quality.quality(names, root=root, **options)
    document = json.loads((root / "reports/quality.json").read_text())
    return {gate.pop("gate"): gate for gate in document["gates"]}


@pytest.mark.integration
def test_explain_names_the_input_that_changed_since_the_last_green_run(
    tree: Path,
) -> None:
    asked(tree, "isort")
    assert asked(tree, "isort", explain=True)["isort"]["why"] == [
        "nothing changed since the last green run here"
    ]
    write(tree, "ops/plan.py", FAULTS["isort"][1])
    write(tree, "ops/new.py", "")
    (tree / "ops/world.py").unlink()
    for _ in range(2):
        said = asked(tree, "isort", explain=True)["isort"]
        assert said["why"] == [
            "changed: ops/plan.py",
            "new: ops/new.py",
            "gone: ops/world.py",
        ]


@pytest.mark.integration
def test_explain_names_a_setting_and_a_tool(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked(tree, "flake8")
    write(tree, ".flake8", "[flake8]\nmax-line-length = 80\n")
    monkeypatch.setattr(toolchain, "closure", lambda tools: {"flake8": "99"})
    monkeypatch.setattr(toolchain, "installed", lambda: {"flake8": "99"})
    why = asked(tree, "flake8", explain=True)["flake8"]["why"]
    assert ".flake8" in why and any("flake8 " in line and "99" in line for line in why)


@pytest.mark.integration
def test_since_asks_only_about_what_differs(tree: Path) -> None:
    commit(tree)
    write(tree, "ops/plan.py", FAULTS["isort"][1])
    said = asked(tree, "isort", "imports", "lock", since="HEAD", use_cache=False)
    assert said["isort"]["state"] == "red"
    assert (said["isort"]["judged"], said["isort"]["files"]) == (1, 1)
    assert said["imports"]["state"] == "green"
    assert said["lock"]["state"] == "skipped"


@pytest.mark.integration
@pytest.mark.parametrize("file", [".flake8", "uv.lock"])
def test_since_asks_about_everything_when_a_setting_or_the_lock_differs(
    tree: Path, file: str
) -> None:
    commit(tree)
    write(tree, file, (tree / file).read_text() + "# changed\n")
    said = asked(tree, "flake8", since="HEAD", use_cache=False)
    assert said["flake8"]["files"] == FILES


@pytest.mark.integration
def test_since_an_unknown_revision_is_a_usage_error(tree: Path) -> None:
    commit(tree)
    with pytest.raises(errors.Usage, match="no revision"):
        quality.quality(("isort",), root=tree, since="nowhere")


@pytest.mark.integration
def test_a_dry_run_starts_no_tool(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(("isort",), root=tree)
    write(tree, "ops/plan.py", "X = 1\n")
    monkeypatch.setattr(judges, "shell_run", lambda *a, **k: pytest.fail("started"))
    quality.plan(("isort", "lock"), root=tree, as_json=True)
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert [step["would"] for step in plan] == [f"ask about 1 of {FILES} files", "ask"]


@pytest.mark.integration
def test_the_first_red_gate_ends_the_run_when_asked_to(tree: Path) -> None:
    write(tree, "requirements.txt", "flask==0.1\n")
    said = asked(tree, "lock", "black", jobs=1, fail_fast=True)
    states = {name: gate["state"] for name, gate in said.items()}
    assert "skipped" in states.values() or states["lock"] == "red"
    assert states["lock"] != "green"


@pytest.mark.integration
def test_what_changes_while_a_tool_reads_it_is_not_kept(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_run = judges.shell_run

    def edit_and_run(*arguments: Any, **options: Any) -> Result:
        result = true_run(*arguments, **options)
        write(tree, "ops/plan.py", FAULTS["flake8"][1])
        return result

    monkeypatch.setattr(judges, "shell_run", edit_and_run)
    assert run(("flake8",), root=tree)[0].state == "green"
    monkeypatch.undo()
    (again,) = run(("flake8",), root=tree)
    assert again.state == "red"


@pytest.mark.integration
def test_a_run_without_the_cache_finds_a_verdict_that_lies(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tree, "ops/plan.py", FAULTS["flake8"][1])
    with contextlib.closing(Store.open()) as store:
        asking = inquiry.Asking(tree)
        (question,) = inquiry.look_up((BY_NAME["flake8"],), Tree(tree), store, asking)
        key = question.grounds.file_key("ops/plan.py")
        store.put(key, Verdict("flake8", "green"))
    assert run(("flake8",), root=tree)[0].state == "green"
    assert run(("flake8",), root=tree, use_cache=False)[0].state == "red"
    assert "says otherwise of the same content" in capsys.readouterr().err
    assert run(("flake8",), root=tree)[0].state == "red"


@pytest.mark.integration
def test_a_damaged_verdict_makes_the_run_ask_everything_again(tree: Path) -> None:
    run(("isort",), root=tree)
    write(tree, "ops/plan.py", "X = 1\n")
    file = Path(os.environ["MLTRADING_CACHE"], "verdicts.db")
    with sqlite3.connect(file) as raw:
        raw.execute("UPDATE verdicts SET value = replace(value, 'green', 'white')")
    raw.close()
    (verdict,) = run(("isort",), root=tree)
    assert verdict.state == "green"
    assert (verdict.data or {})["judged"] == FILES


@pytest.mark.integration
def test_watching_asks_again_after_a_change(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(seconds: float) -> None:
        write(tree, "ops/plan.py", FAULTS["isort"][1])

    monkeypatch.setattr(quality.time, "sleep", change)
    quality.watch(("isort",), root=tree, rounds=2)
    shown = capsys.readouterr().err
    assert shown.count("1 gates in") == 2 and "+import os" in shown


@pytest.mark.integration
def test_a_gate_over_its_budget_is_named(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quality, "BUDGET", 0.0)
    quality.quality(("isort",), root=tree)
    assert "was isort" in capsys.readouterr().err


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_was_ended_midway_leaves_the_right_answer_to_the_next(
    tree: Path, number: signal.Signals
) -> None:
    write(tree, "ops/plan.py", FAULTS["flake8"][1])
    code = "from ops.quality import run; from pathlib import Path; import sys;"
    code += "run(('black', 'isort', 'flake8'), root=Path(sys.argv[1]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tree)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    store = Path(os.environ["MLTRADING_CACHE"], "verdicts.db")
    while not store.exists() and process.poll() is None:
        os.sched_yield()
    process.send_signal(number)
    process.wait(timeout=20)
    states = {v.name: v.state for v in run(("isort", "flake8"), root=tree)}
    assert states == {"isort": "green", "flake8": "red"}


@pytest.mark.integration
def test_the_end_table_is_drawn_with_nothing_imported_to_draw(tree: Path) -> None:
    code = "import sys; from ops import quality; print('rich' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.stdout == "False\n"
