"""Tiingo's end-of-day prices: raw bars, split factors and dividends, with a key.

Format: https://www.tiingo.com/documentation/end-of-day
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from ..adjustment import Action
from ..errors import SourceClosed, SourceError
from .exchange import canonical
from .http import Client
from .patience import Patience
from .source import RawBars, cut

BASE = "https://api.tiingo.com"
KEY = "TIINGO_API_KEY"
# Tiingo's own data begins after this; without a start it answers one bar only.
_FIRST = "1960-01-01"
_FIELDS = ("open", "high", "low", "close", "volume")


class TiingoSource:
    """Daily bars of US shares and funds, as traded."""

    name = "tiingo"
    provenance = "Tiingo end-of-day prices"
    whole = False

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        within_s: float = 120.0,
        base: str = BASE,
        patience: Callable[[], Patience] | None = None,
        answer_s: float = 20.0,
    ) -> None:
        key = environ.get(KEY, "").strip()
        if not key:
            raise SourceClosed(
                f"{KEY} is not set",
                f"export {KEY}; the key is on https://www.tiingo.com/account/api/token",
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise SourceClosed(f"{KEY} holds what no key holds", f"export {KEY} again")
        self._client = Client(
            "Tiingo",
            base,
            headers={"Authorization": f"Token {key}"},
            key=key,
            patience=patience or partial(Patience, within_s),
            answer_s=answer_s,
        )

    def symbols(self) -> list[str]:
        """Refuse: Tiingo offers tens of thousands."""
        raise SourceError(
            "Tiingo does not list its symbols", "name them: --symbols A,B"
        )

    def earliest(self, interval: str) -> pd.Timestamp | None:
        """Return None: all there is may be asked for."""
        return None

    def fetch(
        self,
        symbol: str,
        interval: str,
        start: pd.Timestamp | None,
        end: pd.Timestamp | None,
    ) -> RawBars:
        """Return daily bars; the first time also what Tiingo says about the symbol."""
        if interval != "1d":
            raise SourceError(
                f"Tiingo's raw prices are daily, not {interval}",
                "use --interval 1d, or --source yahoo",
            )
        place = f"/tiingo/daily/{quote(symbol, safe='')}"
        query = {"startDate": f"{start:%Y-%m-%d}" if start is not None else _FIRST}
        query |= {"endDate": f"{end:%Y-%m-%d}"} if end is not None else {}
        rows = self._client.json(f"{place}/prices", query)
        about: dict[str, str] = {}
        if start is None or not rows:
            described = self._client.json(place)
            about = _about(described, symbol)
            if not rows:
                self._none_due(described, symbol, query)
        return _read(rows, symbol, start, end, about)

    def _none_due(self, described: Any, symbol: str, query: Mapping[str, str]) -> None:
        """Raise SourceError unless Tiingo knows that there is no bar in that range."""
        first, last = described.get("startDate"), described.get("endDate")
        over = last is not None and last < query["startDate"]
        early = first is not None and first > query.get("endDate", "9999")
        if not over and not early:
            raise SourceError(
                f"Tiingo answered no bar of {symbol} from {query['startDate']}, "
                f"though it has some from {first} to {last}"
            )


def _about(described: Any, symbol: str) -> dict[str, str]:
    if not isinstance(described, dict):
        raise SourceError(f"Tiingo's description of {symbol} is no object")
    exchange = canonical(described.get("exchangeCode") or "")
    found = {"name": described.get("name"), "exchange": exchange}
    about = {key: value for key, value in found.items() if isinstance(value, str)}
    return about | {"currency": "USD"}


def _read(
    rows: Any,
    symbol: str,
    start: pd.Timestamp | None,
    end: pd.Timestamp | None,
    about: Mapping[str, str],
) -> RawBars:
    """Return Tiingo's rows as bars and actions; SourceError where they are none."""
    try:
        times = pd.to_datetime(
            [row["date"] for row in rows], format="ISO8601", utc=True
        )
        times = pd.DatetimeIndex(times).normalize().rename("ts")
        frame = pd.DataFrame(
            {
                name: np.array([row[name] for row in rows], np.float64)
                for name in _FIELDS
            },
            index=times,
        )
        actions = []
        for ts, row in zip(times.as_unit("us").asi8, rows, strict=True):
            split, cash = float(row["splitFactor"]), float(row["divCash"])
            if split not in (0.0, 1.0):
                actions.append(Action(int(ts), "split", split))
            if cash:
                actions.append(Action(int(ts), "dividend", cash))
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"Tiingo's answer about {symbol} can't be read: "
            f"{type(error).__name__} {error}"
        ) from error
    return RawBars(cut(frame, start, end), actions, about)
