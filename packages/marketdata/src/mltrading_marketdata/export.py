"""Write bars to files that other programs read, and that `ingest` reads again.

A folder with <SYMBOL>.csv or .parquet, symbols.csv and actions.csv. Bars are as traded.
Each file appears whole or not at all.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .carrying import read_bars, write_bars
from .errors import StoreError, UnknownSymbol
from .interval import checked
from .ledger import Ledger
from .progress import Progress, Quiet
from .sources.folder import ACTIONS, SYMBOLS, TEXTS, file_name, parquet
from .store import Store

FORMS = ("csv", "parquet")
# How much of a series is in memory at once; about 200,000 bars of a stock.
STRETCH = {
    "1m": pd.Timedelta(days=365),
    "5m": pd.Timedelta(days=5 * 365),
    "1h": pd.Timedelta(days=50 * 365),
    "1d": pd.Timedelta(days=200 * 365),
}
PAGE_ROWS = 300_000

Parts = Iterator[tuple[str, pd.DataFrame]]


def export(
    store: Store,
    folder: Path,
    *,
    form: str,
    interval: str = "1d",
    symbols: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the bars of these symbols, or of all with bars, as traded.

    Returns bars, files, symbols and path. Raises UnknownSymbol, SourceError where
    Parquet can't be written, and StoreError where the folder can't.
    """
    names = chosen(store, interval, symbols)
    about, actions = described(store, names)
    parts = stretches(store, names, interval)
    return write(
        folder,
        parts,
        about,
        actions,
        form=form,
        interval=interval,
        many=len(names),
        progress=progress,
    )


def chosen(store: Store, interval: str, symbols: Sequence[str] | None) -> list[str]:
    """Return the symbols asked for; all that have bars of the interval by default."""
    known = store.symbols().index
    missing = [name for name in symbols or () if name not in known]
    if missing:
        raise UnknownSymbol(
            f"no such symbol: {', '.join(missing)}",
            "list the known ones: python -m mltrading_marketdata info",
        )
    ledger = Ledger(store.access)
    held = ledger.known(list(known), checked(interval))
    wanted = list(symbols) if symbols is not None else list(known)
    found = [name for name in wanted if held[name].last_ts is not None]
    if not found:
        raise StoreError(
            f"there are no {interval} bars to export", "inv ingest puts some in"
        )
    return found


def described(
    store: Store, names: Sequence[str]
) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    """Return the rows of symbols.csv and of actions.csv."""
    table = store.symbols()
    sources = Ledger(store.access).provenance()
    about = [
        {"symbol": name}
        | {text: table.loc[name, text] for text in TEXTS}
        | {"source": "; ".join(sources.get(name, ()))}
        for name in names
    ]
    actions = [
        {
            "symbol": name,
            "date": f"{ts:%Y-%m-%d}",
            "kind": row.kind,
            "value": repr(float(row.value)),
        }
        for name in names
        for ts, row in store.actions(name).iterrows()
    ]
    return about, actions


def stretches(
    store: Store, names: Sequence[str], interval: str, after: tuple[str, int] = ("", -1)
) -> Parts:
    """Return the bars of each symbol, stretch by stretch, in order of time.

    `after` names a symbol and a time in microseconds: it begins behind that.
    """
    spans = Ledger(store.access).spans(interval)
    begin = names.index(after[0]) if after[0] else 0
    for name in names[begin:]:
        first, last = spans[name]
        start = first if name != after[0] else max(first, after[1] + 1)
        length = STRETCH[interval] // pd.Timedelta(microseconds=1)
        while start <= last:
            edges = [pd.Timestamp(at, unit="us", tz="UTC") for at in (start, last)]
            edges[1] = min(edges[1], edges[0] + pd.Timedelta(microseconds=length - 1))
            frame = store.bars(name, *edges, interval=interval, adjust="none")
            if len(frame):
                yield name, frame
            start += length


# In pages, for a caller on another machine


