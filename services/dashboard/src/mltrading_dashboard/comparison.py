"""Several symbols over the days that all of them have, measured side by side. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mltrading_dashboard.measures import SESSIONS_PER_YEAR, first_row

FEWEST_STEPS = 15  # below which a deviation says more about chance than about a share


@dataclass(frozen=True)
class Compared:
    """One symbol over the period. What the days are too few for is None.

    change, drawdown: fractions; drawdown is 0 or less, the deepest fall of a close
    below the highest one before it.
    volatility: deviation of the daily logarithmic steps, as a fraction a year.
    sharpe: mean over deviation of the daily changes, a year, with no risk-free rate.
    correlation, beta: of the daily changes with those of the first symbol.
    volume: mean a day, in shares.
    """

    change: float
    volatility: float | None
    sharpe: float | None
    drawdown: float
    correlation: float | None
    beta: float | None
    volume: float


def common(
    bars: Mapping[str, pd.DataFrame], span: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return closes and volumes of the days in a span that every symbol has.

    One column per symbol. The span is counted back from the last common day; the first
    row is the close before it, from which changes count. Both are empty where no day
    is common.
    """
    closes = _joined(bars, "close")
    volumes = _joined(bars, "volume")
    if closes.empty:
        return closes, volumes
    start = max(0, min(first_row(closes.index, span) - 1, len(closes) - 2))
    return closes.iloc[start:], volumes.iloc[start:]


def compared(closes: pd.DataFrame, volumes: pd.DataFrame) -> dict[str, Compared]:
    """Measure each column of `closes`, at least one row, against the first."""
    prices = closes.to_numpy(dtype=float)
    changes = prices[1:] / prices[:-1] - 1
    result = {}
    for place, symbol in enumerate(closes):
        price, change = prices[:, place], changes[:, place]
        correlation, beta = _related(change, changes[:, 0])
        result[symbol] = Compared(
            change=float(price[-1] / price[0] - 1),
            volatility=_yearly_deviation(np.diff(np.log(price))),
            sharpe=_sharpe(change),
            drawdown=float((price / np.maximum.accumulate(price)).min() - 1),
            correlation=correlation,
            beta=beta,
            # The first row is the day before the period, where there is one.
            volume=float(volumes[symbol].iloc[min(1, len(volumes) - 1) :].mean()),
        )
    return result


def _joined(bars: Mapping[str, pd.DataFrame], column: str) -> pd.DataFrame:
    series = {symbol: frame[column] for symbol, frame in bars.items()}
    return pd.concat(series, axis=1, join="inner").sort_index()


def _yearly_deviation(steps: np.ndarray) -> float | None:
    if len(steps) < FEWEST_STEPS:
        return None
    return float(steps.std(ddof=1) * np.sqrt(SESSIONS_PER_YEAR))


def _sharpe(change: np.ndarray) -> float | None:
    if len(change) < FEWEST_STEPS or _still(change):
        return None
    ratio = change.mean() / change.std(ddof=1)
    return float(ratio * np.sqrt(SESSIONS_PER_YEAR))


def _related(
    change: np.ndarray, first: np.ndarray
) -> tuple[float | None, float | None]:
    if len(change) < FEWEST_STEPS or _still(first):
        return None, None
    both = np.cov(change, first)
    beta = float(both[0, 1] / both[1, 1])
    if _still(change):
        return None, beta
    together = both[0, 1] / np.sqrt(both[0, 0] * both[1, 1])
    return float(np.clip(together, -1, 1)), beta


def _still(change: np.ndarray) -> bool:
    """Return whether the changes differ by no more than rounding."""
    return bool(np.ptp(change) < 1e-12)
