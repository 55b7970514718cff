"""Say which rows of a frame are bars and which are not. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .codec import COLUMNS, Columns
from .errors import BadData
from .interval import MICROSECONDS

PRICES = ("open", "high", "low", "close")
# Where the session opens at half past, so do the hours that are counted from it.
_GRID = MICROSECONDS | {"1h": MICROSECONDS["1h"] // 2}


@dataclass(frozen=True)
class Reject:
    """One refused row: `ts` in microseconds since 1970 UTC, the reason, the row."""

    ts: int
    reason: str
    row: str


def examine(frame: pd.DataFrame, interval: str) -> tuple[Columns, list[Reject]]:
    """Split a frame into good columns (unique ascending ts) and refused rows.

    `frame` has a time-zone-aware DatetimeIndex and the columns open, high, low,
    close, volume; more columns are ignored. A row is refused when a price is not
    finite and positive, when low <= open, close <= high does not hold, when volume is
    not a whole number >= 0, when ts is off the grid of the interval (1d bars are
    stamped 00:00 UTC of the session date, 1h bars may start at half past), or when a
    later row has the same ts and other values. Raises BadData when the frame as a whole
    cannot be read.
    """
    index = frame.index
    if not isinstance(index, pd.DatetimeIndex) or index.tz is None:
        raise BadData(
            "bars need a time-zone-aware DatetimeIndex",
            "localise the timestamps: frame.tz_localize('UTC')",
        )
    missing = [name for name in COLUMNS[1:] if name not in frame.columns]
    if missing:
        raise BadData(f"bars lack the columns {missing}")
    if index.hasnans:
        raise BadData("bars have rows without a timestamp")
    ts = index.tz_convert("UTC").as_unit("us").asi8
    try:
        values = {
            name: frame[name].to_numpy(np.float64, na_value=np.nan)
            for name in COLUMNS[1:]
        }
    except (TypeError, ValueError) as error:
        raise BadData(f"bars hold a value that is not a number: {error}") from error

    # Why each row is refused: a place in `said`, 0 for not at all.
    said, reasons = [""], np.zeros(len(ts), np.uint8)

    def refuse(rows: np.ndarray, reason: str) -> None:
        said.append(reason)
        reasons[rows & (reasons == 0)] = len(said) - 1

    prices = np.stack([values[name] for name in PRICES])
    open_, high, low, close = prices
    volume = values["volume"]
    refuse(~np.isfinite(prices).all(axis=0), "a price is not finite")
    refuse((prices <= 0).any(axis=0), "a price is not positive")
    refuse((low > np.fmin(open_, close)) | (high < np.fmax(open_, close)), "OHLC order")
    whole = np.isfinite(volume) & (volume >= 0) & (volume < 2**53)
    refuse(~whole | (np.floor(volume) != volume), "volume is not a whole number >= 0")
    refuse(ts % _GRID[interval] != 0, f"ts is off the {interval} grid")
    ascending = bool((ts[1:] > ts[:-1]).all())
    if not ascending:
        repeated = _repeated(ts, [*prices, volume], np.flatnonzero(reasons == 0))
        refuse(repeated, "another row with the same ts came later")
    rejects = [
        Reject(int(ts[i]), said[reasons[i]], as_text(values, i))
        for i in np.flatnonzero(reasons)
    ]
    rows: np.ndarray | slice = slice(None)
    if rejects or not ascending:
        good = np.flatnonzero(reasons == 0)
        # Exact repeats leave too; every row that is left has its own ts.
        rows = good[np.unique(ts[good], return_index=True)[1]]
    columns: Columns = {"ts": ts[rows]}
    for name in PRICES:
        columns[name] = values[name][rows]
    columns["volume"] = volume[rows].astype(np.int64)
    return columns, rejects


def _repeated(ts: np.ndarray, values: list[np.ndarray], good: np.ndarray) -> np.ndarray:
    """Of good rows with one ts and different values, say which are not the last."""
    order = good[np.argsort(ts[good], kind="stable")]
    following = np.flatnonzero(ts[order][1:] == ts[order][:-1])
    repeated = np.zeros(len(ts), bool)
    last: dict[int, int] = {}
    for place in following[::-1]:
        row, after = order[place], order[place + 1]
        keeper = last.setdefault(int(ts[row]), after)
        if any(column[row] != column[keeper] for column in values):
            repeated[row] = True
    return repeated


def as_text(values: Columns, row: int) -> str:
    """Return a row as people read it."""
    return " ".join(f"{name}={float(values[name][row])!r}" for name in COLUMNS[1:])
