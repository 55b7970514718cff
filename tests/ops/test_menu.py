"""The menu: exit codes are a contract, errors say what to type next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from ops import errors, report
from ops.environment import ROOT


def inv(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "invoke", *words],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
    )


def unread(
    stream: str, *words: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run a task with one of its streams in a pipe that has no reader any more."""
    reading, writing = os.pipe()
    os.close(reading)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: writing}
    try:
        return subprocess.run(
            [sys.executable, "-m", "invoke", *words],
            cwd=ROOT,
            env={**os.environ, **environ},
            text=True,
            **streams,
        )
    finally:
        os.close(writing)


CODES = [
    (errors.StepFailed, 1),
    (errors.Refused, 1),
    (errors.Usage, 2),
    (errors.Locked, 3),
    (errors.GateFailed, 4),
    (errors.RevertFailed, 5),
    (errors.Interrupted, 130),
]


@pytest.mark.parametrize(("kind", "code"), CODES)
def test_each_error_has_its_contracted_code(kind: type, code: int) -> None:
    assert kind("x").code == code


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("inv status", "inv status --env prod"),
        (
            "inv logs --release v7; then inv rollback",
            "inv logs --env prod --release v7; then inv rollback --env prod",
        ),
        ("inv deploy, which sends it", "inv deploy --env prod, which sends it"),
        (
            "inv deploy --env staging; or inv deploy",
            "inv deploy --env staging; or inv deploy --env prod",
        ),
        ("inv build; ssh deploy@one", "inv build; ssh deploy@one"),
    ],
)
def test_what_to_type_next_is_about_the_environment_that_was_asked_for(
    said: str, wanted: str
) -> None:
    assert errors.aimed(said, "prod") == wanted
    assert errors.aimed(said, "local") == said


def test_every_error_of_the_engine_is_in_the_contract() -> None:
    kinds = errors.OpsError.__subclasses__()
    assert {kind for kind, _ in CODES} == set(kinds)


@pytest.mark.integration
def test_an_unknown_task_is_a_usage_error_with_a_suggestion() -> None:
    ended = inv("deplyo")
    assert (ended.returncode, "did you mean: deploy" in ended.stderr) == (2, True)


@pytest.mark.integration
def test_an_unknown_flag_is_a_usage_error_with_a_suggestion() -> None:
    ended = inv("deploy", "--evn", "local")
    assert (ended.returncode, "did you mean: --env" in ended.stderr) == (2, True)


@pytest.mark.integration
@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("task", ["bench", "deploy"])
def test_a_task_is_explained_whether_or_not_it_takes_a_word(
    task: str, flag: str
) -> None:
    asked = inv(task, flag)
    assert asked.returncode == 0
    assert f"[--core-opts] {task} [--options]" in asked.stdout


@pytest.mark.integration
def test_an_unknown_environment_is_a_usage_error_in_json_too() -> None:
    ended = inv("status", "--env", "lcoal", "--json")
    assert ended.returncode == 2
    assert json.loads(ended.stdout)["error"]["next"] == "use --env local"


@pytest.mark.integration
def test_a_state_folder_that_cannot_be_written_is_refused() -> None:
    ended = inv("up", MLTRADING_STATE="/proc/nothing")
    assert ended.returncode == 1
    assert "cannot be written" in ended.stderr
    assert "MLTRADING_STATE" in ended.stderr


@pytest.mark.smoke
def test_every_task_has_one_line_of_help_and_every_flag_its_own() -> None:
    from invoke import Collection

    # Invoke takes the help out of a task when it is first asked: read it anew.
    place = spec_from_file_location("menu_read_anew", ROOT / "tasks.py")
    tasks = module_from_spec(place)
    place.loader.exec_module(tasks)
    menu = Collection.from_module(tasks)
    for name in menu.task_names:
        task = menu[name]
        assert task.__doc__ and "\n" not in task.__doc__.strip(), name
        for argument in task.get_arguments():
            assert argument.help, f"{name} --{argument.name}"


@pytest.mark.integration
def test_the_list_imports_nothing_heavy() -> None:
    program = (
        "import sys, invoke.program as p;"
        "sys.argv = ['inv', '--list'];"
        "import io, contextlib\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    try: p.Program(version='0').run(['inv', '--list'], exit=False)\n"
        "    except SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith('ops')])"
    )
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPYCACHEPREFIX"}
    ended = subprocess.run(
        [sys.executable, "-B", "-c", program],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
    )
    # -B: byte-code goes to the folder that ops.folders names.
    assert ended.stdout.strip() == "['ops', 'ops.menu', 'ops.folders']"


@pytest.mark.integration
def test_a_number_that_is_none_is_a_usage_error() -> None:
    ended = inv("deploy", "--wait", "soon")
    assert (ended.returncode, "Traceback" in ended.stderr) == (2, False)


def test_one_json_document_is_all_that_goes_to_the_output(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "_printed", [])
    report.as_json({"healthy": False})
    report.error(errors.StepFailed("it does not serve"), as_json=True)
    said = capsys.readouterr()
    assert json.loads(said.out) == {"healthy": False}
    assert "it does not serve" in said.err


@pytest.mark.integration
@pytest.mark.parametrize("buffered", ["", "1"], ids=["at the end", "at once"])
@pytest.mark.parametrize("words", [("--list",), ("deploy", "--help"), ()])
def test_a_reader_that_leaves_early_is_no_error(
    words: tuple[str, ...], buffered: str
) -> None:
    ended = unread("stdout", *words, PYTHONUNBUFFERED=buffered)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.integration
def test_an_error_that_nobody_reads_keeps_its_exit_code() -> None:
    assert unread("stderr", "status", "--env", "lcoal").returncode == 2
