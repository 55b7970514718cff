"""Key figures of one symbol, from its daily bars. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

SESSIONS_PER_YEAR = 252
OFFSETS = {
    "1M": pd.DateOffset(months=1),
    "3M": pd.DateOffset(months=3),
    "6M": pd.DateOffset(months=6),
    "1Y": pd.DateOffset(years=1),
    "3Y": pd.DateOffset(years=3),
}


@dataclass(frozen=True)
class KeyFigures:
    """Prices in the currency of the symbol; changes and volatility as fractions.

    A figure that the bars are too few for is None.
    """

    last: float
    last_bar: pd.Timestamp
    change: float | None
    year_change: float | None
    low_52w: float
    high_52w: float
    volatility_20d: float | None
    volume_20d: float

    @property
    def place_in_52w(self) -> float:
        """Return where the last close lies between the low (0) and the high (1)."""
        width = self.high_52w - self.low_52w
        return 0.5 if width <= 0 else (self.last - self.low_52w) / width


def key_figures(bars: pd.DataFrame) -> KeyFigures:
    """Measure a frame of at least one daily bar."""
    close = bars["close"].to_numpy()
    year = bars.iloc[first_row(bars.index, "1Y") :]
    return KeyFigures(
        last=float(close[-1]),
        last_bar=bars.index[-1],
        change=float(close[-1] / close[-2] - 1) if len(close) > 1 else None,
        year_change=change_over(bars, "1Y"),
        low_52w=float(year["low"].min()),
        high_52w=float(year["high"].max()),
        volatility_20d=_volatility(close[-21:]),
        volume_20d=float(bars["volume"].to_numpy()[-20:].mean()),
    )


def first_row(index: pd.DatetimeIndex, span: str) -> int:
    """Return the row where a span that ends at the last bar starts.

    The span is counted back from the last bar, not from the clock. `All` starts at 0.
    """
    if span == "All":
        return 0
    start = index[-1] - OFFSETS[span]
    return int(min(index.searchsorted(start, side="left"), len(index) - 1))


def change_over(bars: pd.DataFrame, span: str) -> float | None:
    """Return the change of the close over a span, None if the bars do not reach back.

    The base is the last close on or before the start of the span; `All` uses the first.
    """
    close = bars["close"].to_numpy()
    if span == "All":
        return float(close[-1] / close[0] - 1) if len(close) > 1 else None
    base = int(bars.index.searchsorted(bars.index[-1] - OFFSETS[span], side="right"))
    return float(close[-1] / close[base - 1] - 1) if base > 0 else None


def _volatility(close: np.ndarray) -> float | None:
    if len(close) < 21:
        return None
    steps = np.diff(np.log(close))
    return float(steps.std(ddof=1) * np.sqrt(SESSIONS_PER_YEAR))
