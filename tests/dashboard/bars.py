"""Bars of a random walk."""

import numpy as np
import pandas as pd


def made_bars(count, seed=7):
    """Return `count` daily bars of a random walk that end on 2013-03-01."""
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, count)))
    first = np.r_[close[0], close[:-1]]
    index = pd.bdate_range(end="2013-03-01", periods=count, tz="UTC", name="ts")
    return pd.DataFrame(
        {
            "open": first,
            "high": np.maximum(first, close) * 1.01,
            "low": np.minimum(first, close) * 0.99,
            "close": close,
            "volume": rng.integers(1_000, 9_000, count),
        },
        index=index,
    )
