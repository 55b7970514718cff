"""Check that the database answers, and soon enough."""

from __future__ import annotations

import time
from collections.abc import Callable

from mltrading_health.checks import Result, Status


def database_check(
    ping: Callable[[], object],
    *,
    slow: float = 0.5,
    clock: Callable[[], float] = time.perf_counter,
) -> Callable[[], Result]:
    """Return a check that asks the database; beyond ``slow`` seconds it warns.

    ``ping`` raises when the database does not answer. It borrows a connection of the
    app's own pool, gives it back, and does not wait long for one: a check is at most
    one thread, so it holds one connection and lines nothing up behind it.
    """

    def check() -> Result:
        began = clock()
        ping()
        took = 1000 * (clock() - began)
        status = Status.WARN if took > 1000 * slow else Status.PASS
        return Result(status, f"answered in {took:.1f} ms", round(took, 1), "ms")

    return check
