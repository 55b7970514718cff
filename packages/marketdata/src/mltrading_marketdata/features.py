"""Features: sets of named columns per symbol, in chunks as bars are."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
import pandas as pd
import sqlalchemy as sa

from . import interval as intervals
from .access import Access
from .changes import Changed
from .codec import CODEC, Columns, encode, gathered
from .errors import BadData, StoreError
from .merging import merge
from .tables import feature_chunk, feature_series, feature_set
from .times import as_index, microseconds, next_version, periods_of


class Features:
    """The feature sets of one database; who writes names the version of the code."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def sets(self) -> pd.DataFrame:
        """Return one row per feature set: name, version, columns (tuple of names)."""
        table = feature_set
        query = sa.select(table.c.name, table.c.version, table.c.columns)
        query = query.order_by(table.c.name, table.c.version)
        rows = self._access.read(lambda c: c.execute(query).all())
        return pd.DataFrame(
            {
                "name": pd.Series([row.name for row in rows], dtype="str"),
                "version": np.array([row.version for row in rows], np.int64),
                "columns": [tuple(json.loads(row.columns)) for row in rows],
            }
        )

    def upsert(
        self,
        name: str,
        symbol_id: int,
        interval: str,
        frame: pd.DataFrame,
        version: int,
    ) -> Changed:
        """Merge rows of a feature set for one symbol; see `Store.upsert_features`."""
        new = _columns(frame)
        names = [column for column in new if column != "ts"]
        with self._access.writing("Store.upsert_features") as c:
            self._access.lock(c, symbol_id)
            set_id = self._set(c, name, version, names)
            series_id, stamp = self._series(c, set_id, symbol_id, interval)
            counts = _merge(c, series_id, interval, new)
            if counts[0] or counts[1]:
                stamp = next_version(stamp)
                own = feature_series.c.id == series_id
                c.execute(feature_series.update().where(own).values(version=stamp))
        return Changed(*counts, version=stamp)

    def read(
        self,
        name: str,
        symbol_id: int,
        interval: str,
        first: int,
        last: int,
        columns: Iterable[str] | None,
        version: int | None,
    ) -> pd.DataFrame:
        """Return rows of a feature set; see `Store.features`."""
        found = self._access.read(lambda c: _find(c, name, version))
        if found is None:
            raise StoreError(
                f"no feature set {name!r}"
                + ("" if version is None else f" v{version}"),
                "write it first: store.upsert_features",
            )
        set_id, names = found
        wanted = names if columns is None else list(columns)
        unknown = [column for column in wanted if column not in names]
        if unknown:
            raise StoreError(f"feature set {name!r} has no {unknown}; it has {names}")
        chunks = feature_chunk
        query = (
            sa.select(chunks.c.n, chunks.c.codec, chunks.c.payload)
            .join_from(chunks, feature_series)
            .where(
                feature_series.c.set_id == set_id,
                feature_series.c.symbol_id == symbol_id,
                feature_series.c.interval == interval,
                *periods_of(chunks.c.period, first, last, interval),
            )
            .order_by(chunks.c.period)
        )
        rows = self._access.read(lambda c: [tuple(row) for row in c.execute(query)])
        held = gathered(rows, ("ts", *names), {"ts", *wanted})
        lower, upper = np.searchsorted(held["ts"], [first, last + 1])
        data = {column: held[column][lower:upper] for column in wanted}
        return pd.DataFrame(data, index=as_index(held["ts"][lower:upper]))

    def _set(
        self, c: sa.Connection, name: str, version: int, columns: list[str]
    ) -> int:
        """Return the set's id; it is made when it is new."""
        table, said = feature_set, json.dumps(columns)
        given = {"name": name, "version": version, "columns": said}
        c.execute(self._access.insert(table).values(**given).on_conflict_do_nothing())
        own = (table.c.name == name) & (table.c.version == version)
        found = c.execute(sa.select(table.c.id, table.c.columns).where(own)).one()
        if found.columns != said:
            raise BadData(
                f"feature set {name!r} v{version} has {found.columns}, not {said}",
                "other columns are another version: raise version=",
            )
        return found.id

    def _series(
        self, c: sa.Connection, set_id: int, symbol_id: int, interval: str
    ) -> tuple[int, int]:
        table = feature_series
        key = {"set_id": set_id, "symbol_id": symbol_id, "interval": interval}
        fresh = self._access.insert(table).values(**key, version=0)
        c.execute(fresh.on_conflict_do_nothing())
        own = [table.c[column] == value for column, value in key.items()]
        row = c.execute(sa.select(table.c.id, table.c.version).where(*own)).one()
        return row.id, row.version


def _find(
    c: sa.Connection, name: str, version: int | None
) -> tuple[int, list[str]] | None:
    table = feature_set
    query = sa.select(table.c.id, table.c.columns).where(table.c.name == name)
    if version is not None:
        query = query.where(table.c.version == version)
    row = c.execute(query.order_by(table.c.version.desc()).limit(1)).first()
    return None if row is None else (row.id, json.loads(row.columns))


def _columns(frame: pd.DataFrame) -> Columns:
    """Return a frame as columns with unique ascending `ts`; the last of equals wins."""
    ts = microseconds(frame.index)
    if not len(frame.columns):
        raise BadData("features need at least one column")
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names) or "ts" in names:
        raise BadData(f'feature columns must differ and not be "ts": {names}')
    try:
        values = [frame[name].to_numpy(np.float64, na_value=np.nan) for name in frame]
    except (TypeError, ValueError) as error:
        raise BadData(f"features hold a value that is not a number: {error}") from error
    backwards, at = np.unique(ts[::-1], return_index=True)
    rows = len(ts) - 1 - at
    return {"ts": backwards} | {
        name: column[rows] for name, column in zip(names, values, strict=True)
    }


def _merge(
    c: sa.Connection, series_id: int, interval: str, new: Columns
) -> tuple[int, int, int]:
    """Merge new rows into the chunks that they touch; return the three counts."""
    if not len(new["ts"]):
        return 0, 0, 0
    table, names = feature_chunk, list(new)
    first, last = int(new["ts"][0]), int(new["ts"][-1])
    own = table.c.series_id == series_id
    query = sa.select(table).where(
        own, *periods_of(table.c.period, first, last, interval)
    )
    stored = {
        row.period: gathered([(row.n, row.codec, row.payload)], names, names)
        for row in c.execute(query)
    }
    empty = gathered([], names, names)
    total = np.zeros(3, int)
    fresh = []
    for number, part in intervals.split(new, interval):
        merged, *done = merge(stored.get(number, empty), part)
        total += done
        if not done[0] and not done[1]:
            continue
        values = {"n": len(merged["ts"]), "codec": CODEC, "payload": encode(merged)}
        if number in stored:
            c.execute(
                table.update().where(own, table.c.period == number).values(values)
            )
        else:
            fresh.append({"series_id": series_id, "period": number} | values)
    if fresh:
        c.execute(table.insert(), fresh)
    return int(total[0]), int(total[1]), int(total[2])
