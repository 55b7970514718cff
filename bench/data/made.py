"""The bars that are stored and read: invented, the same in each run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mltrading_marketdata.codec import COLUMNS, Columns
from mltrading_marketdata.sources.synthetic import SyntheticSource

MINUTES = "MINUTES"
_NOW = pd.Timestamp("2026-01-01", tz="UTC")
_DAYS_A_YEAR = 262  # weekdays; the generator knows no holidays


@dataclass(frozen=True)
class Size:
    """How much is stored; the goals are about the defaults."""

    minutes: int = 1_000_000
    symbols: int = 500
    days: int = 5_000
    panel_days: int = 253
    sent_symbols: int = 500
    sent_days: int = 2_000
    object_symbols: int = 1_000
    object_months: int = 12


def minutes(n: int) -> pd.DataFrame:
    """Return n one-minute bars of one symbol, New York's hours."""
    years = n / 390 / _DAYS_A_YEAR
    start = _NOW - pd.Timedelta(days=int(years * 366) + 30)
    return _source().fetch(MINUTES, "1m", start, _NOW).frame.iloc[-n:]


def days(symbols: int, n: int) -> dict[str, pd.DataFrame]:
    """Return n daily bars of each of several symbols."""
    end = pd.bdate_range("2000-01-03", periods=n, tz="UTC")[-1]
    names = [f"D{number:03}" for number in range(symbols)]
    return {name: _source().fetch(name, "1d", None, end).frame for name in names}


def columns(frame: pd.DataFrame) -> Columns:
    """Return bars as the columns that are stored."""
    found = {"ts": frame.index.as_unit("us").asi8}
    for name in COLUMNS[1:]:
        found[name] = frame[name].to_numpy(np.int64 if name == "volume" else np.float64)
    return found


def _source() -> SyntheticSource:
    return SyntheticSource(now=lambda: _NOW)
