"""What a probe costs: its handler alone, and asked 1,000 times a second.

The second one is asked of a service with a check that hangs for ever and one that is
slower than its timeout, beside four that are well.
"""

from __future__ import annotations

import gc
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from wsgiref.util import setup_testing_defaults

from bench.run import figure

SECONDS, RATE, THREADS = 8.0, 1000, 4
# Seconds, of every check, so that the bound of the runs is one number.
TTL, TIMEOUT = 1.0, 0.25
# How much slower than its timeout the slow check is.
SLOW = 2 * TIMEOUT


def measure(runs: int = 0) -> dict[str, Any]:
    """Return the figures of all parts, `runs` times each (3 by default)."""
    return {"figures": [*handlers(runs or 3), *under_load(runs or 3)]}


# -- the handler alone ---------------------------------------------------------------


def handlers(runs: int) -> list[dict[str, Any]]:
    """Return processor time of one answer, every result at hand, in µs."""
    health, app = _service(well=True)
    said = []
    for path, goal in (("/livez", 1.0), ("/health", 5.0)):
        ask = _asker(app, path)
        ask()
        took = [_processor_us(ask) for _ in range(max(runs, 5))]
        said.append(figure(f"{path}, result at hand", took, "µs", goal))
    health.report()
    return said


def _processor_us(ask: Callable[[], object], times: int = 20_000) -> float:
    """Return µs of processor time; the wall would show what else runs here."""
    rounds = range(times)
    begun = time.process_time_ns()
    for _ in rounds:
        ask()
    return (time.process_time_ns() - begun) / times / 1000


# -- 1,000 times a second --------------------------------------------------------------


@dataclass
class Load:
    """Hold what a run found: seconds of each answer, runs of each check.

    ``busy`` is processor time, which others on this machine do not add to.
    """

    first: float = 0.0
    seconds: float = 0.0
    took: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    runs: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    most_threads: int = 0


def under_load(runs: int) -> list[dict[str, Any]]:
    """Return the figures of some runs of SECONDS at RATE."""
    found = [load() for _ in range(runs)]
    allowed = most_runs(len(found[0].runs), SECONDS, TTL)
    slack = TIMEOUT + 0.05
    us = 1e6
    rows = [
        figure("first answer, a check hangs", [f.first for f in found], "s", slack),
        figure(
            f"/health at {RATE}/s, p50",
            [us * percentile(f.took, 0.5) for f in found],
            "µs",
        ),
        figure(
            f"/health at {RATE}/s, p99",
            [us * percentile(f.took, 0.99) for f in found],
            "µs",
            200.0,
        ),
        figure(
            "the same in processor time, p99",
            [us * percentile(f.busy, 0.99) for f in found],
            "µs",
        ),
        figure("slowest of them", [1000 * max(f.took) for f in found], "ms"),
        figure(
            "rate reached",
            [len(f.took) / f.seconds for f in found],
            "1/s",
            least=0.95 * RATE,
        ),
        figure(
            f"runs of {len(found[0].runs)} checks in them",
            [sum(f.runs.values()) for f in found],
            "runs",
            allowed,
        ),
        figure("runs of the hung one", [f.runs["hung"] for f in found], "runs", 1),
        figure(
            "threads of checks at once", [f.most_threads for f in found], "threads", 6
        ),
    ]
    return rows


def most_runs(checks: int, seconds: float, ttl: float) -> int:
    """Return how often one worker may run its checks in some seconds."""
    return checks * (math.ceil(seconds / ttl) + 1)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the least value that `share` of all do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def load(seconds: float = SECONDS, rate: float = RATE, threads: int = THREADS) -> Load:
    """Ask /health on a schedule that does not wait for answers, by some threads."""
    found, gate = Load(), threading.Event()
    _, app = _service(well=False, runs=found.runs, gate=gate)
    try:
        begun = time.perf_counter()
        _asker(app, "/health")()
        found.first = time.perf_counter() - begun
        each = [
            _Caller(app, seconds, rate / threads, lead=number / rate)
            for number in range(threads)
        ]
        begun = time.perf_counter()
        for caller in each:
            caller.start()
        while any(caller.is_alive() for caller in each):
            names = [thread.name for thread in threading.enumerate()]
            checks = sum(name.startswith("check ") for name in names)
            found.most_threads = max(found.most_threads, checks)
            time.sleep(0.02)
        found.seconds = time.perf_counter() - begun
        for caller in each:
            caller.join()
            found.took += caller.took
            found.busy += caller.busy
            found.statuses.update(caller.statuses)
    finally:
        gate.set()
    if set(found.statuses) != {"503 Service Unavailable"}:
        # One check hangs: any other answer would be a lie.
        raise SystemExit(f"/health answered {dict(found.statuses)}")
    return found


class _Caller(threading.Thread):
    """Ask at fixed moments; one that is late is asked at once, not left out."""

    def __init__(self, app: Any, seconds: float, rate: float, lead: float) -> None:
        super().__init__(daemon=True)
        self.ask = _asker(app, "/health", self._start)
        self.seconds, self.rate, self.lead = seconds, rate, lead
        self.took: list[float] = []
        self.busy: list[float] = []
        self.statuses: Counter[str] = Counter()

    def _start(self, status: str, headers: object, problem: object = None) -> None:
        self.statuses[status] += 1

    def run(self) -> None:
        """Ask until the time is over."""
        ask, clock, processor = self.ask, time.perf_counter, time.thread_time
        began = clock() + self.lead
        for number in range(int(self.seconds * self.rate)):
            wait = began + number / self.rate - clock()
            if wait > 0:
                time.sleep(wait)
            worked, asked = processor(), clock()
            ask()
            answered = clock()
            self.busy.append(processor() - worked)
            self.took.append(answered - asked)


# -- the service ----------------------------------------------------------------------


def _service(
    *,
    well: bool,
    runs: Counter[str] | None = None,
    gate: threading.Event | None = None,
) -> tuple[Any, Any]:
    from mltrading_health import Health, Metrics, disk_check, memory_check, wsgi

    health = Health("bench", version="1.0", release="r1")
    counted = Counter() if runs is None else runs

    def add(name: str, fn: Callable[[], object]) -> None:
        def check() -> object:
            counted[name] += 1
            return fn()

        # Where the handler alone is measured, nothing is to run beside it.
        ttl = 3600.0 if well else TTL
        timeout = 10.0 if well else TIMEOUT
        health.check(name, check, ttl=ttl, fail_ttl=ttl, timeout=timeout)

    add("database", lambda: time.sleep(0 if well else 0.02))
    add("external_apis", lambda: time.sleep(0 if well else 0.1))
    add("memory_usage", memory_check())
    add("disk_space", disk_check("."))
    if gate is not None:
        add("hung", gate.wait)
        add("slow", lambda: time.sleep(SLOW))
    gc.collect()

    def app(environ: Any, start: Any) -> list[bytes]:
        start("200 OK", [])
        return [b""]

    return health, wsgi(app, health, Metrics(environ={}))


def _asker(
    app: Any, path: str, start: Callable[..., object] = lambda *_: None
) -> Callable[[], object]:
    environ: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": ""}
    setup_testing_defaults(environ)
    return lambda: app(environ, start)
