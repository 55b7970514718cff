"""The workflow and the hooks call only the menu, by words that the menu knows."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from invoke import Collection
from invoke.parser import Parser

import tasks
from ops import pythons
from ops.environment import ROOT
from ops.gates import TABLE
from tests.ops.events import simulate

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


def test_the_checks_set_up_the_machine_and_run_the_whole_pipeline() -> None:
    steps = WORKFLOW["jobs"]["checks"]["steps"]
    lines = [
        s["run"] for s in steps if "run" in s and not BOOTSTRAP.fullmatch(s["run"])
    ]
    assert lines == ["uv run --locked inv setup --yes", "uv run --locked inv ci"]


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
    assert tuple(matrix) == pythons.VERSIONS


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
    checkouts = [s for s in STEPS if s.get("uses", "").startswith("actions/checkout@")]
    assert all(s["with"]["persist-credentials"] is False for s in checkouts)


def test_jobs_end_and_no_step_is_allowed_to_fail() -> None:
    assert all(job["timeout-minutes"] <= 30 for job in WORKFLOW["jobs"].values())
    assert "continue-on-error" not in TEXT
    assert "concurrency" in WORKFLOW


def test_pull_requests_and_both_branches_are_checked() -> None:
    # YAML reads the bare word `on` as true.
    triggers = WORKFLOW[True]
    assert set(triggers) == {"pull_request", "merge_group", "push"}
    assert triggers["push"]["branches"] == ["main", "develop"]


EVENTS = {
    "pull request": ("pull_request", "refs/pull/7/merge"),
    "merge queue": ("merge_group", "refs/heads/gh-readonly-queue/main/pr-7-abc"),
    "push develop": ("push", "refs/heads/develop"),
    "push main": ("push", "refs/heads/main"),
    "push feature": ("push", "refs/heads/feature/x"),
    "push to a branch that ends like main": ("push", "refs/heads/not/main"),
    "tag": ("push", "refs/tags/v1"),
    "tag named main": ("push", "refs/tags/main"),
    "schedule": ("schedule", "refs/heads/main"),
    "by hand": ("workflow_dispatch", "refs/heads/main"),
}
ALWAYS = {"checks", "gate"}
EXPECTED = {
    "pull request": ALWAYS,
    "merge queue": ALWAYS,
    "push develop": {*ALWAYS, "coverage", "staging", "staging-tests"},
    "push main": {*ALWAYS, "coverage", "production", "production-tests"},
}


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_runs_these_jobs_and_no_others(event: str) -> None:
    ran = simulate(WORKFLOW, *EVENTS[event])
    assert {job for job, end in ran.items() if end == "success"} == EXPECTED.get(
        event, set()
    )


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("broken", ["checks", "gate"])
def test_nothing_is_deployed_past_a_red_check(event: str, broken: str) -> None:
    ran = simulate(WORKFLOW, *EVENTS[event], broken={broken})
    assert not {"staging", "production"} & {j for j, e in ran.items() if e != "skipped"}


def test_the_gate_is_red_and_never_skipped_when_the_checks_are_cut_off() -> None:
    for end in ("failure", "cancelled", "skipped"):
        ran = simulate(WORKFLOW, *EVENTS["pull request"], ends={"checks": end})
        assert ran["gate"] != "skipped"


def test_what_was_deployed_is_not_asked_where_the_deploy_failed() -> None:
    ran = simulate(WORKFLOW, *EVENTS["push main"], broken={"production"})
    assert (ran["production"], ran["production-tests"]) == ("failure", "skipped")


def test_only_prod_enters_the_protected_environment_and_only_from_main() -> None:
    entering = {
        name: job["environment"]["name"]
        for name, job in WORKFLOW["jobs"].items()
        if "environment" in job
    }
    assert entering == {"staging": "staging", "production": "production"}
    for event, (kind, ref) in EVENTS.items():
        reached = simulate(WORKFLOW, kind, ref).get("production") == "success"
        assert reached == (event == "push main")


def test_the_simulation_sees_a_condition_that_lets_another_branch_through() -> None:
    changed = yaml.safe_load(TEXT.replace("github.ref == 'refs/heads/main'", "true"))
    ran = simulate(changed, *EVENTS["push develop"])
    assert ran["production"] == "success"


def test_a_secret_is_given_to_the_one_step_that_needs_it() -> None:
    for name, job in WORKFLOW["jobs"].items():
        without = {k: v for k, v in job.items() if k != "steps"}
        assert "secrets." not in str(without), name
        for step in job["steps"]:
            if "secrets." in str(step):
                assert name in ("staging", "production", "coverage"), name


def test_a_deploy_that_began_is_not_cut_off() -> None:
    for name in ("staging", "production"):
        job = WORKFLOW["jobs"][name]["concurrency"]
        assert job["cancel-in-progress"] is False


def test_every_report_of_the_matrix_is_expected() -> None:
    matrix = WORKFLOW["jobs"]["checks"]["strategy"]["matrix"]["python"]
    (line,) = [line for line in CALLS if "--check" in line]
    wanted = ",".join(f"reports-{version}" for version in matrix)
    assert parse(line)[0].args["expect"].value == wanted


@pytest.mark.integration
@pytest.mark.parametrize(
    "words", [("actionlint", "-no-color"), ("zizmor", "--offline", "--no-progress")]
)
def test_the_workflow_is_clean_to_its_linters(words: tuple[str, ...]) -> None:
    program = Path(sys.executable).parent / words[0]
    file = str(ROOT / ".github/workflows/ci-cd.yml")
    done = subprocess.run(
        [str(program), *words[1:], file], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.integration
@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("actionlint", "-no-color"), ("needs: [gate]", "needs: [gates]")),
        (("zizmor", "--offline"), ("persist-credentials: false", "fetch-tags: true")),
    ],
)
def test_a_planted_fault_is_found_by_a_linter(
    tmp_path: Path, words: tuple[str, ...], fault: tuple[str, str]
) -> None:
    file = tmp_path / ".github/workflows/ci-cd.yml"
    file.parent.mkdir(parents=True)
    file.write_text(TEXT.replace(*fault))
    program = Path(sys.executable).parent / words[0]
    done = subprocess.run([str(program), *words[1:], str(file)], capture_output=True)
    assert done.returncode != 0


def test_nothing_of_an_event_is_pasted_into_a_shell() -> None:
    assert not [line for line in RUNS if "${{" in line]
