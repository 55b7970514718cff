"""Date labels for an axis that counts bars.

Bars are placed by their number, so weekends and holidays leave no gap and plotly.js has
no range breaks to work out; the dates are written at the bars where a period starts.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

MOST_TICKS = 13
# Name, periods as pandas writes them, periods per tick, label.
STEPS = (
    ("day", "D", 1, "%-d %b"),
    ("week", "W", 1, "%-d %b"),
    ("month", "M", 1, "%b %Y"),
    ("quarter", "M", 3, "%b %Y"),
    ("half-year", "M", 6, "%b %Y"),
    ("year", "Y", 1, "%Y"),
    ("two years", "Y", 2, "%Y"),
    ("five years", "Y", 5, "%Y"),
    ("ten years", "Y", 10, "%Y"),
)


def date_ticks(
    index: pd.DatetimeIndex, seen: tuple[int, int], drawn: tuple[int, int]
) -> tuple[list[int], list[str]]:
    """Return bar numbers and labels for the rows of `drawn`, both ends included.

    The finest step is used that puts at most MOST_TICKS labels into the rows `seen`.
    """
    first, last = drawn
    rows = index[first : last + 1]
    plain = rows.tz_localize(None) if rows.tz is not None else rows
    for _, period, every, label in STEPS:
        number = plain.to_period(period).asi8 // every
        starts = first + 1 + np.flatnonzero(np.diff(number))
        if np.count_nonzero((starts >= seen[0]) & (starts <= seen[1])) <= MOST_TICKS:
            texts = [_label(plain[row - first], label) for row in starts]
            return [int(row) for row in starts], texts
    return [], []


def _label(date: pd.Timestamp, label: str) -> str:
    # %-d is not known everywhere, so the day is written by hand.
    return date.strftime(label.replace("%-d", str(date.day)))
