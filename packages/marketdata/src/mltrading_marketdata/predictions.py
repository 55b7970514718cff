"""Predictions: what a model said after a bar about a later one, one row each."""

from __future__ import annotations

import numpy as np
import pandas as pd
import sqlalchemy as sa

from .access import Access
from .changes import Changed
from .errors import BadData, UnknownSymbol
from .tables import prediction, symbol
from .times import as_index, microseconds

_KEY = ("model", "symbol_id", "interval", "ts", "horizon")
_VALUES = ("value", "lower", "upper", "run_id")
# PostgreSQL takes 65,535 parameters in one statement.
_BATCH = 5000


class Predictions:
    """The predictions of one database."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def models(self) -> pd.DataFrame:
        """Return one row per model: model, symbols, first and last (UTC), rows."""
        table = prediction
        query = (
            sa.select(
                table.c.model,
                sa.func.count(sa.distinct(table.c.symbol_id)),
                sa.func.min(table.c.ts),
                sa.func.max(table.c.ts),
                sa.func.count(),
            )
            .group_by(table.c.model)
            .order_by(table.c.model)
        )
        rows = self._access.read(lambda c: c.execute(query).all())
        model, symbols, first, last, n = zip(*rows, strict=True) if rows else ((),) * 5
        return pd.DataFrame(
            {
                "symbols": np.array(symbols, np.int64),
                "first": as_index(np.array(first, np.int64)),
                "last": as_index(np.array(last, np.int64)),
                "rows": np.array(n, np.int64),
            },
            index=pd.Index(model, dtype="str", name="model"),
        )

    def upsert(
        self, model: str, frame: pd.DataFrame, run_id: str, interval: str
    ) -> Changed:
        """Add or correct predictions; see `Store.upsert_predictions`."""
        given = _rows(frame)
        with self._access.writing("Store.upsert_predictions") as c:
            ids = self._ids(c, sorted({row["symbol"] for row in given}))
            key = {"model": model, "interval": interval}
            rows = {}
            for row in given:
                said = key | row | {"symbol_id": ids[row["symbol"]], "run_id": run_id}
                del said["symbol"]
                rows[tuple(said[name] for name in _KEY)] = said
            self._access.lock(c, 0)
            known = self._known(c, model, interval, rows)
            same = sum(known.get(at) == _said(row) for at, row in rows.items())
            changed = [row for at, row in rows.items() if known.get(at) != _said(row)]
            insert = self._access.insert(prediction)
            put = insert.on_conflict_do_update(
                index_elements=[prediction.c[name] for name in _KEY],
                set_={name: insert.excluded[name] for name in _VALUES},
            )
            for start in range(0, len(changed), _BATCH):
                c.execute(put, changed[start : start + _BATCH])
        inserted = len(rows.keys() - known.keys())
        return Changed(inserted, len(rows) - inserted - same, same)

    def read(
        self, model: str, name: str | None, first: int, last: int, interval: str
    ) -> pd.DataFrame:
        """Return predictions; see `Store.predictions`."""
        table = prediction
        query = (
            sa.select(
                table.c.ts,
                symbol.c.ticker,
                *(table.c[column] for column in ("horizon", *_VALUES)),
            )
            .join_from(table, symbol)
            .where(
                table.c.model == model,
                table.c.interval == interval,
                table.c.ts.between(first, last),
            )
            .order_by(table.c.ts, symbol.c.ticker, table.c.horizon)
        )
        if name is not None:
            query = query.where(symbol.c.ticker == name)
        rows = self._access.read(lambda c: c.execute(query).all())
        columns = list(zip(*rows, strict=True)) if rows else [()] * 7
        ts, tickers, horizon, value, lower, upper, run_id = columns
        return pd.DataFrame(
            {
                "symbol": pd.Series(tickers, dtype="str").array,
                "horizon": np.array(horizon, np.int64),
                "value": np.array(value, np.float64),
                "lower": np.array(lower, np.float64),
                "upper": np.array(upper, np.float64),
                "run_id": pd.Series(run_id, dtype="str").array,
            },
            index=as_index(np.array(ts, np.int64)),
        )

    def _ids(self, c: sa.Connection, names: list[str]) -> dict[str, int]:
        wanted = self._access.one_of(symbol.c.ticker, names)
        query = sa.select(symbol.c.ticker, symbol.c.id).where(wanted)
        found = {ticker: number for ticker, number in c.execute(query)}
        missing = [name for name in names if name not in found]
        if missing:
            raise UnknownSymbol(
                f"no such symbol in {self._access.address.where}: {', '.join(missing)}",
                "add it first: store.upsert_symbols",
            )
        return found

    def _known(
        self, c: sa.Connection, model: str, interval: str, rows: dict[tuple, dict]
    ) -> dict[tuple, tuple]:
        if not rows:
            return {}
        table, times = prediction, [key[3] for key in rows]
        query = sa.select(*(table.c[name] for name in (*_KEY, *_VALUES))).where(
            table.c.model == model,
            table.c.interval == interval,
            table.c.ts.between(min(times), max(times)),
        )
        found = {tuple(row[:5]): tuple(row[5:]) for row in c.execute(query)}
        return {key: found[key] for key in rows.keys() & found.keys()}


def _said(row: dict) -> tuple:
    return tuple(row[name] for name in _VALUES)


def _rows(frame: pd.DataFrame) -> list[dict]:
    """Return the rows of a frame, checked."""
    missing = [name for name in ("symbol", "horizon", "value") if name not in frame]
    if missing:
        raise BadData(f"predictions lack the columns {missing}")
    ts = microseconds(frame.index)
    columns = {}
    for name in ("value", "lower", "upper"):
        try:
            column = frame[name] if name in frame else np.full(len(frame), np.nan)
            columns[name] = np.asarray(column, np.float64)
        except (TypeError, ValueError) as error:
            raise BadData(f"{name} is not a number: {error}") from error
    if not np.isfinite(columns["value"]).all():
        raise BadData("a predicted value is not finite")
    lower, upper = columns["lower"], columns["upper"]
    if ((lower > columns["value"]) | (upper < columns["value"])).any():
        raise BadData("a predicted value lies outside of its own bounds")
    horizon = np.asarray(frame["horizon"])
    if horizon.dtype.kind not in "iu" or (horizon < 1).any():
        raise BadData("horizon counts bars ahead: whole numbers from 1")
    bounds = [[None if x != x else x for x in part.tolist()] for part in (lower, upper)]
    return [
        {"symbol": str(name), "ts": at, "horizon": ahead}
        | {"value": value, "lower": low, "upper": high}
        for name, at, ahead, value, low, high in zip(
            frame["symbol"],
            ts.tolist(),
            horizon.tolist(),
            columns["value"].tolist(),
            *bounds,
            strict=True,
        )
    ]
