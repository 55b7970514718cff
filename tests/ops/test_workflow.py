"""The workflow and the hooks call only the menu, by words that the menu knows."""

from __future__ import annotations

import re
import shlex
import tomllib
from typing import Any

import pytest
import yaml
from invoke import Collection
from invoke.parser import Parser

import tasks
from ops.environment import ROOT
from ops.gates import TABLE

BOOTSTRAP = re.compile(r"pip install uv==\d+\.\d+\.\d+")
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
TEXT = (ROOT / ".github/workflows/ci-cd.yml").read_text()
WORKFLOW = yaml.safe_load(TEXT)
HOOKS = [
    hook
    for repository in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())[
        "repos"
    ]
    for hook in repository["hooks"]
]
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
RUNS = [line for step in STEPS for line in step.get("run", "").splitlines()]
CALLS = [line for line in RUNS if not BOOTSTRAP.fullmatch(line)]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def parse(line: str) -> list[Any]:
    """Read an `inv` call as Invoke would; raises what Invoke would."""
    words = shlex.split(line)
    if words[:2] == ["uv", "run"]:
        words = [word for word in words[2:] if word != "--locked"]
    assert words[0] == "inv", f"not a call of the menu: {line}"
    contexts = Collection.from_module(tasks).to_contexts()
    return Parser(contexts=contexts).parse_argv(words[1:])


@pytest.mark.parametrize("line", CALLS)
def test_a_step_of_the_workflow_is_a_call_of_the_menu(line: str) -> None:
    assert parse(line)[0].name


def test_the_workflow_runs_setup_and_the_whole_pipeline() -> None:
    assert [parse(line)[0].name for line in CALLS] == ["setup", "ci"]


@pytest.mark.parametrize("hook", HOOKS, ids=[hook["id"] for hook in HOOKS])
def test_a_hook_is_a_call_of_the_menu(hook: dict[str, Any]) -> None:
    given = " message" if hook.get("pass_filenames", True) else ""
    assert hook["language"] == "system"
    assert len(parse(hook["entry"] + given)) == 1


def test_the_hooks_check_the_format_and_stop_at_the_first_smoke_failure() -> None:
    entries = {hook["id"]: hook["entry"] for hook in HOOKS}
    for word in ("black", "isort", "flake8"):
        assert word in entries["format"]
    assert entries["smoke"].endswith("inv test --smoke --fail-fast")


@pytest.mark.parametrize(
    "line", sorted({gate.fix for gate in TABLE if gate.fix.startswith("inv ")})
)
def test_the_fix_of_a_gate_is_a_call_of_the_menu(line: str) -> None:
    assert len(parse(line)) == 1


def test_a_word_that_the_menu_does_not_know_is_found() -> None:
    for line in ("inv qualty", "uv run inv test --smok", "make test"):
        with pytest.raises(Exception, match="qualty|smok|make test"):
            parse(line)


def test_the_menu_is_made_of_tasks_with_a_line_of_help() -> None:
    for name, task in Collection.from_module(tasks).tasks.items():
        assert (task.__doc__ or "").strip(), name


def test_the_matrix_is_what_the_project_says_it_runs_on() -> None:
    matrix = WORKFLOW["jobs"]["checks"]["strategy"]["matrix"]["python"]
    prefix = "Programming Language :: Python :: "
    assert [prefix + version for version in matrix] == PROJECT["classifiers"]
    assert PROJECT["requires-python"] == f">={matrix[0]}"


def test_every_file_names_the_same_python() -> None:
    version = (ROOT / ".python-version").read_text().strip()
    assert (ROOT / "runtime.txt").read_text().strip() == f"python-{version}"
    assert PROJECT["classifiers"][-1].endswith(version)


def test_actions_are_pinned_by_commit_and_say_their_version() -> None:
    uses = [step["uses"] for step in STEPS if "uses" in step]
    assert uses and all(PINNED.fullmatch(name) for name in uses)
    assert len(re.findall(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", TEXT, re.M)) == len(uses)


def test_the_workflow_may_only_read() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in WORKFLOW["jobs"].values())
    assert STEPS[0]["with"]["persist-credentials"] is False


def test_jobs_end_and_no_step_is_allowed_to_fail() -> None:
    assert all(job["timeout-minutes"] <= 20 for job in WORKFLOW["jobs"].values())
    assert "continue-on-error" not in TEXT
    assert "concurrency" in WORKFLOW


def test_pull_requests_and_both_branches_are_checked() -> None:
    # YAML reads the bare word `on` as true.
    triggers = WORKFLOW[True]
    assert set(triggers) == {"pull_request", "merge_group", "push"}
    assert triggers["push"]["branches"] == ["main", "develop"]


def test_nothing_of_an_event_is_pasted_into_a_shell() -> None:
    assert not [line for line in RUNS if "${{" in line]
