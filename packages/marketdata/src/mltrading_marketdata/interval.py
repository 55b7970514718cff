"""Bar intervals, and the period of time that one stored block covers."""

from __future__ import annotations

from typing import Literal

import numpy as np

from .errors import StoreError

Interval = Literal["1m", "5m", "1h", "1d"]
MICROSECONDS = {
    "1m": 60_000_000,
    "5m": 300_000_000,
    "1h": 3_600_000_000,
    "1d": 86_400_000_000,
}
_MONTHS_PER_BLOCK = {"1m": 1, "5m": 3, "1h": 12, "1d": 12}


def checked(interval: str) -> str:
    """Return `interval`, or raise StoreError naming the known ones."""
    if interval not in MICROSECONDS:
        raise StoreError(f"interval {interval!r} is not one of {list(MICROSECONDS)}")
    return interval


def period(ts: np.ndarray, interval: str) -> np.ndarray:
    """Return the block number of each timestamp (int64 microseconds since 1970 UTC).

    A block covers a year of 1d and 1h bars, a quarter of 5m, a month of 1m; its number
    counts such stretches since 1970.
    """
    months = ts.astype("M8[us]").astype("M8[M]").astype(np.int64)
    return months // _MONTHS_PER_BLOCK[interval]
