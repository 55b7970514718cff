"""How long to wait before asking again, and when to give up. Decides; waits through
the `sleep` that it is given."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_S = 1.0
LONGEST_S = 30.0


@dataclass
class Patience:
    """Ask again, later each time, until `within_s` seconds have passed.

    One object per question. `clock` gives monotonic seconds.
    """

    within_s: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _tries: int = 0
    _begun: float = field(init=False)

    def __post_init__(self) -> None:
        self._begun = self.clock()

    @property
    def left_s(self) -> float:
        """Return how many seconds are left; 0 where time is up."""
        return max(0.0, self._begun + self.within_s - self.clock())

    def again(self, asked_s: float | None = None) -> bool:
        """Wait before the next try; False, at once, where that would take too long.

        `asked_s`: how long the other side asked to be left alone, if it did.
        """
        pause = min(FIRST_S * 2**self._tries, LONGEST_S)
        pause = pause if asked_s is None else max(asked_s, 0.0)
        self._tries += 1
        if pause >= self.left_s:
            return False
        self.sleep(pause)
        return True


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds that a Retry-After asks for: a number, or an HTTP date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())
