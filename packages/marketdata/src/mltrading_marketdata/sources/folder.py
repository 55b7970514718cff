"""A folder of files, one per symbol: CSV or Parquet."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pandas as pd

from ..adjustment import Action, find_actions
from ..errors import BadData, SourceError
from ..provenance import INVENTED, MARK
from .source import RawBars, cut

TIMES = ("date", "ts")
VALUES = ("open", "high", "low", "close", "volume")
TEXTS = ("name", "exchange", "currency", "sector", "industry")
# Files of a folder that describe the others.
SYMBOLS, ACTIONS = "symbols.csv", "actions.csv"


class FolderSource:
    """Files <SYMBOL>.<ending>: date or ts, open, high, low, close, volume.

    A column adj_close is read for splits and dividends. symbols.csv (symbol, name,
    exchange, currency, sector, industry, source) describes the symbols, actions.csv
    (symbol, date, kind, value) holds splits and dividends. What symbols.csv says to
    be SYNTHETIC stays it.
    """

    ending = ""
    whole = True

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise SourceError(
                f"no such folder: {self.folder}", "give the folder with --path DIR"
            )

    @property
    def name(self) -> str:
        """Return what is stored with the bars: the ending, or that nobody traded."""
        return INVENTED if self._invented else self.ending

    @property
    def provenance(self) -> str:
        """Return what people are told: the kind and the folder's name."""
        said = f"{self.ending} files from {self.folder.resolve().name}"
        return f"{MARK}, {said}" if self._invented else said

    def symbols(self) -> list[str]:
        """Return one symbol per file."""
        described_by = (SYMBOLS, ACTIONS)
        names = sorted(
            symbol_of(path)
            for path in self.folder.glob(f"*.{self.ending}")
            if path.name not in described_by
        )
        if not names:
            raise SourceError(f"no <SYMBOL>.{self.ending} file in {self.folder}")
        return names

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
        """Return the bars in one file."""
        offered = self.symbols()
        if symbol not in offered:
            raise SourceError(
                f"no {symbol}.{self.ending} in {self.folder}",
                f"there is: {', '.join(offered[:20])}",
            )
        path = self.folder / file_name(symbol, self.ending)
        given = self._actions.get(symbol)
        about = described(self._about, symbol)
        rows = self._read(path)
        return raw_bars(rows, str(path), start, end, about=about, actions=given)

    def _read(self, path: Path) -> pd.DataFrame:
        """Return a file's rows; SourceError where that can't be."""
        raise NotImplementedError

    @cached_property
    def _about(self) -> pd.DataFrame:
        path = self.folder / SYMBOLS
        return read_symbols(path) if path.exists() else pd.DataFrame()

    @property
    def _invented(self) -> bool:
        said = self._about.get("source")
        return said is not None and bool(said.str.startswith(MARK).any())

    @cached_property
    def _actions(self) -> dict[str, list[Action]]:
        path = self.folder / ACTIONS
        return _read_actions(path) if path.exists() else {}


class CsvSource(FolderSource):
    """A folder of <SYMBOL>.csv."""

    ending = "csv"

    def _read(self, path: Path) -> pd.DataFrame:
        return read_csv(path)


class ParquetSource(FolderSource):
    """A folder of <SYMBOL>.parquet."""

    ending = "parquet"

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder)
        self._parquet = parquet()

    def _read(self, path: Path) -> pd.DataFrame:
        arrow = self._parquet
        try:
            frame = arrow.ParquetFile(path).read().to_pandas().reset_index()
        except (OSError, ValueError) as error:
            raise SourceError(f"cannot read {path}: {_line(error)}") from error
        return _checked(frame, path)


def parquet() -> Any:
    """Return pyarrow's Parquet module; SourceError says how to get it."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise SourceError(
            "Parquet needs pyarrow, which is not installed here",
            "install the extra: pip install 'mltrading-marketdata[parquet]', or use "
            "csv",
        ) from None
    return pyarrow.parquet


def file_name(symbol: str, ending: str) -> str:
    """Return the file of a symbol; what a file system can't hold is written as %2F."""
    return f"{quote(symbol, safe=' ^=+@,')}.{ending}"


def symbol_of(path: Path) -> str:
    """Return the symbol of a file."""
    return unquote(path.stem)


def described(table: pd.DataFrame, symbol: str) -> dict[str, str]:
    """Return the texts that a symbols.csv has about a symbol."""
    if symbol not in table.index:
        return {}
    row = table.loc[symbol]
    return {name: row[name] for name in TEXTS if row.get(name)}


