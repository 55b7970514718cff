"""Read what the workers of a service use, from /proc: no worker is asked for it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from mltrading_health.memory import Memory, memory, worker_memory


class Workers:
    """Know the process in each slot, its memory and its time on the processor.

    ``folder`` holds a file for each slot that names its process; without one there is
    this process alone. ``root`` is where ``proc`` is found.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
        ttl: float = 15.0,
    ) -> None:
        self.folder, self.root, self.clock, self.ttl = folder, root, clock, ttl
        self._memory: dict[str, int] = {}
        self._service: Memory | None = None
        self._at = self._service_at = float("-inf")

    def pids(self) -> dict[str, int]:
        """Return the process in each slot."""
        if self.folder is None:
            return {"0": os.getpid()}
        found = {}
        for path in sorted(self.folder.glob("worker_*.pid")):
            try:
                found[path.stem.removeprefix("worker_")] = int(path.read_text())
            except (OSError, ValueError):
                continue  # its worker is ending or starting
        return found

    def memory(self) -> dict[str, int]:
        """Return bytes (PSS) by slot; kept for ``ttl`` s: a read takes milliseconds."""
        now = self.clock()
        if now - self._at >= self.ttl:
            read = {s: worker_memory(pid, self.root) for s, pid in self.pids().items()}
            self._memory = {slot: used for slot, used in read.items() if used}
            self._at = now
        return self._memory

    def service(self, limit: int | None = None) -> Memory | None:
        """Return memory of all in use and its limit, as a check of it has them.

        Kept 5 s: where only a told limit is known, every process is asked.
        """
        now = self.clock()
        if now - self._service_at >= 5.0:
            self._service = memory(self.root, limit=limit)
            self._service_at = now
        return self._service

    def cpu(self) -> dict[str, float]:
        """Return seconds on the processor by slot, user and system; never kept.

        A value that another worker had kept would let the count go backwards.
        """
        read = {s: cpu_seconds(pid, self.root) for s, pid in self.pids().items()}
        return {slot: used for slot, used in read.items() if used is not None}


def cpu_seconds(pid: int, root: Path = Path("/")) -> float | None:
    """Return how long a process has run, None where that cannot be read."""
    try:
        text = (root / "proc" / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The program's name may hold spaces and brackets; behind the last is field 3.
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
