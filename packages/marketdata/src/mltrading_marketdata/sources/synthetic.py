"""Invented bars, millions in a second, the same for the same seed: for load and shows.

They are marked SYNTHETIC wherever they are shown. What a bar is depends on seed, symbol
and its own time only, so any stretch of them is the same stretch each time.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import pandas as pd

from ..errors import SourceError
from ..provenance import INVENTED, MARK
from .source import RawBars, cut

# Where all walks begin, and from where on bars are made unless a start is given.
ORIGIN = pd.Timestamp("2000-01-03", tz="UTC")
STARTS = {
    "1d": ORIGIN,
    "1h": pd.Timestamp("2020-01-02", tz="UTC"),
    "5m": pd.Timestamp("2024-01-02", tz="UTC"),
    "1m": pd.Timestamp("2025-01-02", tz="UTC"),
}
_MINUTES = {"1h": 60, "5m": 5, "1m": 1}
# New York's session, in minutes after midnight; hourly bars begin at the full hour.
_OPENS, _CLOSES = 9 * 60 + 30, 16 * 60
_DAILY = 0.015


class SyntheticSource:
    """Weekdays from 2000 on, New York's hours, prices on a random walk."""

    name = INVENTED
    whole = False

    def __init__(self, seed: int = 1, *, now: Callable[[], pd.Timestamp]) -> None:
        self.seed = seed
        self.provenance = f"{MARK}, seed {seed}"
        self._now = now

    def symbols(self) -> list[str]:
        """Refuse: any name will do."""
        raise SourceError(
            "the generator knows no symbols of its own", "name them: --symbols DEMO1"
        )

    def earliest(self, interval: str) -> pd.Timestamp | None:
        """Return where all walks begin."""
        return ORIGIN

    def fetch(
        self,
        symbol: str,
        interval: str,
        start: pd.Timestamp | None,
        end: pd.Timestamp | None,
    ) -> RawBars:
        """Return invented bars; by default to this day, from STARTS on."""
        start = STARTS[interval] if start is None else start
        end = self._now() if end is None else end
        if start < ORIGIN:
            raise SourceError(
                f"the generator begins with {ORIGIN:%Y-%m-%d}",
                f"use --start {ORIGIN:%Y-%m-%d} or later",
            )
        days = pd.date_range(ORIGIN, end.normalize(), freq="B", tz="UTC")
        walk = self._walk(symbol, len(days))
        if interval == "1d":
            frame = self._daily(symbol, days, walk)
        else:
            frame = self._intraday(symbol, days, walk, _MINUTES[interval], start)
        about = {"name": f"{MARK} {symbol}", "exchange": MARK, "currency": "USD"}
        return RawBars(cut(frame, start, end), [], about)

    def _random(self, symbol: str, *what: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(symbol.encode()), *what])

    def _walk(self, symbol: str, n: int) -> np.ndarray:
        """Return log prices, shape (n, 2): open and close of each day."""
        steps = self._random(symbol, 0).standard_normal((n, 2))
        steps[:, 0] *= _DAILY / 3
        steps[:, 1] *= _DAILY
        first = np.log(20 + zlib.crc32(symbol.encode()) % 180)
        return first + np.cumsum(steps.reshape(-1)).reshape(n, 2)

    def _daily(
        self, symbol: str, days: pd.DatetimeIndex, walk: np.ndarray
    ) -> pd.DataFrame:
        noise = self._random(symbol, 1).standard_normal((len(days), 3))
        return _bars(days, walk[:, 0], walk[:, 1], noise, _DAILY / 2, 2e6)

    def _intraday(
        self,
        symbol: str,
        days: pd.DatetimeIndex,
        walk: np.ndarray,
        minutes: int,
        start: pd.Timestamp,
    ) -> pd.DataFrame:
        """Return bars that lead from each day's open to its close, month by month."""
        first = start.normalize() - pd.Timedelta(days=1)
        begin = int(days.searchsorted(first.replace(day=1)))
        days, walk = days[begin:], walk[begin:]
        # A bar's grid is that of its length, so the first hour is short.
        marks = np.arange(_OPENS // minutes * minutes, _CLOSES, minutes)
        months = (days.year * 12 + days.month).to_numpy()
        parts = []
        for month in np.unique(months):
            here = months == month
            random = self._random(symbol, 2, minutes, int(month))
            # Drawn for a whole month whatever part of it is there yet.
            shape = (31, len(marks))
            steps, noise = random.standard_normal(shape), random.standard_normal(
                (*shape, 3)
            )
            parts.append((walk[here], steps[: here.sum()], noise[: here.sum()]))
        index = _moments(days, marks)
        opens, closes, noises = [], [], []
        scale = _DAILY / np.sqrt(len(marks))
        for ends, steps, noise in parts:
            path = np.cumsum(steps * scale, axis=1)
            part = np.arange(1, len(marks) + 1) / len(marks)
            bridge = path - path[:, -1:] * part
            close = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * part + bridge
            opens.append(np.hstack([ends[:, :1], close[:, :-1]]).ravel())
            closes.append(close.ravel())
            noises.append(noise.reshape(-1, 3))
        if not parts:
            return _bars(index, *np.empty((2, 0)), np.empty((0, 3)), scale, 1.0)
        return _bars(
            index,
            np.concatenate(opens),
            np.concatenate(closes),
            np.concatenate(noises),
            scale / 2,
            2e6 / len(marks),
        )


def _moments(days: pd.DatetimeIndex, marks: np.ndarray) -> pd.DatetimeIndex:
    """Return the UTC times of all bars: New York's clock, summer time included."""
    midnights = days.tz_localize(None).tz_localize("America/New_York")
    utc = midnights.tz_convert("UTC").as_unit("us").asi8
    ts = utc[:, None] + marks[None, :] * 60_000_000
    return pd.DatetimeIndex(ts.ravel().view("M8[us]"), tz="UTC", name="ts")


def _bars(
    index: pd.DatetimeIndex,
    opens: np.ndarray,
    closes: np.ndarray,
    noise: np.ndarray,
    scale: float,
    shares: float,
) -> pd.DataFrame:
    """Return bars from log prices; prices in cents, volume in whole shares."""
    spread = np.abs(noise[:, :2]) * scale
    high = np.maximum(opens, closes) + spread[:, 0]
    low = np.minimum(opens, closes) - spread[:, 1]
    columns = {"open": opens, "high": high, "low": low, "close": closes}
    # Rounding keeps order, so a high stays a high.
    frame = {name: np.round(np.exp(log), 2) for name, log in columns.items()}
    frame["volume"] = np.rint(shares * np.exp(noise[:, 2] / 2))
    return pd.DataFrame(frame, index=index.rename("ts"))
