"""Check that the disk a service writes to has room."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike

from mltrading_health.checks import Result, Status


@dataclass(frozen=True, slots=True)
class Room:
    """Hold the bytes of a disk: those this process may still use, and all."""

    free: int
    size: int


def room(path: str | PathLike[str]) -> Room | None:
    """Return the room on the disk below ``path``, None if it cannot be read."""
    try:
        total, _, free = shutil.disk_usage(path)
    except OSError:
        return None
    return Room(free, total)


def disk_check(
    *paths: str | PathLike[str],
    warn: float = 0.10,
    fail: float = 0.05,
    usage: Callable[[str | PathLike[str]], tuple[int, int, int]] = shutil.disk_usage,
) -> Callable[[], Result]:
    """Return a check of the free share of the disk below a path, 0 to 1.

    Of several paths the one with the least counts.

    Raises:
        ValueError: no path is named.
    """
    if not paths:
        raise ValueError("disk_check needs a path")

    def free_share(path: str | PathLike[str]) -> float:
        total, _, free = usage(path)
        return free / total if total else 0.0

    def check() -> Result:
        share = min(map(free_share, paths))
        bad = Status.FAIL if share < fail else Status.WARN
        status = Status.PASS if share >= warn else bad
        return Result(status, f"{share:.1%} free", round(100 * share, 1), "percent")

    return check
