"""Measure memory against the limit that will be enforced, not against the host.

Sources: /proc, and the memory controller of cgroup v2 or v1. ``root`` is the folder
where ``proc`` and ``sys`` are found; tests give a folder of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mltrading_health.checks import Result, Status

MIB = 1024 * 1024
# Where nothing is limited, v1 answers with a number near 2**63.
ABSURD = 1 << 60


@dataclass(frozen=True, slots=True)
class Memory:
    """Hold bytes in use and the limit in bytes."""

    used: int
    limit: int

    @property
    def share(self) -> float:
        """Return the used share, 0 to 1."""
        return self.used / self.limit


def _number(path: Path) -> int | None:
    """Return the number in a file, None if there is no limit or no such file."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _field(path: Path, name: str) -> int | None:
    """Return the number behind a word at the start of a line; kB become bytes."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] == name:
            return int(words[1]) * (1024 if words[2:] == ["kB"] else 1)
    return None


def _groups(root: Path) -> Iterator[tuple[Path, str, str, str]]:
    """Yield each cgroup folder that may limit this process, the inmost first.

    With it come the names of its files: limit, usage, and the word in memory.stat for
    file pages that can be given back.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    v2 = ("memory.max", "memory.current", "inactive_file")
    v1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, inside = rest.partition(":")
        if controllers == "":
            base, names = root / "sys/fs/cgroup", v2
        elif "memory" in controllers.split(","):
            base, names = root / "sys/fs/cgroup/memory", v1
        else:
            continue
        # In a container the path may be the host's; then only the base exists.
        group = base / inside.strip("/")
        while group != base and base in group.parents:
            yield group, *names
            group = group.parent
        yield base, *names


def memory(
    root: Path = Path("/"),
    *,
    limit: int | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Memory | None:
    """Return memory in use and its limit in bytes, None where neither can be read.

    The limit is the tightest of our cgroups; without one it is `DYNO_RAM` (MiB, as
    Heroku's buildpack has it), without that ``limit``, and never more than the host
    has. Under a limit that is only told, what our process group has is in use.
    """
    found = _enforced(root)
    if found is None:
        told = _mebibytes(environ.get("DYNO_RAM", "")) or limit
        found = Memory(_group_memory(root), told) if told else None
    total = _field(root / "proc/meminfo", "MemTotal:")
    free = _field(root / "proc/meminfo", "MemAvailable:")
    if total and free is not None and (found is None or total < found.limit):
        return Memory(total - free, total)
    return found


def _enforced(root: Path) -> Memory | None:
    """Return the tightest limit of our cgroups and what is in use below it."""
    tightest: Memory | None = None
    for group, limit_file, usage_file, inactive in _groups(root):
        limit, used = _number(group / limit_file), _number(group / usage_file)
        if not limit or limit >= ABSURD or used is None:
            continue
        used -= _field(group / "memory.stat", inactive) or 0
        if tightest is None or limit < tightest.limit:
            tightest = Memory(max(0, used), limit)
    return tightest


def _mebibytes(text: str) -> int | None:
    return int(text) * MIB if text.isascii() and text.isdigit() else None


def _group_memory(root: Path) -> int:
    """Return what the processes of our group have together: gunicorn's, all of them."""
    ours = _process_group(root / "proc/self/stat")
    pids = [int(path.name) for path in (root / "proc").glob("[0-9]*")]
    return sum(
        worker_memory(pid, root) or 0
        for pid in pids
        if _process_group(root / "proc" / str(pid) / "stat") == ours
    )


def _process_group(path: Path) -> str:
    try:
        # The name of a program stands in brackets and may hold anything.
        return path.read_text().rpartition(")")[2].split()[2]
    except (OSError, IndexError):
        return ""


def worker_memory(pid: int | None = None, root: Path = Path("/")) -> int | None:
    """Return a process's share of memory (PSS) in bytes, None where unknown.

    PSS, as workers that were forked share pages: the sum of their RSS counts the shared
    ones once for each.
    """
    who = root / "proc" / str(pid or "self")
    return _field(who / "smaps_rollup", "Pss:") or _field(who / "status", "VmRSS:")


def memory_check(
    *,
    warn: float = 0.80,
    fail: float = 0.90,
    worker_limit: int = 512 * MIB,
    limit: int | None = None,
    root: Path = Path("/"),
    pid: Callable[[], int] = os.getpid,
) -> Callable[[], Result]:
    """Return a check of memory: shares of the limit, and bytes for this worker.

    A worker beyond ``worker_limit`` is a warning: restarting it is somebody's decision,
    taking the service out of traffic would only load its siblings. ``limit`` in bytes
    is for machines that enforce none.
    """

    def check() -> Result:
        found = memory(root, limit=limit)
        mine = worker_memory(pid(), root)
        if found is None or mine is None:
            return Result(Status.WARN, "memory cannot be read on this system")
        text = f"{found.share:.1%} of the limit, this worker {mine / MIB:.0f} MiB"
        value = round(100 * found.share, 1)
        if found.share >= fail:
            return Result(Status.FAIL, text, value, "percent")
        close = found.share >= warn or mine > worker_limit
        return Result(Status.WARN if close else Status.PASS, text, value, "percent")

    return check