def page(
    store: Store,
    interval: str,
    symbols: Sequence[str] | None,
    after: tuple[str, int] = ("", -1),
) -> dict[str, Any]:
    """Return bars as values for JSON, at most some PAGE_ROWS, and where to go on.

    The first page also has the rows of symbols.csv and actions.csv.
    """
    names = chosen(store, interval, symbols)
    parts, rows, following = [], 0, None
    for name, frame in stretches(store, names, interval, after):
        out = io.BytesIO()
        write_bars(out, frame)
        data = base64.b64encode(out.getvalue()).decode()
        parts.append({"symbol": name, "data": data})
        rows += len(frame)
        if rows >= PAGE_ROWS:
            following = [name, int(frame.index.as_unit("us").asi8[-1])]
            break
    said: dict[str, Any] = {"parts": parts, "next": following, "symbols": len(names)}
    if not after[0]:
        said["about"], said["actions"] = described(store, names)
    return said


def paged(pages: Sequence[Path]) -> Parts:
    """Return the bars in files that hold the pages of one export, in their order."""
    for path in pages:
        for part in json.loads(path.read_text())["parts"]:
            frame = read_bars(io.BytesIO(base64.b64decode(part["data"])))
            yield part["symbol"], frame.astype({"volume": np.int64})


# Files


def write(
    folder: Path,
    parts: Parts,
    about: Sequence[dict[str, str]],
    actions: Sequence[dict[str, Any]],
    *,
    form: str,
    interval: str,
    many: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a folder of files; return bars, files, symbols and path."""
    shown = progress or Quiet()
    if form not in FORMS:
        raise StoreError(f'there is no format "{form}"', f"known: {', '.join(FORMS)}")
    opened = _csv if form == "csv" else _parquet(parquet())
    bars = files = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shown.begin(many, of=many)
        with shown:
            for name, frames in _by_symbol(parts):
                count = 0
                with _whole(folder / file_name(name, form)) as path:
                    with opened(path, interval) as add:
                        for frame in frames:
                            add(frame)
                            count += len(frame)
                bars, files = bars + count, files + 1
                shown.step(name, f"{count:,} bars")
        _rows(folder / SYMBOLS, ["symbol", *TEXTS, "source"], about)
        _rows(folder / ACTIONS, ["symbol", "date", "kind", "value"], actions)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            f"cannot write to {folder}: {reason}", "name another folder with --path"
        ) from error
    return {"bars": bars, "files": files, "symbols": many, "path": str(folder)}


def _by_symbol(parts: Parts) -> Iterator[tuple[str, Iterator[pd.DataFrame]]]:
    """Group parts that follow each other; each is to be read to its end first."""
    for name, group in groupby(parts, key=lambda part: part[0]):
        yield name, (frame for _, frame in group)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Give a scratch file that becomes `path` when the block ended well."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    os.close(handle)
    scratch = Path(name)
    try:
        yield scratch
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        scratch.chmod(0o666 & ~mask)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _rows(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    with _whole(path) as scratch, scratch.open("w", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


Add = Callable[[pd.DataFrame], None]


@contextlib.contextmanager
def _csv(path: Path, interval: str) -> Iterator[Add]:
    with path.open("w", newline="") as file:

        def add(frame: pd.DataFrame) -> None:
            naive = frame.index.tz_convert("UTC").tz_localize(None).to_numpy()
            unit = "D" if interval == "1d" else "s"
            text = np.datetime_as_string(naive, unit=unit)
            if interval != "1d":
                text = np.char.add(text, "Z")
            label = "date" if interval == "1d" else "ts"
            out = frame.set_axis(pd.Index(text, name=label))
            out.to_csv(file, header=file.tell() == 0, lineterminator="\n")

        yield add


def _parquet(arrow: Any) -> Callable[[Path, str], Any]:
    import pyarrow

    @contextlib.contextmanager
    def opened(path: Path, interval: str) -> Iterator[Add]:
        writer: Any = None

        def add(frame: pd.DataFrame) -> None:
            nonlocal writer
            table = pyarrow.Table.from_pandas(frame.reset_index(), preserve_index=False)
            if writer is None:
                writer = arrow.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)

        try:
            yield add
        finally:
            if writer is not None:
                writer.close()

    return opened
