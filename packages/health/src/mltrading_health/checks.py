"""Ask a service how it is: checks that cannot pile up, hang the asker or flood."""

from __future__ import annotations

import functools
import hmac
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

from mltrading_health import tokens
from mltrading_health.redact import redact

log = logging.getLogger(__name__)


class Status(IntEnum):
    """Order the states of a check from good to bad."""

    PASS = 0
    WARN = 1
    FAIL = 2


@dataclass(frozen=True, slots=True)
class Result:
    """Hold what one check found; ``output`` and ``value`` are not for strangers.

    ``at`` is when it was found, in UTC; whoever runs the check fills it in.
    """

    status: Status
    output: str = ""
    value: float | None = None
    unit: str = ""
    at: datetime | None = field(default=None, compare=False)


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

#: What a check is about, in the words of the draft for application/health+json.
KINDS = ("component", "datastore", "system")
#: A name is a label, a key of JSON and a word in a line; the draft forbids the colon.
NAME = re.compile(r"[A-Za-z][\w.-]{0,63}", re.ASCII)
NOT_YET = "not checked yet"
# Of the text of an error; some carry a whole query.
MOST_TEXT = 500


class Run:
    """Carry out one call of a check in a thread of its own."""

    def __init__(
        self, name: str, fn: CheckFn, timeout: float, clock: Callable[[], float]
    ) -> None:
        self.fn, self.clock = fn, clock
        self.deadline = clock() + timeout
        self.pid = os.getpid()
        self.result: Result | None = None
        self.ended_at = 0.0
        self.ended = threading.Event()
        # Has been taken for a failure, as it did not end in time.
        self.overdue = False
        # Daemon: a check that hangs must not keep the process from ending.
        thread = threading.Thread(target=self._call, name=f"check {name}", daemon=True)
        thread.start()

    def _call(self) -> None:
        try:
            answer = self.fn()
        except BaseException as error:
            # Whatever a check raises is its answer: no. SystemExit too, or nobody
            # would hear that this thread has ended.
            text = redact(f"{type(error).__name__}: {error}")
            answer = Result(Status.FAIL, text[:MOST_TEXT])
        if not isinstance(answer, Result):
            answer = Result(Status.FAIL if answer is False else Status.PASS)
        self.result, self.ended_at = answer, self.clock()
        self.ended.set()


