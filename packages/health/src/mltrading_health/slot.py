"""Name the place of this worker among its siblings, stable over restarts.

The metric files of a worker carry its slot in place of its pid: the worker that follows
goes on counting where this one ended, and the number of files stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

MASTER = "master"
_current = MASTER
#: Called after this process has taken a slot.
taken: list[Callable[[], None]] = []


def current() -> str:
    """Return the slot of this process; the master has a name of its own."""
    return _current


def take(slot: str) -> None:
    """Make this process the holder of a slot."""
    global _current
    _current = slot
    for tell in taken:
        tell()


def lowest_free(taken: Iterable[str]) -> str:
    """Return the lowest number that is not taken."""
    used, number = set(taken), 0
    while str(number) in used:
        number += 1
    return str(number)
