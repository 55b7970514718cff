"""Longer bars made from shorter ones at ingestion, so that a chart reads few. Pure.

A rolled-up bar covers a stretch of UTC time and is stamped with the first bar in it. No
stretch crosses 00:00 UTC, where splits take effect, nor the end of a stored period, so
both adjusting and replacing them is exact.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .bucketing import reduced
from .codec import Columns
from .interval import MICROSECONDS

TIERS: Mapping[str, tuple[str, ...]] = {
    "1m": ("5m", "1h", "1d"),
    "5m": ("1h", "1d"),
    "1h": ("1d",),
    "1d": (),
}


def rolled(columns: Columns, interval: str) -> Columns:
    """Return bars joined into those of a longer interval."""
    label = columns["ts"] // MICROSECONDS[interval]
    if not len(label):
        return columns
    first = np.concatenate(([True], label[1:] != label[:-1]))
    return reduced(columns, np.flatnonzero(first))


def coarsest(counts: Mapping[str, int], interval: str, points: int) -> str:
    """Return the longest interval of which there are at least `points` bars.

    `counts`: how many bars of the range are stored at each interval. The series' own
    interval is the answer where no longer one has that many.
    """
    fitting = [tier for tier in TIERS[interval] if counts.get(tier, 0) >= points]
    return fitting[-1] if fitting else interval