def read_csv(path: Path) -> pd.DataFrame:
    """Return the rows of a file; a price that is no number becomes NaN."""
    texts = dict.fromkeys((*TIMES, "symbol"), str)
    try:
        frame = pd.read_csv(path, dtype=texts, low_memory=False)
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {path}: {_line(error)}") from error
    return _checked(frame, path)


def _checked(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    missing = [name for name in VALUES if name not in frame.columns]
    if not any(name in frame.columns for name in TIMES):
        missing.insert(0, TIMES[0])
    if missing:
        raise SourceError(
            f"{path} lacks the columns {', '.join(missing)}",
            f"needed: {' or '.join(TIMES)}, {', '.join(VALUES)}",
        )
    for name in (*VALUES, "adj_close"):
        if name in frame.columns and frame[name].dtype.kind not in "fiu":
            # The row is refused by name later; one bad cell must not refuse a file.
            frame[name] = pd.to_numeric(frame[name], errors="coerce")
    return frame


def read_symbols(path: Path) -> pd.DataFrame:
    """Return what a symbols.csv says: index symbol, all else text."""
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, index_col="symbol")
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {path}: {_line(error)}") from error


def _read_actions(path: Path) -> dict[str, list[Action]]:
    try:
        rows = pd.read_csv(path, dtype={"symbol": str, "date": str, "kind": str})
        times = _times(rows["date"], str(path)).as_unit("us").asi8
        found: dict[str, list[Action]] = {}
        values = rows["value"].astype(float)
        for symbol, ts, kind, value in zip(
            rows["symbol"], times, rows["kind"], values, strict=True
        ):
            if kind not in ("split", "dividend"):
                raise ValueError(f'kind "{kind}" is not split or dividend')
            found.setdefault(symbol, []).append(Action(int(ts), kind, float(value)))
    except KeyError as error:
        raise SourceError(f"{path} lacks the column {error}") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {path}: {_line(error)}") from error
    return found


def raw_bars(
    rows: pd.DataFrame,
    where: str,
    start: pd.Timestamp | None,
    end: pd.Timestamp | None,
    *,
    about: Mapping[str, str],
    actions: list[Action] | None = None,
) -> RawBars:
    """Return a file's rows as an answer, between start and end.

    `actions` go before those in a column adj_close. Raises SourceError.
    """
    if rows.empty:
        raise SourceError(f"{where} has no rows")
    column = next(name for name in TIMES if name in rows.columns)
    frame = rows.set_index(_times(rows[column], where))[list(VALUES)]
    found = list(actions or [])
    if actions is None and "adj_close" in rows.columns:
        factors = rows.set_axis(frame.index)[["close", "adj_close"]].sort_index()
        # What is no number can't be judged here; such rows are refused later.
        factors = factors[(factors > 0).all(axis=1)]
        try:
            found = find_actions(
                factors.index.as_unit("us").asi8,
                factors["close"].to_numpy(float),
                factors["adj_close"].to_numpy(float),
            )
        except (BadData, ValueError) as error:
            raise SourceError(f"{where}: {error}") from error
    return RawBars(cut(frame, start, end), found, about)


def _times(column: pd.Series, where: str) -> pd.DatetimeIndex:
    """Return session dates as 00:00 UTC, times of day with a zone as UTC."""
    if column.dtype.kind == "M":
        times = column
        if column.dt.tz is None:
            if not (column == column.dt.normalize()).all():
                raise _zoneless(where)
            times = column.dt.tz_localize("UTC")
    else:
        text = column.astype("str").where(column.notna(), "")
        empty = text.index[text == ""]
        if len(empty):
            raise SourceError(f"{where}, row {empty[0] + 1}: there is no time")
        daily = text.str.fullmatch(_DATE).all()
        if not daily and not text.str.contains(_ZONE).all():
            raise _zoneless(where)
        form = "%Y-%m-%d" if daily else "ISO8601"
        try:
            times = pd.to_datetime(text, format=form, utc=True)
        except ValueError as error:
            raise SourceError(f"{where}: {_line(error)}") from error
    return pd.DatetimeIndex(times.dt.tz_convert("UTC"), name="ts")


_DATE = r"\d{4}-\d{2}-\d{2}"
_ZONE = r"(?:Z|[+-]\d{2}:?\d{2})$"


def _zoneless(where: str) -> SourceError:
    return SourceError(
        f"{where}: times of day need a zone, such as 2020-01-02T14:30:00+00:00"
    )


def _line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
