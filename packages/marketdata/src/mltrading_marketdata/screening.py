"""What of an answer is taken in: final bars without jumps that never were. Pure.

Three rules stand beside those for a single row (`quality.examine`):

- A bar whose time is not over is left for later: an intraday one until its length has
  passed, a daily one until its session has closed.
- A bar is refused when one of its prices lies JUMPS[interval] times above, or below,
  both the close before it and the close after it, while these two differ by less than
  the square root of that: a jump that comes straight back. Prices on both sides of a
  split are compared in the same shares.
- The newest bar, when it closes that far from the one before, is left for later too,
  until a bar after it shows whether the jump stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .adjustment import Action, price_divisors
from .codec import COLUMNS, Columns
from .errors import StoreError
from .interval import MICROSECONDS
from .quality import PRICES, Reject, as_text, examine
from .sessions import hours

JUMPS = {"1m": 2.0, "5m": 2.0, "1h": 2.0, "1d": 3.0}
# After the close the last prices are still on their way for a quarter of an hour.
SETTLED = 15 * 60 * 10**6


@dataclass(frozen=True)
class Screened:
    """What came of an answer: good bars, refused rows, bars that are left for later.

    `columns` are as `quality.examine` returns them.
    """

    columns: Columns
    rejects: list[Reject]
    waiting: int

    @property
    def frame(self) -> pd.DataFrame:
        """Return the good bars as `Store.upsert_bars` takes them."""
        index = pd.DatetimeIndex(self.columns["ts"].view("M8[us]"), tz="UTC", name="ts")
        values = {name: self.columns[name] for name in COLUMNS[1:]}
        return pd.DataFrame(values, index=index)


def screen(
    frame: pd.DataFrame,
    actions: Sequence[Action],
    interval: str,
    *,
    now: pd.Timestamp,
    exchange: str = "",
) -> Screened:
    """Split an answer into good bars, refused rows and bars that are not final yet.

    Raises BadData as `examine` does.
    """
    if isinstance(frame.index, pd.DatetimeIndex) and frame.index.tz is not None:
        # First: what runs is often off the grid, which would be another reason.
        final = is_final(frame.index, interval, now, exchange)
    else:
        final = np.ones(len(frame), bool)
    columns, rejects = examine(frame[final] if not final.all() else frame, interval)
    waiting = int((~final).sum())
    refused, unsure = jumps(columns, actions, interval)
    if refused.any() or unsure:
        times = JUMPS[interval]
        reason = f"a price jumps {times:g}-fold and comes straight back"
        rejects = rejects + [
            Reject(int(columns["ts"][at]), reason, as_text(columns, at))
            for at in np.flatnonzero(refused)
        ]
        good = ~refused
        good[-1] &= not unsure
        columns = {name: column[good] for name, column in columns.items()}
    return Screened(columns, rejects, waiting + int(unsure))


def is_final(
    index: pd.DatetimeIndex, interval: str, now: pd.Timestamp, exchange: str = ""
) -> np.ndarray:
    """Say of each bar whether its time is over, shape (n,).

    A daily bar of an exchange whose hours are not known is final when its date is over
    in UTC.
    """
    at = int(now.asm8.astype("M8[us]").astype(np.int64))
    ts = index.tz_convert("UTC").as_unit("us").asi8
    final = ts + MICROSECONDS[interval] <= at
    if interval == "1d" and exchange and not final.all():
        running = ts[~final]
        try:
            closes = hours(exchange, int(running.min()), int(running.max()))
        except StoreError:
            return final
        closed = closes["ts"][closes["close"] + SETTLED <= at]
        final |= np.isin(ts, closed)
    return final


def jumps(
    columns: Columns, actions: Sequence[Action], interval: str
) -> tuple[np.ndarray, bool]:
    """Say of each bar whether it jumps and comes back, and of the last if it jumps.

    The last one is never among those that come back by their close.
    """
    n = len(columns["ts"])
    refused = np.zeros(n, bool)
    if n < 2:
        return refused, False
    splits = [one for one in actions if one.kind == "split"]
    shares = price_divisors(columns, splits, "split") if splits else np.ones(n)
    prices = {name: columns[name] / shares for name in PRICES}
    close, far = prices["close"], JUMPS[interval]
    before = np.concatenate((prices["open"][:1], close[:-1]))
    after = np.concatenate((close[1:], close[-1:]))
    suspects = np.flatnonzero(
        _astray(prices["low"], prices["high"], before, after, far)
    )
    kept = float(before[0])
    for at in suspects:
        # Two bars in a row can't both be measured by each other.
        if at and not refused[at - 1]:
            kept = float(close[at - 1])
        low, high = prices["low"][at], prices["high"][at]
        refused[at] = _astray(low, high, kept, after[at], far)
    rest = close[~refused]
    unsure = bool(
        not refused[-1]
        and len(rest) > 1
        and max(rest[-1], rest[-2]) >= far * min(rest[-1], rest[-2])
    )
    return refused, unsure


def _astray(
    low: np.ndarray, high: np.ndarray, before: np.ndarray, after: np.ndarray, far: float
) -> np.ndarray:
    """Say where low or high lies far from both neighbours, which are near each other.

    Works on arrays and on single values alike.
    """
    upper, lower = np.maximum(before, after), np.minimum(before, after)
    return (upper < np.sqrt(far) * lower) & (
        (high >= far * upper) | (low <= lower / far)
    )
