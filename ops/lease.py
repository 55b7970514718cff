"""Who may act now: a kernel lock that dies with its holder.

The lock is held on an open file, so the kernel frees it when the last process that
holds it ends, however it ends. Steps that run in a child inherit the descriptor: a
killed deployer keeps others out until its orphaned step is over. The file is never
deleted; deleting it would let two holders in.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ops.errors import Locked


class Lease:
    """The right to act on one environment, held from `take` until `release`."""

    def __init__(self, folder: Path) -> None:
        self.lock = folder / "lock"
        self.holder = folder / "holder.json"
        self.epoch_file = folder / "epoch"
        self.epoch = 0
        self.descriptor = -1

    def take(
        self,
        doing: str,
        by: str,
        *,
        wait: float = 0.0,
        tell: Callable[[str], None],
        above: int = 0,
    ) -> None:
        """Take the lease, waiting at most `wait` seconds for its holder to end.

        The epoch is higher than the last one and than `above`, the highest that the
        journal knows: a power cut may have cost the file that holds the last one.

        Raises:
            Locked: somebody holds it; says who, since when and what they do.
        """
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # `inv status` asks by trying the lock: that moment is not a holder.
        until = time.monotonic() + max(wait, 0.5)
        told = False
        while not _locked(descriptor):
            if time.monotonic() >= until:
                os.close(descriptor)
                raise self._refusal(wait)
            if wait and not told:
                tell(f"waiting up to {wait:g} s: {describe(self.held_by())}")
                told = True
            time.sleep(0.02)
        said = {"by": by, "doing": doing, "pid": os.getpid(), "since": time.time()}
        try:
            self.epoch = self._next_epoch(above)
            _write(self.holder, json.dumps({**said, "epoch": self.epoch}))
        except OSError:
            os.close(descriptor)
            raise
        self.descriptor = descriptor

    def release(self) -> None:
        """Give the lease back."""
        if self.descriptor >= 0:
            self.holder.unlink(missing_ok=True)
            os.close(self.descriptor)
            self.descriptor = -1

    def adopt(self, epoch: int) -> None:
        """Go on under the epoch that all hosts of the environment have agreed on."""
        _write(self.epoch_file, str(epoch))
        self.epoch = epoch

    def last_epoch(self) -> int:
        """Return the epoch of the last one who took the lease, 0 if nobody ever did."""
        try:
            return int(self.epoch_file.read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def held_by(self) -> dict[str, Any] | None:
        """Return who holds the lease; None when it is free.

        The keys are by, doing, pid, since, and alive: whether that process, which
        is on this host, still runs.
        """
        try:
            descriptor = os.open(self.lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if _locked(descriptor):
                return None
        finally:
            os.close(descriptor)
        try:
            said = json.loads(self.holder.read_text())
        except (FileNotFoundError, ValueError):
            # Taken just now, or by a process that died while it wrote.
            return {"by": "somebody", "doing": "something", "pid": 0, "since": 0}
        there = os.path.exists(f"/proc/{said['pid']}") or not os.path.exists("/proc")
        return {**said, "alive": there}

    def _next_epoch(self, above: int) -> int:
        epoch = max(self.last_epoch(), above) + 1
        _write(self.epoch_file, str(epoch))
        return epoch

    def _refusal(self, waited: float) -> Locked:
        holder = self.held_by()
        return Locked(
            describe(holder),
            where=str(self.lock),
            detail=f"waited {waited:g} s" if waited else "",
            next="try again when it has ended, or add --wait 120",
        )


def describe(holder: dict[str, Any] | None) -> str:
    """Return a sentence that says who holds the lease."""
    if holder is None:
        return "the lease is free"
    if not holder["pid"]:
        return "somebody has just taken the lease"
    since = time.strftime("%H:%M:%S", time.localtime(holder["since"]))
    ghost = (
        ""
        if holder.get("alive", True)
        else " (ended; a step it started is still running)"
    )
    return f"{holder['by']} is doing {holder['doing']} since {since}{ghost}"


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _write(path: Path, text: str) -> None:
    """Replace a small file in one step."""
    scratch = path.with_name(f".{path.name}-{os.getpid()}")
    scratch.write_text(text)
    os.replace(scratch, path)
