"""An indicator as a reader chooses it: `rsi.14` in an address, lines on a chart.

The table KINDS says all there is to know about each: its lengths and their bounds, its
lines, where they are drawn, and how many bars before a view it must have seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mltrading_dashboard.charts import indicators

MOST = 10
MOST_PANELS = 4


@dataclass(frozen=True)
class Kind:
    """One indicator; `lengths` are (default, lowest, highest), all in whole numbers.

    compute: bars and lengths to one array per name in `lines`.
    lead: how many bars before the first one drawn are needed, from the lengths.
    panel: drawn below the prices, between `low` and `high` where both are set.
    """

    name: str
    title: str
    lengths: tuple[tuple[int, int, int], ...]
    lines: tuple[str, ...]
    compute: Callable[..., tuple[np.ndarray, ...]]
    lead: Callable[..., int]
    panel: bool = False
    low: float | None = None
    high: float | None = None
    guides: tuple[float, ...] = ()


@dataclass(frozen=True, order=True)
class Study:
    """A kind (its place in KINDS) with its lengths. Sorts as the pages show it."""

    place: int
    lengths: tuple[int, ...]

    @property
    def kind(self) -> Kind:
        return KINDS[self.place]

    @property
    def text(self) -> str:
        """Return how an address names it: bb.20.2."""
        return ".".join([self.kind.name, *map(str, self.lengths)])

    @property
    def title(self) -> str:
        """Return how a page names it: Bollinger 20 2."""
        return " ".join([self.kind.title, *map(str, self.lengths)])

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns that `with_studies` gives it."""
        return tuple(f"{self.text} {line}" for line in self.kind.lines)

    @property
    def lead(self) -> int:
        """Return how many bars it must see before the first one that is drawn."""
        return self.kind.lead(*self.lengths)


def study(text: str) -> Study | None:
    """Return the study of a text such as `rsi.14` or `rsi`, None if there is none."""
    name, *rest = text.strip().lower().split(".")
    place = next((i for i, kind in enumerate(KINDS) if kind.name == name), None)
    if place is None:
        return None
    bounds = KINDS[place].lengths
    rest = rest or [str(default) for default, _, _ in bounds]
    if len(rest) != len(bounds) or not all(
        re.fullmatch(r"[1-9][0-9]{0,3}", number) for number in rest
    ):
        return None
    lengths = tuple(map(int, rest))
    fits = all(low <= n <= high for n, (_, low, high) in zip(lengths, bounds))
    if not fits or (name == "macd" and lengths[0] >= lengths[1]):
        return None
    return Study(place, lengths)


def with_studies(
    bars: pd.DataFrame, studies: tuple[Study, ...], drawn: pd.DataFrame
) -> pd.DataFrame:
    """Return what is drawn with the columns of each study.

    drawn: joined bars in order; `until` is the row in `bars` of the last one in each,
    whose value is taken. Of `bars` only the rows in view are looked at, and before
    them as many as the study needs. An average that never forgets is then off by less
    than a millionth of what it would have started from.
    """
    rows = drawn["until"].to_numpy(dtype=int)
    columns = {}
    for one in studies:
        start = max(0, int(rows[0]) - one.lead)
        part = bars.iloc[start : int(rows[-1]) + 1]
        for name, line in zip(one.columns, one.kind.compute(part, *one.lengths)):
            columns[name] = line[rows - start]
    return drawn.assign(**columns)


def _of(bars: pd.DataFrame, *names: str) -> tuple[np.ndarray, ...]:
    return tuple(bars[name].to_numpy(dtype=float) for name in names)


def _sma(bars, length):
    return (indicators.sma(*_of(bars, "close"), length),)


def _ema(bars, length):
    return (indicators.ema(*_of(bars, "close"), length),)


def _bollinger(bars, length, deviations):
    return indicators.bollinger(*_of(bars, "close"), length, deviations)


def _vwap(bars, length):
    return (indicators.vwap(*_of(bars, "high", "low", "close", "volume"), length),)


def _rsi(bars, length):
    return (indicators.rsi(*_of(bars, "close"), length),)


def _macd(bars, fast, slow, signal):
    line, after, histogram = indicators.macd(*_of(bars, "close"), fast, slow, signal)
    return histogram, line, after


def _stochastic(bars, length, smooth, signal):
    prices = _of(bars, "high", "low", "close")
    return indicators.stochastic(*prices, length, smooth, signal)


def _atr(bars, length):
    return (indicators.atr(*_of(bars, "high", "low", "close"), length),)


def _window(length, *_):
    return length


# (1 - weight) ** lead is below a millionth: weight 2 / (n + 1) needs 7 n bars, Wilder's
# 1 / n needs 14 n, beside those of the first mean.
def _exponential(length, *_):
    return 8 * length + 8


def _wilder(length):
    return 15 * length + 15


BARS = (2, 400)
SHORT = (1, 100)
KINDS = (
    Kind("sma", "SMA", ((20, *BARS),), ("",), _sma, _window),
    Kind("ema", "EMA", ((20, *BARS),), ("",), _ema, _exponential),
    Kind(
        "bb",
        "Bollinger",
        ((20, *BARS), (2, 1, 5)),
        ("lower", "middle", "upper"),
        _bollinger,
        _window,
    ),
    Kind("vwap", "VWAP", ((20, *BARS),), ("",), _vwap, _window),
    Kind(
        "rsi",
        "RSI",
        ((14, *BARS),),
        ("",),
        _rsi,
        _wilder,
        panel=True,
        low=0,
        high=100,
        guides=(30, 70),
    ),
    Kind(
        "macd",
        "MACD",
        ((12, *BARS), (26, *BARS), (9, *SHORT)),
        ("histogram", "line", "signal"),
        _macd,
        lambda fast, slow, signal: _exponential(slow) + _exponential(signal),
        panel=True,
        guides=(0,),
    ),
    Kind(
        "stoch",
        "Stochastic",
        ((14, *BARS), (3, *SHORT), (3, *SHORT)),
        ("K", "D"),
        _stochastic,
        lambda length, smooth, signal: length + smooth + signal,
        panel=True,
        low=0,
        high=100,
        guides=(20, 80),
    ),
    Kind("atr", "ATR", ((14, *BARS),), ("",), _atr, _wilder, panel=True),
)
ALLOWED = tuple(
    ".".join([kind.name, *(str(default) for default, _, _ in kind.lengths)])
    for kind in KINDS
)
# What the page offers as links; an address may name others.
OFFERED = tuple(
    Study(place, lengths)
    for place, kind in enumerate(KINDS)
    for lengths in {
        "sma": ((20,), (50,)),
    }.get(kind.name, (tuple(default for default, _, _ in kind.lengths),))
)
USUAL = OFFERED[:2]
