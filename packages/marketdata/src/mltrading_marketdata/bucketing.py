"""Join bars into fewer, longer ones. Pure."""

from __future__ import annotations

import numpy as np

from .codec import Columns

_DAY = 86_400_000_000
_LADDER = {
    "5m": 300_000_000,
    "15m": 900_000_000,
    "30m": 1_800_000_000,
    "1h": 3_600_000_000,
    "2h": 7_200_000_000,
    "4h": 14_400_000_000,
    "8h": 28_800_000_000,
    "12h": 43_200_000_000,
    "1d": _DAY,
}
_MONTHS = {"1mo": 1, "3mo": 3, "1y": 12}


def bucket(columns: Columns, interval: str, max_points: int) -> tuple[Columns, str]:
    """Return at most `max_points` OHLCV rows and the name of the bucket used.

    Buckets follow the calendar (5m ... 1d, 1w from Monday, 1mo, 3mo, 1y), so a candle
    does not change when later bars arrive; the shortest that fits is taken. When even
    years are too many, equal runs of years are joined ("runs"). `ts` of a candle is the
    ts of its first bar.
    """
    ts = columns["ts"]
    if len(ts) <= max_points:
        return columns, interval
    months = ts.astype("M8[us]").astype("M8[M]").astype(np.int64)
    # 1970-01-01 was a Thursday: three days on, weeks begin on Monday.
    labels = {name: ts // width for name, width in _LADDER.items()}
    labels["1w"] = (ts // _DAY + 3) // 7
    labels |= {name: months // width for name, width in _MONTHS.items()}
    for name, label in labels.items():
        starts = _starts(label)
        if len(starts) <= max_points:
            return reduced(columns, starts), name
    return reduced(columns, starts[:: -(-len(starts) // max_points)]), "runs"


def _starts(label: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.concatenate(([True], label[1:] != label[:-1])))


def reduced(columns: Columns, starts: np.ndarray) -> Columns:
    """Return one OHLCV row for each run of bars that begins at `starts`."""
    ends = np.append(starts[1:], len(columns["ts"])) - 1
    return {
        "ts": columns["ts"][starts],
        "open": columns["open"][starts],
        "high": np.maximum.reduceat(columns["high"], starts),
        "low": np.minimum.reduceat(columns["low"], starts),
        "close": columns["close"][ends],
        "volume": np.add.reduceat(columns["volume"], starts),
    }
