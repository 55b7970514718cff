"""A secret that was rotated is not brought back by a rollback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ops.errors import StepFailed
from ops.release import Release
from ops.targets.agent import Agent
from ops.targets.sticky import SCRATCH, STARTED
from tests.ops import worlds

OLD, NEW = "postgresql://u:old@db/x", "postgresql://u:new@db/x"


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    agent = Agent(tmp_path / "local")
    agent.prepare()
    return agent


def record(number: int, **changes: object) -> Release:
    said = {"secrets": ("DATABASE_URL", "TOKEN"), "sticky": ("DATABASE_URL",)}
    return replace(worlds.release(number), **{**said, **changes})


def deploy(agent: Agent, number: int, url: str, **changes: object) -> None:
    environ = {"DATABASE_URL": url, "TOKEN": f"t{number}", "LOG_LEVEL": f"l{number}"}
    agent.stage(record(number, **changes).as_json(), [], environ)
    agent.switch(number)


@contextmanager
def running(agent: Agent, number: int) -> Iterator[None]:
    """Keep a process that looks like a release's."""
    pid_file = str(agent.releases / f"v{number}" / "app.pid")
    program = "import sys; print('up', flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", program, "--pid", pid_file]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe) as process:
        assert process.stdout.readline() == b"up\n"
        yield
        process.communicate()


def stale(agent: Agent, number: int) -> tuple[str, ...]:
    slots = {slot.number: slot for slot in agent.observe(0).slots}
    return slots[number].stale


def test_an_older_release_gets_the_newest_value_and_else_its_own(
    agent: Agent,
) -> None:
    deploy(agent, 1, OLD)
    deploy(agent, 2, NEW)
    agent.switch(1)
    said = agent.variables(1)
    assert (said["DATABASE_URL"], said["TOKEN"], said["LOG_LEVEL"]) == (NEW, "t1", "l1")


def test_a_value_that_never_got_traffic_is_not_the_newest(agent: Agent) -> None:
    deploy(agent, 1, OLD)
    deploy(agent, 2, NEW)
    agent.stage(record(3).as_json(), [], {"DATABASE_URL": "mistyped"})
    assert agent.variables(1)["DATABASE_URL"] == NEW
    assert agent.variables(3)["DATABASE_URL"] == "mistyped"


def test_the_newest_value_outlives_the_release_that_brought_it(agent: Agent) -> None:
    deploy(agent, 1, OLD)
    deploy(agent, 2, NEW)
    agent.switch(1)
    agent.prune([2])
    assert agent.variables(1)["DATABASE_URL"] == NEW


def test_a_release_that_had_no_such_secret_keeps_its_own_setting(
    agent: Agent,
) -> None:
    deploy(agent, 1, "sqlite:///here.db", secrets=())
    deploy(agent, 2, NEW)
    assert agent.variables(1)["DATABASE_URL"] == "sqlite:///here.db"


def test_a_name_that_is_not_sticky_any_more_comes_back_with_its_release(
    agent: Agent,
) -> None:
    deploy(agent, 1, OLD)
    deploy(agent, 2, NEW, sticky=())
    assert agent.variables(1)["DATABASE_URL"] == OLD


def test_a_release_without_the_secret_does_not_make_the_world_forget_it(
    agent: Agent,
) -> None:
    deploy(agent, 1, OLD)
    deploy(agent, 2, NEW)
    deploy(agent, 3, "sqlite:///here.db", secrets=())
    assert agent.variables(1)["DATABASE_URL"] == NEW


def test_what_was_started_before_a_rotation_is_stale(agent: Agent) -> None:
    deploy(agent, 1, OLD)
    with running(agent, 1):
        assert stale(agent, 1) == ()
        deploy(agent, 2, OLD)
        assert stale(agent, 1) == ()
        deploy(agent, 3, NEW)
        assert stale(agent, 1) == ("DATABASE_URL",)


def test_what_was_started_again_after_it_is_not(agent: Agent) -> None:
    deploy(agent, 1, OLD)
    deploy(agent, 2, NEW)
    agent.sticky.note_start(agent.releases / "v1", record(1))
    with running(agent, 1):
        assert stale(agent, 1) == ()
        deploy(agent, 3, NEW)
        assert stale(agent, 1) == ()
        deploy(agent, 4, OLD)
        assert stale(agent, 1) == ("DATABASE_URL",)


def test_a_lost_note_only_costs_a_start(agent: Agent) -> None:
    deploy(agent, 1, OLD)
    deploy(agent, 2, NEW)
    agent.sticky.note_start(agent.releases / "v1", record(1))
    (agent.releases / "v1" / STARTED).unlink()
    with running(agent, 1):
        assert stale(agent, 1) == ("DATABASE_URL",)


def test_the_values_are_readable_by_this_user_only(agent: Agent) -> None:
    deploy(agent, 1, OLD)
    assert agent.sticky.path.stat().st_mode & 0o777 == 0o600


def test_a_damaged_file_is_no_reason_to_bring_back_an_old_value(
    agent: Agent,
) -> None:
    deploy(agent, 1, OLD)
    agent.sticky.path.write_text("{")
    with pytest.raises(StepFailed, match="can't be read") as refused:
        agent.variables(1)
    assert str(agent.sticky.path) in refused.value.where and refused.value.next


def test_what_a_crash_left_of_a_file_with_values_goes_and_stops_nobody(
    agent: Agent,
) -> None:
    scratch = agent.sticky.path.with_name(SCRATCH)
    scratch.write_text("half a f")
    deploy(agent, 1, OLD)
    assert not scratch.exists() and agent.variables(1)["DATABASE_URL"] == OLD
    scratch.write_text("half a f")
    agent.prune([])
    assert not scratch.exists()
