"""Bar intervals, and the period of time that one stored chunk covers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
_MONTHS_PER_CHUNK = {"1m": 1, "5m": 3, "1h": 12, "1d": 12}


def checked(interval: str) -> str:
    """Return `interval`, or raise StoreError naming the known ones."""
    if interval not in MICROSECONDS:
        raise StoreError(f"interval {interval!r} is not one of {list(MICROSECONDS)}")
    return interval


def period(ts: np.ndarray, interval: str) -> np.ndarray:
    """Return the chunk number of each timestamp (int64 microseconds since 1970 UTC).

    A chunk covers a year of 1d and 1h bars, a quarter of 5m, a month of 1m; its number
    counts such stretches since 1970.
    """
    months = ts.astype("M8[us]").astype("M8[M]").astype(np.int64)
    return months // _MONTHS_PER_CHUNK[interval]


def period_of(ts: int, interval: str) -> int:
    """Return the chunk number of one timestamp."""
    return int(period(np.array([ts], np.int64), interval)[0])


def span(number: int, interval: str) -> tuple[int, int]:
    """Return the first timestamp of a chunk and that of the next one."""
    months = np.array([number, number + 1]) * _MONTHS_PER_CHUNK[interval]
    start, end = months.astype("M8[M]").astype("M8[us]").astype(np.int64).tolist()
    return start, end


def split(
    columns: Mapping[str, np.ndarray], interval: str
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Return the number of each chunk that rows fall into, and those rows.

    `columns` has an ascending `ts` of at least one element.
    """
    ts = columns["ts"]
    first, last = (period_of(int(ts[at]), interval) for at in (0, -1))
    starts = [span(number, interval)[0] for number in range(first, last + 2)]
    edges = np.searchsorted(ts, starts).tolist()
    for number, start, end in zip(range(first, last + 1), edges, edges[1:]):
        if start < end:
            part = {name: column[start:end] for name, column in columns.items()}
            yield number, part
