"""Moments as people give them, as the database keeps them, and as frames show them."""

from __future__ import annotations

import time
from datetime import date, datetime

import numpy as np
import pandas as pd
import sqlalchemy as sa

from . import interval as intervals
from .errors import BadData, StoreError

When = str | date | datetime | pd.Timestamp | None

EARLIEST, LATEST = -(2**62), 2**62


def span(start: When, end: When) -> tuple[int, int]:
    """Return a range as microseconds since 1970 UTC; None is no bound."""
    first = EARLIEST if start is None else moment(start)
    return first, LATEST if end is None else moment(end)


def moment(when: str | date | datetime | pd.Timestamp) -> int:
    """Return microseconds since 1970 UTC; a naive time is read as UTC.

    Raises StoreError for what is no time.
    """
    try:
        time_ = pd.Timestamp(when)
        if time_.tz is None:
            time_ = time_.tz_localize("UTC")
        return int(time_.as_unit("us").asm8.astype(np.int64))
    except (TypeError, ValueError) as error:
        raise StoreError(f"cannot read {when!r} as a time: {error}") from error


def microseconds(index: pd.Index) -> np.ndarray:
    """Return an index of times that know their zone as int64; raise BadData."""
    if not isinstance(index, pd.DatetimeIndex) or index.tz is None:
        raise BadData(
            "rows need a time-zone-aware DatetimeIndex",
            "localise the timestamps: frame.tz_localize('UTC')",
        )
    if index.hasnans:
        raise BadData("there are rows without a timestamp")
    return index.tz_convert("UTC").as_unit("us").asi8


def as_index(ts: np.ndarray) -> pd.DatetimeIndex:
    """Return int64 microseconds as a UTC index, without a copy."""
    return pd.DatetimeIndex(ts.view("M8[us]"), tz="UTC", name="ts")


def periods_of(
    column: sa.Column, first: int, last: int, interval: str
) -> list[sa.ColumnElement[bool]]:
    """Return the conditions on a chunk number that a range of times sets."""
    found: list[sa.ColumnElement[bool]] = []
    if first > EARLIEST:
        found.append(column >= intervals.period_of(first, interval))
    if last < LATEST:
        found.append(column <= intervals.period_of(last, interval))
    return found


def next_version(version: int) -> int:
    """Return a stamp above `version` that no earlier life of the database used."""
    return max(version + 1, time.time_ns() // 1000)
