"""Yahoo Finance by way of yfinance: bars as they were traded, splits, dividends.

Yahoo divides its prices and dividends, "unadjusted" ones too, by all splits since. Here
that is undone, so a stored bar never changes its meaning when a share splits. The price
is that the last digits of old bars are Yahoo's rounding.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from ..adjustment import Action
from ..errors import SourceClosed, SourceDown, SourceError
from .exchange import canonical
from .patience import Patience
from .source import RawBars, cut

ANSWER_S = 20.0
# How far back Yahoo keeps bars of an interval, and how many days it gives at once.
_REACH = {
    "1m": pd.Timedelta(days=29),
    "5m": pd.Timedelta(days=59),
    "1h": pd.Timedelta(days=729),
}
_AT_ONCE = {"1m": pd.Timedelta(days=7)}
_PRICES = {"Open": "open", "High": "high", "Low": "low", "Close": "close"}
_TOLD = ("longName", "shortName", "fullExchangeName", "exchangeName", "currency")
_SYMBOL = re.compile(r"[A-Za-z0-9.^=-]{1,24}")


class YahooSource:
    """What Yahoo Finance shows: shares, funds, indices, currencies, world-wide."""

    name = "yahoo"
    provenance = "Yahoo Finance"
    whole = False

    def __init__(
        self,
        *,
        now: Callable[[], pd.Timestamp],
        within_s: float = 120.0,
        session: Any = None,
        patience: Callable[[], Patience] | None = None,
        answer_s: float = ANSWER_S,
    ) -> None:
        self._yfinance = _yfinance()
        self._session = session
        self._now = now
        self._patience = patience or partial(Patience, within_s)
        self._answer_s = answer_s

    def symbols(self) -> list[str]:
        """Refuse: nobody has the list."""
        raise SourceError("Yahoo does not list its symbols", "name them: --symbols A,B")

    def earliest(self, interval: str) -> pd.Timestamp | None:
        """Return how far back Yahoo keeps bars of an interval."""
        reach = _REACH.get(interval)
        return None if reach is None else (self._now() - reach).ceil("min")

    def fetch(
        self,
        symbol: str,
        interval: str,
        start: pd.Timestamp | None,
        end: pd.Timestamp | None,
    ) -> RawBars:
        """Return bars of 1d (all), 1h (729 days), 5m (59) or 1m (29 days back)."""
        if not _SYMBOL.fullmatch(symbol):
            raise SourceError(f"{symbol!r} is no symbol of Yahoo's")
        earliest = self.earliest(interval)
        if earliest is not None and start is not None and start < earliest:
            raise SourceError(
                f"Yahoo has no {interval} bars of {symbol} before {earliest:%Y-%m-%d}",
                f"use --start {earliest + pd.Timedelta(days=1):%Y-%m-%d} or later",
            )
        start = earliest if start is None else start
        # Always up to now, whatever the end: each later split matters.
        parts = [
            self._ask(symbol, interval, since, until)
            for since, until in self._windows(interval, start)
        ]
        frame = pd.concat([part for part, _ in parts])
        frame = frame[~frame.index.duplicated(keep="last")]
        raw, actions = _as_traded(frame, interval)
        return RawBars(cut(raw, start, end), actions, _about(parts[-1][1]))

    def _windows(
        self, interval: str, start: pd.Timestamp | None
    ) -> Iterator[tuple[pd.Timestamp | None, pd.Timestamp | None]]:
        """Return the stretches to ask for, one after the other, open at the end."""
        length = _AT_ONCE.get(interval)
        if length is None or start is None:
            yield start, None
            return
        while start + length < self._now():
            yield start, start + length
            start += length
        yield start, None

    def _ask(
        self,
        symbol: str,
        interval: str,
        since: pd.Timestamp | None,
        until: pd.Timestamp | None,
    ) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Ask until Yahoo answers; return its frame and what it says of the symbol."""
        wrong = self._yfinance.exceptions
        patience = self._patience()
        while True:
            problem: SourceError
            try:
                return self._once(symbol, interval, since, until)
            except wrong.YFRateLimitError as error:
                problem = SourceClosed(
                    f"Yahoo asks to wait: {error}",
                    "run the same command later: it goes on where it stopped",
                )
            except (wrong.YFTickerMissingError, wrong.YFInvalidPeriodError) as error:
                raise SourceError(f"Yahoo has no answer: {error}") from None
            except (OSError, ValueError, wrong.YFException) as error:
                # A cut or slow connection, or a page where JSON should be.
                problem = SourceDown(
                    f"Yahoo gave no answer: {type(error).__name__} {_line(error)}",
                    "run the same command later: it goes on where it stopped",
                )
            except (AttributeError, IndexError, KeyError, TypeError) as error:
                raise SourceError(
                    f"Yahoo's answer about {symbol} can't be read: "
                    f"{type(error).__name__} {_line(error)}"
                ) from None
            if not patience.again():
                raise problem from None

    def _once(
        self,
        symbol: str,
        interval: str,
        since: pd.Timestamp | None,
        until: pd.Timestamp | None,
    ) -> tuple[pd.DataFrame, dict[str, Any]]:
        ticker = self._yfinance.Ticker(symbol, session=self._session)
        asked: dict[str, Any] = {"period": "max"} if since is None else {}
        for name, moment in (("start", since), ("end", until)):
            if moment is not None:
                daily = moment.strftime("%Y-%m-%d")
                asked[name] = daily if interval == "1d" else moment.to_pydatetime()
        with warnings.catch_warnings():
            # About pandas as yfinance uses it: for its makers, not for our users.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            frame = ticker.history(
                interval=interval,
                auto_adjust=False,
                actions=True,
                timeout=self._answer_s,
                **asked,
            )
        # Key by key: listing them all makes yfinance ask Yahoo for more.
        said = ticker.history_metadata
        return frame, {name: said.get(name) for name in _TOLD}