class Check:
    """Remember one check's latest result; run it again when that is too old.

    At most one thread runs at a time. Callers wait for it until the check's timeout and
    no longer; a check that hangs delays those who ask first and nobody after them. A
    result that comes after the timeout counts as a failure, and so does each
    ``fail_ttl`` that a run goes on hanging.

    A check is down until it has passed ``rise`` times in a row, and up until it has
    failed ``fall`` times in a row. What does not turn it yet is shown as a warning
    while it is up, and as a failure while it is down.
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
        fall: int,
        rise: int,
        groups: Collection[str],
        kind: str,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        found: Callable[[str, Result], None] = lambda name, result: None,
    ) -> None:
        if not NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} can't name a check: a letter, then letters, digits, _ . -"
            )
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r} of check {name!r} is not one of {KINDS}")
        if fall < 1 or rise < 1:
            raise ValueError(f"fall and rise of check {name!r} are 1 or more")
        self.name, self.fn, self.clock, self.now = name, fn, clock, now
        self._found = found
        self.timeout, self.ttl, self.fail_ttl = timeout, ttl, fail_ttl
        self.critical, self.groups, self.kind = critical, frozenset(groups), kind
        self.fall, self.rise = fall, rise
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._result: Result | None = None
        self._at = 0.0
        self._kept_for = 0.0
        self._up = False
        self._against = 0  # results in a row that speak against up or down
        self._news = ""

    def begin(self) -> Run | None:
        """Return the run to wait for, None if the result at hand will do.

        A result up to twice its time to live is still given while the next is fetched.
        """
        with self._lock:
            if self._run is not None and self._run.pid != os.getpid():
                self._run = None  # its thread stayed in the parent process
            now = self.clock()
            if self._run is not None:
                self._settle(self._run, now)
            if self._result is not None and now < self._at + self._kept_for:
                run = None
            else:
                if self._run is None:
                    self._run = Run(self.name, self.fn, self.timeout, self.clock)
                run = self._run
                if self._result is not None and now < self._at + 2 * self._kept_for:
                    run = None
            news, self._news = self._news, ""
        self._tell(news)
        return run

    def end(self, run: Run | None) -> tuple[Result, float]:
        """Wait for a run until its deadline; return the result there is then.

        With it, until when by our clock no other result is possible.
        """
        if run is not None:
            run.ended.wait(max(0.0, run.deadline - self.clock()))
        with self._lock:
            if run is not None and run is self._run:
                self._settle(run, max(self.clock(), run.deadline))
            if self._result is None:
                found = Result(Status.FAIL, NOT_YET), float("-inf")
            elif self._run is not None and not self._run.overdue:
                found = self._result, float("-inf")
            else:
                found = self._result, self._at + self._kept_for
            news, self._news = self._news, ""
        self._tell(news)
        return found

    def latest(self, oldest: float) -> Result | None:
        """Return the result at hand, unless it is older than some seconds."""
        with self._lock:
            if self._result is None or self.clock() - self._at > oldest:
                return None
            return self._result

    def _settle(self, run: Run, now: float) -> None:
        """Take in what a run has found, or that it has found nothing in time."""
        ended = run.ended.is_set()
        if ended:
            self._run = None
            if run.result is not None and run.ended_at <= run.deadline:
                self._take(run.result, run.ended_at)
                return
        if now < run.deadline and not ended:
            return
        if not run.overdue or not ended and now >= self._at + self._kept_for:
            run.overdue = True
            text = f"no answer in {self.timeout:g} s"
            self._take(Result(Status.FAIL, text), now)

    def _take(self, result: Result, at: float) -> None:
        """Remember a result as ``fall`` and ``rise`` let it be seen."""
        failed = result.status is Status.FAIL
        if failed is not self._up:
            self._against = 0
        else:
            self._against += 1
            needed = self.fall if self._up else self.rise
            if self._against < needed:
                verb = "failed" if failed else "passed"
                text = f"{verb} {self._against} of {needed} times"
                text += f": {result.output}" if result.output else ""
                status = Status.WARN if self._up else Status.FAIL
                result = replace(result, status=status, output=text)
            else:
                self._up, self._against = not self._up, 0
        turned = self._result is None or (self._result.status is Status.FAIL) != (
            result.status is Status.FAIL
        )
        if turned and (failed or self._result is not None):
            self._news = f"fails: {result.output}" if failed else "passes again"
        well = result.status is not Status.FAIL and not self._against
        self._kept_for = self.ttl if well else self.fail_ttl
        self._result, self._at = replace(result, at=self.now()), at
        self._found(self.name, self._result)

    def _tell(self, news: str) -> None:
        """Log that the check has turned, without the lock: a log may be slow."""
        if news:
            log.warning("check %s %s", self.name, news, extra={"check": self.name})


def _same(one: Report, other: Report) -> bool:
    """Tell whether two reports hold the very same results."""
    return len(one.checks) == len(other.checks) and all(
        other.checks.get(name) is result for name, result in one.checks.items()
    )


class Health:
    """Know what a service is, which checks it has and whether it is draining.

    ``token`` opens what strangers are not told: details, and with ``access="token"``
    also the metrics. The token that gunicorn's skin leaves in the runtime folder opens
    them too. ``starting=True`` says that the service is not ready before ``started()``.
    """

    def __init__(
        self,
        service: str,
        *,
        version: str = "",
        release: str = "",
        artefact: str = "",
        commit: str = "",
        runtime_dir: Path | str | None = None,
        token: str | None = None,
        access: Literal["open", "token"] = "open",
        starting: bool = False,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        if access not in ("open", "token"):
            raise ValueError(f'access {access!r} is neither "open" nor "token"')
        if token and not tokens.GOOD.fullmatch(token):
            raise ValueError(f"the token for health and metrics needs {tokens.WANTED}")
        self.service, self.version, self.release = service, version, release
        self.artefact, self.commit = artefact, commit
        self.runtime_dir = Path(runtime_dir) if runtime_dir else None
        self.access, self.starting = access, starting
        self.clock, self.now = clock, now
        self.started_at = now()
        self.checks: dict[str, Check] = {}
        #: Called with the name of a check and each result that it takes in, quickly.
        self.listeners: list[Callable[[str, Result], None]] = []
        self._token = token or ""
        self._kept: dict[tuple[str | None, bool], tuple[Report, float]] = {}

    def check(
        self,
        name: str,
        fn: CheckFn | None = None,
        *,
        timeout: float = 1.0,
        ttl: float = 5.0,
        fail_ttl: float = 1.0,
        critical: bool = True,
        fall: int = 2,
        rise: int = 1,
        groups: Collection[str] = ("ready",),
        kind: str = "component",
    ) -> Any:
        """Add a check. Seconds: wait ``timeout``, keep ``ttl`` or ``fail_ttl``.

        Only a ``critical`` check of the group "ready" takes a service out of traffic.
        ``fall`` failures in a row turn it from good to bad, ``rise`` passes back;
        before its first pass one failure is enough. ``kind`` is "component",
        "datastore" or "system". Without ``fn`` it is a decorator. Returns the function.

        Raises:
            ValueError: a name that is taken or none, a kind or number not allowed.
        """
        said: dict[str, Any] = {
            "timeout": timeout,
            "ttl": ttl,
            "fail_ttl": fail_ttl,
            "critical": critical,
            "fall": fall,
            "rise": rise,
            "groups": groups,
            "kind": kind,
        }
        if fn is None:
            return functools.partial(self.check, name, **said)
        if name in self.checks:
            raise ValueError(f"there is a check named {name!r} already")
        self.checks[name] = Check(
            name, fn, **said, clock=self.clock, now=self.now, found=self._found
        )
        self._kept.clear()
        return fn

    def report(
        self,
        group: str | None = None,
        *,
        critical: bool = False,
        exclude: Collection[str] = (),
    ) -> Report:
        """Return the results of a group, or of all; at most the longest timeout.

        As long as no result has changed it is the same object.
        """
        if not exclude:
            kept = self._kept.get((group, critical))
            if kept is not None and self.clock() < kept[1]:
                return kept[0]
        chosen = [
            check
            for check in self.checks.values()
            if (group is None or group in check.groups)
            and (check.critical or not critical)
            and check.name not in exclude
        ]
        runs = [(check, check.begin()) for check in chosen]
        found = {check.name: check.end(run) for check, run in runs}
        report = Report({name: result for name, (result, _) in found.items()})
        if not exclude:
            kept = self._kept.get((group, critical))
            if kept is not None and _same(kept[0], report):
                report = kept[0]
            until = min((until for _, until in found.values()), default=float("inf"))
            self._kept[group, critical] = report, until
        return report

    def keep_fresh(self, look: float = 1.0) -> Callable[[], None]:
        """Ask each check again as its result gets old, from a thread of this process.

        Metrics and alerts read the results at hand: where nobody asks for /health they
        would judge by what was true long ago. Looks every ``look`` seconds; a check
        runs no more often than its ttl says. Call it in each worker, after the fork.
        Returns a function that ends it.
        """
        ending = threading.Event()

        def ask() -> None:
            while not ending.wait(look):
                try:
                    self.report()
                except Exception:
                    # No thread can be had, say: that must not be the last look.
                    log.exception("the checks could not be asked")

        thread = threading.Thread(target=ask, name="checks", daemon=True)
        thread.start()

        def end() -> None:
            ending.set()
            thread.join()

        return end

    def _found(self, name: str, result: Result) -> None:
        for listener in self.listeners:
            listener(name, result)

    def latest(self, oldest: float = 300.0) -> Report:
        """Return the results at hand that are not older than some seconds.

        It runs nothing and waits for nothing; what was never asked is not in it.
        """
        found = {name: check.latest(oldest) for name, check in self.checks.items()}
        return Report({name: result for name, result in found.items() if result})

    def started(self) -> None:
        """Say that what a start has to do is done: the service may get traffic."""
        self.starting = False

    def knows(self, authorization: str) -> bool:
        """Tell whether the value of an Authorization header bears a token of ours."""
        scheme, _, said = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return False
        shown = said.strip().encode("utf-8", "replace")
        ours = [self._token]
        if self.runtime_dir is not None:
            # Read each time: a master that starts beside this one writes another.
            ours.append(tokens.read(self.runtime_dir))
        return any([hmac.compare_digest(shown, t.encode()) for t in ours if t])

    def opens_to(self, authorization: str) -> bool:
        """Tell whether whoever sends this Authorization header may read metrics."""
        return self.access == "open" or self.knows(authorization)

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
