"""The exit codes are a contract: each of them by one real command."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest

from ops.lease import Lease
from tests.end_to_end.conftest import Project
from tests.end_to_end.test_deploy import FAILS_IN_PUBLIC, NEVER_READY, shorten_budgets

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def quick(project: Project) -> Project:
    """The project with short budgets; its gates are asked by other tests."""
    shorten_budgets(project)
    path = project.folder / "ops" / "environments.toml"
    path.write_text(path.read_text().replace('gates = ["quality"]', "gates = []", 1))
    project.commit()
    return project


def begun(project: Project, step: str) -> subprocess.Popen[str]:
    """Start a deploy and return when its journal announces a step."""
    journal = project.local / "state" / "journal.jsonl"
    seen = journal.stat().st_size
    process = project.start("deploy", "--env", "local")
    wanted = f'"step":"{step}"'.encode()
    while wanted not in journal.read_bytes()[seen:]:
        assert process.poll() is None, process.communicate()
    return process


def test_0_what_was_asked_for_is_so(quick: Project) -> None:
    assert quick.inv("status").returncode == 0


def test_1_it_was_refused_and_nothing_was_touched(quick: Project) -> None:
    before = quick.journal()
    ended = quick.inv("rollback")
    assert ended.returncode == 1
    assert "there is no good release to go back to" in ended.stderr
    assert quick.journal() == before


def test_2_what_was_typed_is_not_allowed(quick: Project) -> None:
    ended = quick.inv("rollback", "--to", "seven")
    assert ended.returncode == 2
    assert '"seven" is not a release' in ended.stderr


def test_3_somebody_else_acts(quick: Project) -> None:
    lease = Lease(quick.local / "state")
    lease.take("a deploy", "ann@laptop", wait=0.0, tell=print)
    ended = quick.inv("rollback")
    lease.release()
    assert ended.returncode == 3
    assert "ann@laptop is doing a deploy" in ended.stderr


def test_4_a_gate_said_no_and_the_old_release_serves(quick: Project) -> None:
    before = quick.status()["current"]
    quick.plant(NEVER_READY)
    ended = quick.deploy()
    quick.mend()
    after = quick.status()
    assert ended.returncode == 4, ended.stderr
    assert (after["current"], after["healthy"]) == (before, True)


def test_130_a_person_stopped_it_and_the_old_release_serves(quick: Project) -> None:
    before = quick.status()["current"]
    quick.change()
    process = begun(quick, "boot")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    after = quick.status()
    assert process.returncode == 130, said
    assert (after["current"], after["healthy"]) == (before, True)


def test_5_putting_back_failed_and_what_was_found_bad_goes_on_serving(
    quick: Project,
) -> None:
    old = quick.status()
    quick.plant("import os  # noqa: E402\n\n" + FAILS_IN_PUBLIC)
    process = begun(quick, "smoke")
    for pid in old["processes"]:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(quick.local / "releases" / old["current"])
    _, said = process.communicate()
    quick.mend()
    assert process.returncode == 5, said
    assert f"no host can run {old['current']} or an older release any more" in said
    assert quick.status()["runs"][-1]["outcome"] == "revert_failed"
    assert quick.deploy().returncode == 0
    assert quick.status()["healthy"]
