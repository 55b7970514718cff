"""A connection to PostgreSQL that gives up on a server that says nothing."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

from . import deadline

R = TypeVar("R")
# psycopg looks up this often while it waits.
STEP_S = 0.1


class Silent(psycopg.OperationalError):
    """The server took the question and said nothing for too long."""


class Connection(psycopg.Connection):
    """psycopg's connection, which waits no longer than `deadline` allows the thread.

    One on which an answer is outstanding can't be used again, so it is closed; the
    socket goes, the server may stay as frozen as it is.
    """

    @classmethod
    def _connect_gen(cls, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        steps = super()._connect_gen(*args, **kwargs)
        return deadline.bounded(steps, deadline.end(), Silent)

    def wait(
        self, gen: Generator[Any, Any, R], interval: float = STEP_S, **kwargs: Any
    ) -> R:
        """Wait for an answer; raise Silent, and close, when it comes too late."""
        end = deadline.end()
        left = min(interval, max(end - time.monotonic(), 0.001))
        try:
            return super().wait(deadline.bounded(gen, end, Silent), left, **kwargs)
        except Silent:
            self.pgconn.finish()
            raise
