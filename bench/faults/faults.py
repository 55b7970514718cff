"""What can happen to a deploy or a rollback, chosen by a seed, and how it is done.

A run is a value that follows from the campaign's seed and its own number alone, so
`inv bench faults --seed S --only N` does it again.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.faults.checkout import FAULTY, SOUND
from bench.faults.lane import Command, Lane

# How long an agent goes on that hears nothing, and a margin (ops/targets/protocol.py).
PATIENCE = 15.0
MARGIN = 6.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: its weight on each sort of lane, and whether it may be second.

    `outage`: a host has no power, link or disk meanwhile.
    """

    name: str
    local: int
    ssh: int
    second: bool = False
    outage: bool = False


KINDS = (
    Kind("none", 2, 2),
    Kind("kill deployer", 16, 12, second=True),
    Kind("kill step", 6, 0, second=True),
    Kind("kill agent", 0, 8, second=True),
    Kind("kill agents", 0, 4, second=True),
    Kind("kill both", 6, 6, second=True),
    Kind("crash at a call", 18, 12, second=True),
    Kind("fsync error", 8, 6),
    Kind("clock jump", 4, 3),
    Kind("disk full", 8, 6, outage=True),
    Kind("stop deployer", 4, 2),
    Kind("stop agent", 0, 1),
    Kind("connection reset", 0, 6, second=True),
    Kind("cut, short", 0, 3, outage=True),
    Kind("cut, long", 0, 1, outage=True),
    Kind("power off", 0, 1, outage=True),
    Kind("reboot", 0, 2, outage=True),
    Kind("database gone", 0, 6),
    Kind("faulty release", 10, 8),
    Kind("interrupt", 10, 9, second=True),
    Kind("race", 8, 7),
)
BY_NAME = {kind.name: kind for kind in KINDS}
# Those that end within a second or two: what a short campaign is made of.
QUICK = (
    *("kill deployer", "kill step", "kill agent", "kill both", "crash at a call"),
    *("fsync error", "disk full", "connection reset", "database gone"),
    *("interrupt", "race"),
)
_CALLS = ("fsync", "rename", "symlink", "unlink", "write", "any", "any")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: its kind, when it strikes, and where.

    `at` is a share of the journal's lines that a run of this sort writes; below 0 it
    strikes before the first of them. `delay` is seconds after that line: 0 is at the
    boundary itself, more is inside the step. `host` is an index.
    """

    kind: str
    at: float = 0.0
    delay: float = 0.0
    host: int = 0
    line: str = ""
    number: int = 0
    wait: bool = False

    @property
    def planted(self) -> bool:
        """Say whether a process meets it by itself, at a call of its own."""
        return bool(self.line)


@dataclass(frozen=True, slots=True)
class Run:
    """One run: what is done on which sort of lane, and what happens to it."""

    number: int
    seed: int
    lane: str
    op: str
    version: str
    other: str
    fault: Fault
    second: Fault | None = None
    dry: bool = False
    migrates: bool = False


def choose(
    seed: int,
    number: int,
    lanes: Sequence[str] = ("local", "ssh2", "ssh3"),
    kinds: Sequence[str] = (),
) -> Run:
    """Return run `number` of the campaign with a seed."""
    rng = random.Random(f"{seed}:{number}")
    shares = {"local": 48, "ssh2": 42, "ssh3": 10}
    lane = rng.choices(lanes, [shares[name] for name in lanes])[0]
    fault = _fault(rng, lane, kinds, second=False)
    version, other = rng.sample(SOUND, 2)
    if fault.kind == "faulty release":
        version = rng.choice(tuple(FAULTY))
    op = "deploy" if fault.kind == "faulty release" else rng.choice(_OPS)
    second = None
    if fault.kind in _STACKS and rng.random() < 0.25:
        second = _fault(rng, lane, kinds, second=True)
    return Run(
        number, seed, lane, op, version, other, fault, second,
        dry=rng.random() < 0.15, migrates=op == "deploy" and rng.random() < 0.4,
    )  # fmt: skip


_OPS = ("deploy", "deploy", "rollback")
_STACKS = frozenset(kind.name for kind in KINDS if kind.second) | {"disk full"}


def _fault(
    rng: random.Random, lane: str, kinds: Sequence[str], *, second: bool
) -> Fault:
    weights = {
        kind.name: kind.local if lane == "local" else kind.ssh
        for kind in KINDS
        if (not kinds or kind.name in kinds) and (kind.second or not second)
    }
    kind = rng.choices(list(weights), list(weights.values()))[0]
    hosts = {"local": 1, "ssh2": 2, "ssh3": 3}[lane]
    at = rng.uniform(-0.15, 1.0)
    # At a journal line, just after one, or well inside what follows.
    delay = rng.choice((0.0, 0.0, rng.uniform(0, 0.02), rng.uniform(0, 0.4)))
    host, number, line, wait = rng.randrange(hosts), 0, "", rng.random() < 0.5
    if kind == "crash at a call":
        call, nth = rng.choice(_CALLS), int(rng.paretovariate(0.6))
        line = f"{call} {min(nth, 80)} {rng.choice(('before', 'after'))} 0 -"
    elif kind == "fsync error":
        part = rng.choice(("-", "-", "journal", "releases", "state"))
        line = f"fsync {rng.randint(1, 12)} error {rng.choice((5, 5, 28))} {part}"
    elif kind == "clock jump":
        seconds = rng.choice((-86_400, -3_600, 3_600, 86_400, 10 * 365 * 86_400))
        line = f"clock {rng.randint(1, 60)} jump {seconds} -"
    elif kind == "interrupt":
        number = rng.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    return Fault(kind, at, delay, host, line, number, wait)


@dataclass(slots=True)
class Strike:
    """One fault being done: what it has to put right afterwards, what it has seen."""

    fault: Fault
    lane: Any
    command: Command
    start: Callable[[], Command]
    repairs: list[Callable[[], None]] = field(default_factory=list)
    outages: list[tuple[str, float, float]] = field(default_factory=list)
    rival: Command | None = None
    stopped: bool = False
    finished: bool = False
    struck: str = ""

    def strike(self) -> None:
        """Do it now; what must be undone is done by `repair`."""
        name = "_" + self.fault.kind.replace(",", "").replace(" ", "_")
        getattr(self, name)()

    def repair(self) -> None:
        """Put the machines right again: power, link, disk, database."""
        while self.repairs:
            self.repairs.pop()()

    # The kinds -------------------------------------------------------------------

    def _none(self) -> None:
        """Nothing: a run of the control group."""

    _faulty_release = _crash_at_a_call = _fsync_error = _clock_jump = _none

    def _kill_deployer(self) -> None:
        self.command.send(signal.SIGKILL)

    def _kill_agent(self) -> None:
        _kill(self.lane.agents(self.fault.host, self.command))

    _kill_step = _kill_agent

    def _kill_agents(self) -> None:
        _kill(self.lane.agents(None, self.command))

    def _kill_both(self) -> None:
        agents = self.lane.agents(None, self.command)
        self.command.send(signal.SIGKILL)
        _kill(agents)

    def _interrupt(self) -> None:
        self.command.send(signal.Signals(self.fault.number))
        if self.fault.wait:
            # Impatient: once more while the first is being dealt with.
            time.sleep(self.fault.delay)
            self.command.send(signal.Signals(self.fault.number))

    def _race(self) -> None:
        self.rival = self.start()

    def _stop_deployer(self) -> None:
        self.command.send(signal.SIGSTOP)
        self.stopped = True
        if self.lane.kind == "local":
            # Its lock is its own, so nobody can take over: a moment is enough.
            return
        until = time.monotonic() + PATIENCE + MARGIN
        while self.lane.agents(None, self.command) and time.monotonic() < until:
            time.sleep(0.1)

    def _stop_agent(self) -> None:
        agents = self.lane.agents(self.fault.host, self.command)
        _tell(agents, signal.SIGSTOP)
        self.repairs.append(lambda: _tell(agents, signal.SIGCONT))

    def _connection_reset(self) -> None:
        _kill(self.lane.links(self.fault.host))

    def _cut_short(self) -> None:
        self._without_link(min(1.0 + 8 * self.fault.delay, 4.0))

    def _cut_long(self) -> None:
        self._without_link(PATIENCE + MARGIN)

    def _without_link(self, seconds: float) -> None:
        begun = time.monotonic()
        self.lane.unplug(self.fault.host)
        self._while_running(seconds)
        self.lane.plug(self.fault.host)
        self._outage(begun)

    def _power_off(self) -> None:
        begun = time.monotonic()
        self.lane.power_off(self.fault.host)
        self._while_running(PATIENCE + MARGIN)
        self.lane.boot(self.fault.host)
        self._outage(begun)

    def _reboot(self) -> None:
        begun = time.monotonic()
        self.lane.power_off(self.fault.host)
        self.lane.boot(self.fault.host)
        self._outage(begun)

    def _disk_full(self) -> None:
        host = self.fault.host
        self.lane.fill(host)
        self.repairs.append(lambda: self.lane.free(host))

    def _database_gone(self) -> None:
        hosts = range(self.lane.count) if self.fault.wait else [self.fault.host]
        for host in hosts:
            self.lane.cut_database(host)
            self.repairs.append(lambda host=host: self.lane.mend_database(host))

    # Small parts -----------------------------------------------------------------

    def _while_running(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.command.running and time.monotonic() < until:
            time.sleep(0.02)

    def _outage(self, begun: float) -> None:
        """Remember when a host could not serve, until it serves again."""
        from bench.faults import observer

        place = self.lane.places[self.fault.host]
        until = time.monotonic() + 15
        while observer.ask(place.door).problem and time.monotonic() < until:
            time.sleep(0.05)
        self.outages.append((place.name, begun, time.monotonic() + 0.5))


def _kill(pids: Sequence[int]) -> None:
    _tell(pids, signal.SIGKILL)


def _tell(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


__all__ = ["BY_NAME", "KINDS", "QUICK", "Fault", "Lane", "Run", "Strike", "choose"]
