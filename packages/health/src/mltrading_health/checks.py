"""Ask a service how it is: checks that cannot pile up, hang the asker or flood."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import IntEnum
from pathlib import Path

log = logging.getLogger(__name__)


class Status(IntEnum):
    """Order the states of a check from good to bad."""

    PASS = 0
    WARN = 1
    FAIL = 2


@dataclass(frozen=True, slots=True)
class Result:
    """Hold what one check found; ``output`` and ``value`` are not for strangers."""

    status: Status
    output: str = ""
    value: float | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Hold the results of several checks by name."""

    checks: dict[str, Result] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        """Return the worst state."""
        return max((r.status for r in self.checks.values()), default=Status.PASS)


#: Raising or returning False fails, None and True pass.
CheckFn = Callable[[], "bool | Result | None"]


class Run:
    """Carry out one call of a check in a thread of its own."""

    def __init__(
        self, name: str, fn: CheckFn, timeout: float, clock: Callable[[], float]
    ) -> None:
        self.name, self.fn, self.clock = name, fn, clock
        self.deadline = clock() + timeout
        self.pid = os.getpid()
        self.result: Result | None = None
        self.ended_at = 0.0
        self.ended = threading.Event()
        # Daemon: a check that hangs must not keep the process from ending.
        thread = threading.Thread(target=self._call, name=f"check {name}", daemon=True)
        thread.start()

    def _call(self) -> None:
        try:
            answer = self.fn()
        except Exception as error:
            # Whatever a check raises is its answer: no.
            kind = type(error).__name__
            log.warning("check %s failed: %s: %s", self.name, kind, error)
            answer = Result(Status.FAIL, f"{kind}: {error}")
        if not isinstance(answer, Result):
            answer = Result(Status.FAIL if answer is False else Status.PASS)
        self.result, self.ended_at = answer, self.clock()
        self.ended.set()


class Check:
    """Remember one check's latest result; run it again when that is too old.

    At most one thread runs at a time. Callers wait for it until the check's timeout and
    no longer; a check that hangs delays those who ask first and nobody after them. A
    result that comes after the timeout counts as a failure.
    """

    def __init__(
        self,
        name: str,
        fn: CheckFn,
        *,
        timeout: float,
        ttl: float,
        fail_ttl: float,
        critical: bool,
        groups: Collection[str],
        clock: Callable[[], float],
    ) -> None:
        self.name, self.fn, self.clock = name, fn, clock
        self.timeout, self.ttl, self.fail_ttl = timeout, ttl, fail_ttl
        self.critical, self.groups = critical, frozenset(groups)
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._result: Result | None = None
        self._at = 0.0

    def begin(self) -> Run | None:
        """Return the run to wait for, None if the result at hand will do.

        A result up to twice its time to live is still given while the next is fetched.
        """
        with self._lock:
            if self._run is not None and self._run.pid != os.getpid():
                self._run = None  # its thread stayed in the parent process
            now = self.clock()
            if self._run is not None:
                self._settle(self._run, now, late=now >= self._run.deadline)
            age, ttl = now - self._at, self.ttl
            if self._result is not None:
                if self._result.status is Status.FAIL:
                    ttl = self.fail_ttl
                if age < ttl:
                    return None
            if self._run is None:
                self._run = Run(self.name, self.fn, self.timeout, self.clock)
            fresh_enough = self._result is not None and age < 2 * ttl
            return None if fresh_enough else self._run

    def end(self, run: Run | None) -> Result:
        """Wait for a run until its deadline; return the result there is then."""
        if run is not None:
            run.ended.wait(max(0.0, run.deadline - self.clock()))
            with self._lock:
                self._settle(run, self.clock(), late=True)
        return self._result or Result(Status.FAIL, "not checked yet")

    def _settle(self, run: Run, now: float, *, late: bool) -> None:
        """Take in what a run has found, or that it has found nothing in time."""
        if run is not self._run:
            return
        ended = run.ended.is_set()
        if ended:
            self._run = None
        if ended and run.ended_at <= run.deadline:
            self._result, self._at = run.result, run.ended_at
        elif ended or late:
            text = f"no answer in {self.timeout:g} s"
            self._result, self._at = Result(Status.FAIL, text), now


class Health:
    """Know what a service is, which checks it has and whether it is draining."""

    def __init__(
        self,
        service: str,
        *,
        version: str = "",
        release: str = "",
        artefact: str = "",
        commit: str = "",
        runtime_dir: Path | str | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self.service, self.version, self.release = service, version, release
        self.artefact, self.commit = artefact, commit
        self.runtime_dir = Path(runtime_dir) if runtime_dir else None
        self.clock, self.now = clock, now
        self.started_at = now()
        self.checks: dict[str, Check] = {}

    def check(
        self,
        name: str,
        fn: CheckFn,
        *,
        timeout: float = 1.0,
        ttl: float = 5.0,
        fail_ttl: float = 1.0,
        critical: bool = True,
        groups: Collection[str] = ("ready",),
    ) -> None:
        """Add a check. Seconds: wait ``timeout``, keep ``ttl``, a failure ``fail_ttl``.

        Only a ``critical`` check of the group "ready" takes a service out of traffic.
        """
        if name in self.checks:
            raise ValueError(f"there is a check named {name!r} already")
        self.checks[name] = Check(
            name,
            fn,
            timeout=timeout,
            ttl=ttl,
            fail_ttl=fail_ttl,
            critical=critical,
            groups=groups,
            clock=self.clock,
        )

    def report(self, group: str | None = None, *, critical: bool = False) -> Report:
        """Return the results of a group, or of all; at most the longest timeout."""
        chosen = [
            check
            for check in self.checks.values()
            if (group is None or group in check.groups)
            and (check.critical or not critical)
        ]
        runs = [(check, check.begin()) for check in chosen]
        return Report({check.name: check.end(run) for check, run in runs})

    @property
    def drain_file(self) -> Path | None:
        """Return the file whose existence takes all workers out of traffic."""
        return self.runtime_dir / "drain" if self.runtime_dir else None

    @property
    def draining(self) -> bool:
        """Tell whether the service should get no new traffic."""
        return self.drain_file is not None and self.drain_file.exists()

    def drain(self, on: bool = True) -> None:
        """Take this service out of traffic, or put it back: all its workers."""
        if self.drain_file is None:
            raise ValueError("draining needs a runtime_dir that all workers share")
        if on:
            self.drain_file.touch()
        else:
            self.drain_file.unlink(missing_ok=True)
