"""Fewer bars for a wide view: neighbours joined into one."""

from __future__ import annotations

import numpy as np
import pandas as pd

MOST_BARS = 440


def bucket_size(count: int, most: int = MOST_BARS) -> int:
    """Return how many bars to join so that at most `most` are drawn."""
    return max(1, -(-count // most))


def bucketed(bars: pd.DataFrame, first: int, last: int, size: int) -> pd.DataFrame:
    """Join each `size` bars of rows first..last into one.

    Buckets are counted from the first bar of the frame, so a bar stays in its bucket
    when the view moves. Columns: open high low close volume, `row` (the middle of the
    bucket as bar number) and `until` (row of its last bar). The index holds the first
    date.
    """
    first = first // size * size
    part = bars.iloc[first : last + 1]
    starts = np.arange(0, len(part), size)
    ends = np.minimum(starts + size, len(part)) - 1
    joined = {
        "open": part["open"].to_numpy()[starts],
        "high": np.maximum.reduceat(part["high"].to_numpy(), starts),
        "low": np.minimum.reduceat(part["low"].to_numpy(), starts),
        "close": part["close"].to_numpy()[ends],
        "volume": np.add.reduceat(part["volume"].to_numpy(dtype=float), starts),
        "row": first + (starts + ends) / 2,
        "until": first + ends,
    }
    return pd.DataFrame(joined, index=part.index[starts])
