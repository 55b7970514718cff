"""How long the thread that asks may wait for the database.

A statement time-out is kept by the server. One that is frozen, or behind a network that
swallows packets, keeps none; so the side that waits has a limit of its own, and it is
one for connecting, probing and asking together.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

R = TypeVar("R")


class _Allowed(threading.local):
    until = math.inf  # monotonic seconds: the last moment to wait for anything
    each = math.inf  # seconds for one answer


_allowed = _Allowed()


@contextmanager
def waiting(until: float, each: float = math.inf) -> Iterator[None]:
    """Let this thread wait until a moment (monotonic), and `each` s for one answer.

    Inside another such block the tighter limits hold.
    """
    before = _allowed.until, _allowed.each
    _allowed.until, _allowed.each = min(until, before[0]), min(each, before[1])
    try:
        yield
    finally:
        _allowed.until, _allowed.each = before


def end() -> float:
    """Return the moment (monotonic) at which an answer that is awaited now is late."""
    return min(_allowed.until, time.monotonic() + _allowed.each)


def bounded(
    steps: Generator[Any, Any, R], until: float, error: type[Exception]
) -> Generator[Any, Any, R]:
    """Pass on the steps of a conversation; raise `error` when nothing comes in time.

    The one who drives it must send something false at least every now and then, as
    psycopg does while it waits.
    """
    try:
        state = next(steps)
        while True:
            ready = yield state
            if not ready and time.monotonic() >= until:
                raise error("no answer came in time")
            state = steps.send(ready)
    except StopIteration as done:
        return done.value