def _yfinance() -> Any:
    """Return yfinance, told to raise; SourceError says how to get it."""
    try:
        import yfinance
    except ImportError:
        raise SourceError(
            "the yahoo source needs yfinance, which is not installed here",
            "install the extra: pip install 'mltrading-marketdata[yahoo]'",
        ) from None
    # By default a refusal is a line in a log and an empty frame.
    yfinance.config.debug.hide_exceptions = False
    return yfinance


def _as_traded(frame: pd.DataFrame, interval: str) -> tuple[pd.DataFrame, list[Action]]:
    """Undo Yahoo's splits; return bars and actions as on their day."""
    dates = frame.index.tz_localize(None).normalize().tz_localize("UTC")
    splits = frame["Stock Splits"].to_numpy(float)
    cash = frame["Dividends"].to_numpy(float)
    if "Capital Gains" in frame.columns:
        cash = cash + frame["Capital Gains"].to_numpy(float)
    ratios = np.where(splits > 0, splits, 1.0)
    # What every split after a bar's own time multiplies its price with.
    later = np.cumprod(ratios[::-1])[::-1] / ratios
    times = dates if interval == "1d" else frame.index.tz_convert("UTC")
    raw = pd.DataFrame(index=pd.DatetimeIndex(times, name="ts"))
    for theirs, ours in _PRICES.items():
        raw[ours] = _printed(frame[theirs].to_numpy(float) * later)
    raw["volume"] = np.rint(frame["Volume"].to_numpy(float) / later)
    days = pd.DatetimeIndex(dates).as_unit("us").asi8
    actions = [
        Action(int(days[at]), "split", float(splits[at]))
        for at in np.flatnonzero(ratios != 1)
    ]
    actions += [
        Action(int(days[at]), "dividend", round(float(cash[at] * later[at]), 6))
        for at in np.flatnonzero(cash > 0)
    ]
    return raw, actions


def _printed(prices: np.ndarray) -> np.ndarray:
    """Round to what exchanges print: Yahoo sends 32-bit floats, 149.92999267578125."""
    return np.where(prices >= 1, np.round(prices, 4), np.round(prices, 6))


def _about(said: dict[str, Any]) -> dict[str, str]:
    exchange = str(said.get("fullExchangeName") or said.get("exchangeName") or "")
    found = {
        "name": said.get("longName") or said.get("shortName"),
        "exchange": canonical(exchange),
        "currency": said.get("currency"),
    }
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else ""
