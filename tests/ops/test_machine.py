"""Setting a machine up, and saying what it lacks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ops import errors, machine
from ops.command import Command
from ops.machine import Check, Part, Rights, prefix, setup
from ops.shell import Result
from tests.ops.checkouts import must

GONE = Part("gadget", ("gadget-that-nobody-has",), "gadget-deb", "to show")
HERE = Part("shell", ("sh",), "dash", "to show")
ROOT_USER = Rights(apt=True, root=True, sudo=False)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Take down the commands instead of running them."""
    commands: list[str] = []

    def run(command: Command, **options: object) -> Result:
        commands.append(str(command))
        return Result(0, "", "", 0.1)

    monkeypatch.setattr(machine, "run", run)
    return commands


def test_nothing_is_done_where_all_parts_are(
    ran: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup(root=tmp_path, parts=(HERE,))
    assert ran == []
    assert "every part is here" in capsys.readouterr().err


def test_a_missing_part_is_installed_by_root(ran: list[str], tmp_path: Path) -> None:
    setup(root=tmp_path, parts=(HERE, GONE), may=ROOT_USER)
    assert ran == [
        "env DEBIAN_FRONTEND=noninteractive apt-get update",
        "env DEBIAN_FRONTEND=noninteractive apt-get install -y"
        " --no-install-recommends gadget-deb",
    ]


def test_a_server_that_debian_starts_is_stopped_where_it_was_not_before(
    ran: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Part("p", ("gadget-that-nobody-has",), "prometheus", "to show")
    here = Part("redis", ("sh",), "redis-server", "to show")
    monkeypatch.setattr(machine, "SYSTEMD", tmp_path)
    setup(root=tmp_path, parts=(server, here, GONE), may=ROOT_USER)
    assert ran[-1] == "systemctl disable --now prometheus"
    monkeypatch.setattr(machine, "SYSTEMD", tmp_path / "none")
    setup(root=tmp_path, parts=(server,), may=ROOT_USER)
    assert ran[-1].endswith("recommends prometheus")


def test_sudo_without_a_password_is_used() -> None:
    assert prefix((GONE,), Rights(apt=True, root=False, sudo=True)) == ("sudo", "-n")


def test_a_plain_user_is_told_what_an_administrator_types(tmp_path: Path) -> None:
    may = Rights(apt=True, root=False, sudo=False)
    with pytest.raises(errors.Refused, match="missing on this machine: gadget") as no:
        setup(root=tmp_path, parts=(GONE,), may=may)
    assert "apt-get install -y --no-install-recommends gadget-deb" in no.value.next


def test_another_system_is_told_the_names(tmp_path: Path) -> None:
    may = Rights(apt=False, root=True, sudo=False)
    with pytest.raises(errors.Refused) as refused:
        setup(root=tmp_path, parts=(GONE,), may=may)
    assert "install gadget by this system's own" in refused.value.next


def test_a_dry_run_shows_the_plan_and_runs_nothing(
    ran: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup(dry_run=True, root=tmp_path, parts=(GONE,), may=ROOT_USER)
    assert ran == []
    assert "recommends gadget-deb" in capsys.readouterr().err


@pytest.mark.parametrize(("said", "runs"), [("y", 2), ("", 0), ("no", 0)])
def test_a_person_at_a_terminal_is_asked_once(
    ran: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    runs: int,
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return said

    try:
        setup(root=tmp_path, parts=(GONE,), may=ROOT_USER, environ={}, ask=ask)
    except errors.Refused as refused:
        assert refused.next == "inv setup --yes"
    assert len(asked) == 1 and len(ran) == runs


@pytest.mark.integration
def test_the_hooks_are_installed_and_again(tmp_path: Path) -> None:
    must(tmp_path, "git", "init", "--quiet")
    (tmp_path / ".pre-commit-config.yaml").write_text("repos: []\n")
    for _ in range(2):
        setup(root=tmp_path, parts=())
    hooks = tmp_path / ".git" / "hooks"
    assert (hooks / "pre-commit").is_file() and (hooks / "commit-msg").is_file()


def test_hooks_are_skipped_outside_git(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup(root=tmp_path, parts=())
    assert "not a git checkout" in capsys.readouterr().err


def test_a_part_is_found_on_the_path_or_by_pattern(tmp_path: Path) -> None:
    (tmp_path / "17").mkdir()
    (tmp_path / "17" / "postgres").write_text("")
    part = Part("p", (f"{tmp_path}/*/postgres",), "p", "p")
    assert part.where() == f"{tmp_path}/17/postgres"
    assert HERE.where().endswith("/sh") and GONE.where() == ""


@pytest.mark.parametrize(("version", "state"), [((3, 10), "failed"), ((3, 11), "ok")])
def test_the_python_version_is_judged(version: tuple, state: str) -> None:
    assert machine.python(version).state == state


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    assert machine.disk(tmp_path / "not" / "yet", 1).state == "ok"
    check = machine.disk(tmp_path, 10**12)
    assert check.state == "failed" and "1,000,000,000,000 needed" in check.said


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert machine.writable("state", tmp_path / "new").state == "ok"
    assert machine.writable("state", tmp_path / "file" / "new").state == "failed"


def test_doctor_ends_with_one_when_something_required_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "checks", lambda env, **facts: ())
    extra = (Check("port", "failed", "held by sshd", "inv up --port 0"),)
    with pytest.raises(errors.Refused, match="not ready for local: port") as refused:
        machine.doctor(extra=extra)
    assert refused.value.code == 1
    assert "port: inv up --port 0" in capsys.readouterr().err


@pytest.mark.integration
def test_doctor_looks_at_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        machine.doctor(as_json=True)
    except errors.Refused as refused:
        assert "not ready" in refused.what
    found = {check["name"] for check in json.loads(capsys.readouterr().out)["checks"]}
    assert {
        "python",
        "uv",
        "git",
        "lock",
        "disk",
        "state folder",
        "cache folder",
    } <= found
    assert {"chromium", "postgresql", "advisories"} <= found


def test_doctor_refuses_an_environment_that_is_not_there() -> None:
    with pytest.raises(errors.Usage, match="there is no environment"):
        machine.doctor("prd")
