"""An agent in a process of its own, asked over pipes as SSH would ask it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops import environment
from ops.errors import Locked, Refused, StepFailed
from ops.targets import link, protocol
from ops.targets.ssh import SshTarget

pytestmark = pytest.mark.integration

PROGRAM = """
import pathlib, signal, sys
from ops.targets import protocol, session
from ops.targets.agent import Agent
protocol.PATIENCE, protocol.LATE = float(sys.argv[2]), 0.3
agent = Agent(pathlib.Path(sys.argv[1]))
agent.migrate = lambda number: (print("begun", file=sys.stderr, flush=True),
                                signal.sigtimedwait((), number), "finished")[2]
agent.boot = agent.migrate
found = session.Session(session.Verbs(agent, 0, session.Stream()), 0, 1)
signal.signal(signal.SIGINT, found.interrupt)
found.serve()
"""


class Talk:
    """A deployer's end of two pipes to an agent."""

    def __init__(self, root: Path, patience: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(root), str(patience)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.number = 0
        assert "hello" in self.hear()

    def say(self, message: dict[str, Any], data: bytes = b"") -> None:
        self.process.stdin.write(protocol.line(message) + data)
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        return protocol.parse(self.process.stdout.readline())

    def send(
        self, verb: str, epoch: int = 0, needs: tuple[int, ...] = (), **args: Any
    ) -> None:
        self.number += 1
        said = {"id": self.number, "verb": verb, "args": args, "epoch": epoch}
        self.say({**said, "at": time.monotonic(), "needs": needs})

    def ask(self, verb: str, epoch: int = 0, **args: Any) -> Any:
        self.send(verb, epoch, **args)
        said = self.hear()
        assert said["id"] == self.number
        if "error" in said:
            raise protocol.raised(said["error"], "host1")
        return said["ok"]

    def begun(self) -> None:
        assert self.process.stderr.readline() == b"begun\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "staging"


@pytest.fixture
def talk(root: Path) -> Iterator[Talk]:
    talk = Talk(root, 60.0)
    yield talk
    talk.process.stdin.close()
    assert talk.process.wait(10) == 0
    talk.process.stdout.close()
    talk.process.stderr.close()


def test_an_effect_needs_the_lease_and_its_epoch(talk: Talk) -> None:
    with pytest.raises(Locked, match="epoch 0, which is over"):
        talk.ask("switch", number=None)
    epoch = talk.ask("take", doing="a deploy", by="ann")["epoch"]
    assert "moved" in talk.ask("switch", epoch, number=None)
    with pytest.raises(Locked, match=f"epoch {epoch - 1}, which is over"):
        talk.ask("switch", epoch - 1, number=None)


def test_the_lease_dies_with_the_agent(talk: Talk, root: Path) -> None:
    talk.ask("take", doing="a deploy", by="ann")
    second = Talk(root, 60.0)
    with pytest.raises(Locked, match="ann is doing a deploy"):
        second.ask("take", doing="a deploy", by="bob")
    talk.process.kill()
    talk.process.wait()
    assert second.ask("take", doing="a deploy", by="bob")["epoch"] == 2
    second.process.communicate()
    talk.process.returncode = 0


def test_who_was_cut_off_gets_the_lease_back_unless_somebody_acted(
    talk: Talk, root: Path
) -> None:
    mine = talk.ask("take", doing="a deploy", by="ann")["epoch"]
    talk.ask("release")
    assert talk.ask("take", doing="a deploy", by="ann", again=mine)["epoch"] == mine
    talk.ask("release")
    talk.ask("take", doing="a rollback", by="bob")
    talk.ask("release")
    with pytest.raises(Locked, match="somebody else has acted"):
        talk.ask("take", doing="a deploy", by="ann", again=mine)


def test_an_agent_that_hears_nothing_ends(root: Path) -> None:
    talk = Talk(root, 0.2)
    assert talk.process.wait(10) == 0
    talk.process.communicate()


def test_what_must_be_finished_is_finished_when_the_deployer_is_gone(
    root: Path,
) -> None:
    talk = Talk(root, 60.0)
    epoch = talk.ask("take", doing="a deploy", by="ann")["epoch"]
    talk.send("migrate", epoch, number=0.5)
    talk.begun()
    begun = time.monotonic()
    talk.process.communicate()
    assert time.monotonic() - begun > 0.3


def test_what_may_be_cut_short_is_when_asked(talk: Talk) -> None:
    epoch = talk.ask("take", doing="a deploy", by="ann")["epoch"]
    talk.send("boot", epoch, number=60)
    talk.begun()
    talk.say({"cancel": talk.number})
    assert talk.hear()["error"]["kind"] == "Interrupted"
    assert talk.ask("holder")["by"] == "ann"


def test_a_request_that_nobody_waits_for_any_more_is_not_carried_out(
    root: Path,
) -> None:
    talk = Talk(root, 60.0)
    epoch = talk.ask("take", doing="a deploy", by="ann")["epoch"]
    talk.process.send_signal(signal.SIGSTOP)
    talk.send("switch", epoch, number=None)
    sent = time.monotonic()
    while time.monotonic() - sent < 0.5:
        os.waitid(os.P_PID, talk.process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
    talk.process.send_signal(signal.SIGCONT)
    assert talk.process.wait(10) == 0
    talk.process.communicate()
    assert not (root / "current").exists()


def test_what_needs_a_request_that_failed_is_not_begun(talk: Talk, root: Path) -> None:
    epoch = talk.ask("take", doing="a deploy", by="ann")["epoch"]
    talk.send("switch", epoch - 1, number=None)
    talk.send("switch", epoch, needs=(talk.number,), number=7)
    talk.send("switch", epoch, number=None)
    said = [talk.hear() for _ in range(3)]
    assert ["ok" in each for each in said] == [False, False, True]
    assert "was not begun" in said[1]["error"]["what"]
    assert not os.path.lexists(root / "current")


def test_what_is_cancelled_before_its_turn_is_not_begun(talk: Talk) -> None:
    epoch = talk.ask("take", doing="a deploy", by="ann")["epoch"]
    talk.send("migrate", epoch, number=0.2)
    talk.begun()
    talk.send("boot", epoch, number=60)
    talk.say({"cancel": talk.number})
    assert talk.hear()["ok"] == "finished"
    assert talk.hear()["error"]["kind"] == "Interrupted"


def test_a_request_is_not_late_that_waits_behind_a_long_step(talk: Talk) -> None:
    epoch = talk.ask("take", doing="a deploy", by="ann")["epoch"]
    talk.send("migrate", epoch, number=0.6)
    talk.send("holder")
    beat = {"beat": 1, "at": 0.0}
    talk.say({**beat, "at": time.monotonic()})
    while "beat" in (said := talk.hear()):
        talk.say({**beat, "at": time.monotonic()})
    assert said["ok"] == "finished"
    while "beat" in (said := talk.hear()):
        pass
    assert said["ok"]["by"] == "ann"


def test_a_beat_is_answered_while_a_step_goes_on(talk: Talk) -> None:
    epoch = talk.ask("take", doing="a deploy", by="ann")["epoch"]
    talk.send("migrate", epoch, number=0.3)
    talk.begun()
    talk.say({"beat": 4, "at": time.monotonic()})
    assert talk.hear() == {"beat": 4}
    assert talk.hear()["ok"] == "finished"


def test_only_verbs_of_the_list_are_answered(talk: Talk) -> None:
    for verb in ("named", "_x", "__init__", "agent", "prepare"):
        with pytest.raises((Refused, StepFailed)):
            talk.ask(verb)


def test_the_agent_needs_nothing_but_the_library(tmp_path: Path) -> None:
    sha, program = link.agent()
    assert (sha, program) == link.agent()
    path = tmp_path / f"{sha}.pyz"
    path.write_bytes(program)
    words = ["-I", str(path), "--root=mltrading/x", "--name=x"]
    for _ in ("unpacks itself", "finds itself unpacked"):
        said = subprocess.run(
            [sys.executable, *words],
            env={"HOME": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
        )
        assert set(protocol.parse(said.stdout)) == {"hello"}, said.stderr
    assert not (tmp_path / "mltrading").exists()


# The target over these pipes ----------------------------------------------------------


class Piped(link.Link):
    """The agent of a host as a process beside us."""

    def join(self, talk: Talk) -> Piped:
        self._channel = self
        self.sendall = lambda text: (
            talk.process.stdin.write(text),
            talk.process.stdin.flush(),
        )
        threading.Thread(
            target=self._listen, args=(talk.process.stdout,), daemon=True
        ).start()
        return self


@pytest.fixture
def target(talk: Talk) -> SshTarget:
    hosts = {"MLTRADING_STAGING_HOSTS": "ann@h1", "STAGING_URL": "http://h1"}
    target = SshTarget(environment.load("staging"), hosts)
    (member,) = target.members.values()
    member.link = Piped(member.address, "mltrading/staging", {}).join(talk)
    target.take("a deploy", "ann", 0.0, print)
    return target


def event(phase: str, step: str = "") -> dict[str, Any]:
    said = {"run": "r1", "op": "deploy", "phase": phase, "at": 1.0, "release": 1}
    return {**said, "step": step, "facts": {"outcome": "good"}}


def phases(root: Path) -> list[str]:
    lines = (root / "state" / "journal.jsonl").read_text().splitlines()
    return [json.loads(line)["phase"] for line in lines]


def test_an_event_is_on_the_disk_before_what_comes_after_it(
    target: SshTarget, root: Path
) -> None:
    target.record(event("begin"))
    target.record(event("intent", "switch"))
    target.act("h1", "switch", number=None)
    assert phases(root) == ["begin", "intent"]
    target.record(event("end"))
    target.settle()
    assert phases(root) == ["begin", "intent", "end"]


def test_nothing_is_begun_that_the_journal_does_not_hold(
    target: SshTarget, root: Path
) -> None:
    target.record(event("begin"))
    target.settle()
    (root / "state" / "journal.jsonl").rename(root / "kept")
    (root / "state" / "journal.jsonl").mkdir()
    with pytest.raises(OSError, match="directory"):
        target.record(event("intent", "switch"))
        target.act("h1", "switch", number=7)
    assert not os.path.lexists(root / "current")
    # What puts back goes on without it.
    assert "moved" in target.act("h1", "switch", number=None)


def test_taking_the_lease_tells_what_is_there(target: SshTarget) -> None:
    asked = next(target.members["h1"].link._ids)
    world = target.observe()
    assert world.history.runs == () and world.reached[0].name == "h1"
    assert next(target.members["h1"].link._ids) == asked + 1
