"""What a piece of work costs: processor seconds of those who ask and who answer."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.run import figure
from tests.postgres import Server

# Short work is repeated until it takes about so long, and divided.
_LONG_ENOUGH_S = 0.1
_MOST_TIMES = 50
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor seconds of this process and of the server, and wall seconds."""

    client: float
    server: float
    wall: float

    @property
    def cpu(self) -> float:
        return self.client + self.server


class Meter:
    """Reads the clocks of this process and of all processes of one server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def cost(self, work: Callable[[], object], times: int = 1) -> Cost:
        """Return what doing it once costs, over so many times."""
        gc.collect()
        server, wall = self._used(), time.perf_counter()
        client = time.process_time()
        for _ in range(times):
            work()
        client = time.process_time() - client
        wall = time.perf_counter() - wall
        server = self._used() - server
        return Cost(client / times, server / times, wall / times)

    def _used(self) -> float:
        """Return the seconds of the server: of what runs, and of what has ended."""
        own = self._server.processes()
        total = _ended(own[0])
        for process in own:
            # It may end meanwhile; then the next reading finds it with the ended.
            with suppress(FileNotFoundError, ProcessLookupError):
                text = Path(f"/proc/{process}/schedstat").read_text()
                total += int(text.split()[0]) / 1e9
        return total


def _ended(master: int) -> float:
    """Return the seconds of a process's children that have ended."""
    after_name = Path(f"/proc/{master}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[13]) + int(after_name[14])) / _TICKS


Contenders = Mapping[str, Callable[[], object]]


def taking_turns(
    meter: Meter, contenders: Contenders, runs: int
) -> dict[str, list[Cost]]:
    """Measure all once a round, so that each round's ratios are of one moment."""
    times: dict[str, int] = {}
    for name, work in contenders.items():
        work()
        once = meter.cost(work).cpu
        times[name] = max(1, min(_MOST_TIMES, int(_LONG_ENOUGH_S / max(once, 1e-6))))
    found: dict[str, list[Cost]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, work in contenders.items():
            found[name].append(meter.cost(work, times[name]))
    return found


def milliseconds(
    what: str, costs: list[Cost], goal: float | None = None
) -> dict[str, Any]:
    """Return a figure in CPU ms, with the two sides and the wall beside it."""
    row = figure(what, [cost.cpu * 1000 for cost in costs], "CPU ms", goal)
    for side in ("client", "server", "wall"):
        each = sorted(getattr(cost, side) for cost in costs)
        row[f"{side}_ms"] = round(each[len(each) // 2] * 1000, 4)
    return row


def ratio(
    what: str,
    above: list[Cost],
    below: list[Cost],
    *,
    goal: float | None = None,
    least: float | None = None,
) -> dict[str, Any]:
    """Return how many times more one costs than the other, round by round."""
    shares = [a.cpu / b.cpu for a, b in zip(above, below, strict=True)]
    return figure(what, shares, "times", goal, least=least)
