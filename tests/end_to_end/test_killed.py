"""A deployer that dies at any point: the site serves, the next command converges."""

from __future__ import annotations

import json
import os
import select
import signal
import sqlite3
import subprocess
import urllib.request

import pytest

from tests.end_to_end.conftest import Project

pytestmark = pytest.mark.e2e


def kill_at(project: Project, step: str, process: subprocess.Popen[str]) -> None:
    """Kill a deployer the moment its journal announces a step."""
    journal = project.local / "state" / "journal.jsonl"
    seen = journal.stat().st_size
    ended = os.pidfd_open(process.pid)
    try:
        while True:
            fresh = journal.read_bytes()[seen:].decode()
            lines = [line for line in fresh.splitlines() if '"intent"' in line]
            if any(f'"step":"{step}"' in line for line in lines):
                process.send_signal(signal.SIGKILL)
                process.communicate()
                return
            waited = select.select([ended], [], [], 0.001)[0]
            assert not waited, process.communicate()
    finally:
        os.close(ended)


def up(project: Project) -> subprocess.CompletedProcess[str]:
    """Bring it up; while an orphaned step still holds the lease, try again."""
    for _ in range(60):
        ended = project.inv("up")
        if ended.returncode != 3:
            break
    return ended


def answers(project: Project, url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.headers["X-Release"]


@pytest.mark.parametrize(
    "step", ["stage", "migrate", "boot", "gate", "switch", "smoke"]
)
def test_a_killed_deploy_leaves_a_site_that_serves_and_a_rerun_converges(
    project: Project, step: str
) -> None:
    before = project.status()
    project.change()
    kill_at(project, step, project.start("deploy", "--env", "local"))
    assert answers(project, before["url"])
    again = project.deploy("--wait", "60")
    after = project.status()
    assert again.returncode == 0, again.stderr
    assert after["healthy"] and after["current"] != before["current"]
    assert after["unfinished"] is None
    assert answers(project, before["url"]) == after["current"]


def test_a_killed_rollback_is_finished_by_the_next_command(project: Project) -> None:
    project.change()
    assert project.deploy().returncode == 0
    before = project.status()
    kill_at(project, "switch", project.start("rollback"))
    assert up(project).returncode == 0
    after = project.status()
    assert after["healthy"] and after["unfinished"] is None
    assert answers(project, before["url"]) == after["current"]


def test_an_interrupted_deploy_puts_everything_back(project: Project) -> None:
    before = project.status()
    project.change()
    process = project.start("deploy", "--env", "local")
    journal = project.local / "state" / "journal.jsonl"
    seen = journal.stat().st_size
    while b'"step":"boot"' not in journal.read_bytes()[seen:]:
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    after = project.status()
    assert process.returncode == 130, err
    assert (after["current"], after["healthy"]) == (before["current"], True)
    assert after["runs"][-1]["outcome"] == "interrupted"


def test_two_at_once_one_acts_and_the_other_is_told(project: Project) -> None:
    project.change()
    first = project.start("deploy", "--env", "local")
    holder = project.local / "state" / "holder.json"
    while not holder.exists():
        assert first.poll() is None, first.communicate()
    second = project.inv("rollback")
    _, err = first.communicate()
    assert (first.returncode, second.returncode) == (0, 3), err + second.stderr
    assert "is doing a deploy" in second.stderr


def test_the_second_of_two_waits_when_asked_to(project: Project) -> None:
    project.change()
    first = project.start("deploy", "--env", "local")
    holder = project.local / "state" / "holder.json"
    while not holder.exists():
        assert first.poll() is None, first.communicate()
    second = project.inv("rollback", "--wait", "60")
    assert first.wait() == 0
    first.communicate()
    assert second.returncode == 0, second.stderr


def test_a_release_whose_processes_were_killed_comes_back_with_up(
    project: Project,
) -> None:
    status = project.status()
    for pid in status["processes"]:
        os.kill(pid, signal.SIGKILL)
    # After a power cut the number in the pid file may be another program's.
    folder = project.local / "releases" / status["current"]
    (folder / "app.pid").write_text("1")
    assert project.inv("up").returncode == 0
    assert answers(project, status["url"]) == status["current"]


def test_a_killed_restore_leaves_the_old_database_or_the_new_one(
    project: Project,
) -> None:
    made = json.loads(project.inv("db-backup", "--json").stdout)
    words = ("db-restore", "--backup", made["name"], "--yes")
    kill_at(project, "restore", project.start(*words))
    ended = up(project)
    assert ended.returncode == 0, ended.stderr
    database = sqlite3.connect(project.local / "data" / "mltrading.db")
    (series,) = database.execute("select count(*) from series").fetchone()
    (verdict,) = database.execute("pragma integrity_check").fetchone()
    database.close()
    assert (series, verdict) == (5, "ok")
    assert project.status()["unfinished"] is None


def test_a_killed_db_reset_is_finished_by_the_next_command(project: Project) -> None:
    kill_at(project, "reset", project.start("db-reset", "--yes"))
    ended = up(project)
    assert ended.returncode == 0, ended.stderr
    database = sqlite3.connect(project.local / "data" / "mltrading.db")
    (series,) = database.execute("select count(*) from series").fetchone()
    database.close()
    assert series == 5
    assert project.status()["unfinished"] is None
