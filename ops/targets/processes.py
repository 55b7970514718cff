"""The process table of this host: who runs, since whose start, and how to end it."""

from __future__ import annotations

import os
import re
import select
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from ops.errors import StepFailed


def listing(folder: Path) -> list[Path]:
    """Return what is in a folder, nothing where there is none."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def all_pids() -> list[int]:
    """Return the numbers of all processes."""
    return [int(path.name) for path in listing(Path("/proc")) if path.name.isdigit()]


def arguments(pid: int) -> list[str]:
    """Return a process's arguments; none for one that is gone or a zombie."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(part) for part in line.split(b"\0") if part]


def gone(pid: int) -> bool:
    """Say whether a process has ended, a zombie counted in."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in ("Z", "X")


def in_units(pattern: re.Pattern[str]) -> dict[int, tuple[int, ...]]:
    """Return the processes by the number that `pattern` finds in their cgroup."""
    found: dict[int, list[int]] = {}
    for pid in all_pids():
        try:
            match = pattern.search(Path(f"/proc/{pid}/cgroup").read_text())
        except OSError:
            continue
        if match:
            found.setdefault(int(match[1]), []).append(pid)
    return {number: tuple(pids) for number, pids in found.items()}


def parent(pid: int) -> int:
    """Return the number of the process that a process was started by, 0 if none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def master(pids: Sequence[int]) -> int | None:
    """Return the process whose parent is none of the others."""
    for pid in pids:
        if parent(pid) not in pids:
            return pid
    return None


def tell(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def end(pids: Sequence[int], timeout: float) -> int:
    """End processes: their master politely, after `timeout` seconds all for good.

    Returns how many had to be killed.

    Raises:
        StepFailed: a process outlives even that (it hangs inside the kernel).
    """
    watched: dict[int, int] = {}
    for pid in pids:
        try:
            watched[os.pidfd_open(pid)] = pid
        except ProcessLookupError:
            continue
    first = master(pids)
    if first is not None:
        tell(first, signal.SIGTERM)
    until = time.monotonic() + timeout
    killed = 0
    try:
        while watched:
            left = until - time.monotonic()
            if left <= 0 and killed:
                numbers = ", ".join(str(pid) for pid in watched.values())
                raise StepFailed(
                    f"processes {numbers} can't be ended",
                    next="look at them with ps; a reboot ends them",
                )
            if left <= 0:
                for pid in watched.values():
                    tell(pid, signal.SIGKILL)
                killed, until = len(watched), time.monotonic() + 5
                continue
            for ended in select.select(list(watched), [], [], left)[0]:
                del watched[ended]
                os.close(ended)
    finally:
        for descriptor in watched:
            os.close(descriptor)
    return killed


def who_holds(port: int) -> str:
    """Name the process that listens on a loopback port, as far as we may see."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == "0A":
                inodes.add(f"socket:[{fields[9]}]")
    for pid in all_pids():
        for descriptor in listing(Path(f"/proc/{pid}/fd")):
            try:
                held = os.readlink(descriptor) in inodes
            except OSError:
                continue
            if held:
                # Its name only: arguments of other programs are not ours to show.
                return f"process {pid} ({Path((arguments(pid) or ['?'])[0]).name})"
    return "another program"


def basics() -> dict[str, str]:
    """Return the few variables of this user that every process needs."""
    names = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR")
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def tail(path: Path, begun: int = 0, lines: int = 15) -> str:
    """Return the last lines of a log, of those written since `begun` (bytes)."""
    try:
        with path.open("rb") as file:
            file.seek(max(begun, path.stat().st_size - 16_384))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
