"""Where bars come from. A source answers or raises SourceError; it never shrugs.

Dates: a daily bar of a source is stamped 00:00 UTC of its session date, whatever time
zone the exchange is in. An intraday time must carry its zone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pandas as pd

from .adjustment import Action, find_actions
from .errors import BadData, SourceError

_NEEDED = ("date", "open", "high", "low", "close", "volume")
_TEXTS = ("name", "exchange", "currency", "sector", "industry")


@dataclass(frozen=True)
class RawBars:
    """One answer: bars as traded (UTC index; open ... volume) and the actions known."""

    frame: pd.DataFrame
    actions: list[Action] = field(default_factory=list)


class Source(Protocol):
    """What `ingest` needs. `name` is stored with the bars, `provenance` shown."""

    name: str
    provenance: str

    def symbols(self) -> pd.DataFrame:
        """Return what the source offers: index symbol; name, exchange, currency,
        sector, industry."""

    def fetch(
        self,
        symbol: str,
        interval: str,
        start: pd.Timestamp | None,
        end: pd.Timestamp | None,
    ) -> RawBars:
        """Return the bars with start <= ts <= end; raise SourceError for no answer."""


class SampleSource:
    """Real daily bars of five US shares, 2000-03-01 to 2013-03-01, in this package."""

    name = "sample"
    provenance = "sample"

    def __init__(self) -> None:
        self._folder = Path(__file__).parent / "sample"
        self._bars: pd.DataFrame | None = None

    def symbols(self) -> pd.DataFrame:
        """Return the five symbols."""
        return _read_symbols(self._folder / "symbols.csv")

    def fetch(
        self,
        symbol: str,
        interval: str,
        start: pd.Timestamp | None,
        end: pd.Timestamp | None,
    ) -> RawBars:
        """Return the daily bars of one symbol."""
        if interval != "1d":
            raise SourceError(f"the sample has daily bars only, not {interval}")
        if self._bars is None:
            self._bars = _read_csv(self._folder / "bars.csv.gz")
        rows = self._bars[self._bars["symbol"] == symbol]
        if rows.empty:
            raise SourceError(f"the sample has no {symbol}")
        return _raw(rows, f"sample {symbol}", start, end)


class CsvSource:
    """A folder of <SYMBOL>.csv files: date, open, high, low, close, volume.

    A column adj_close is read for splits and dividends. A file symbols.csv (symbol,
    name, exchange, currency, sector, industry) describes the symbols.
    """

    name = "csv"

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self.provenance = f"csv files from {self._folder.name}"

    def symbols(self) -> pd.DataFrame:
        """Return one row per file, described where symbols.csv does."""
        if not self._folder.is_dir():
            raise SourceError(
                f"no such folder: {self._folder}", "give the folder with --path DIR"
            )
        names = sorted(path.stem for path in self._folder.glob("*.csv"))
        names = [name for name in names if name != "symbols"]
        if not names:
            raise SourceError(f"no <SYMBOL>.csv file in {self._folder}")
        described = self._folder / "symbols.csv"
        known = _read_symbols(described) if described.exists() else pd.DataFrame()
        whole = pd.DataFrame("", index=pd.Index(names, name="symbol"), columns=_TEXTS)
        whole.update(known)
        return whole

    def fetch(
        self,
        symbol: str,
        interval: str,
        start: pd.Timestamp | None,
        end: pd.Timestamp | None,
    ) -> RawBars:
        """Return the bars in one file."""
        offered = self.symbols().index
        if symbol not in offered:
            raise SourceError(
                f"no {symbol}.csv in {self._folder}", f"there is: {', '.join(offered)}"
            )
        path = self._folder / f"{symbol}.csv"
        return _raw(_read_csv(path), str(path), start, end)


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, dtype={"date": str, "symbol": str}, na_filter=True)
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error
    missing = [name for name in _NEEDED if name not in frame.columns]
    if missing:
        raise SourceError(f"{path} lacks the columns {missing}")
    return frame


def _read_symbols(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, index_col="symbol")
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error


def _raw(
    rows: pd.DataFrame,
    where: str,
    start: pd.Timestamp | None,
    end: pd.Timestamp | None,
) -> RawBars:
    frame = rows.set_index(_dates(rows["date"], where))[list(_NEEDED[1:])]
    actions: list[Action] = []
    if "adj_close" in rows.columns:
        factors = rows.set_axis(frame.index)[["close", "adj_close"]].sort_index()
        try:
            actions = find_actions(
                factors.index.as_unit("us").asi8,
                factors["close"].to_numpy(float),
                factors["adj_close"].to_numpy(float),
            )
        except (BadData, ValueError) as error:
            raise SourceError(f"{where}: {error}") from error
    if start is not None:
        frame = frame[frame.index >= start]
    if end is not None:
        frame = frame[frame.index <= end]
    return RawBars(frame, actions)


def _dates(column: pd.Series, where: str) -> pd.DatetimeIndex:
    text = column.fillna("")
    try:
        if text.str.fullmatch(r"\d{4}-\d{2}-\d{2}").all():
            times = pd.to_datetime(text, format="%Y-%m-%d").dt.tz_localize("UTC")
        else:
            times = pd.to_datetime(text, format="ISO8601")
            if times.dt.tz is None:
                raise ValueError("times of day need a zone, such as 14:30:00+00:00")
            times = times.dt.tz_convert("UTC")
    except (AttributeError, ValueError) as error:
        raise SourceError(f"{where}: {error}") from error
    return pd.DatetimeIndex(times, name="ts")
