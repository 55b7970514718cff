"""A row for each bar, in the same engines, and how others read and write it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import psycopg
import sqlalchemy as sa

from mltrading_marketdata.codec import COLUMNS, Columns

from .made import columns

Query = Callable[[str], pd.DataFrame]

BARS = (
    "SELECT ts, open, high, low, close, volume FROM bar "
    "WHERE series_id = {series} ORDER BY ts"
)
PANEL = (
    "SELECT series_id, ts, close FROM bar "
    "WHERE series_id BETWEEN {first} AND {last} AND ts >= {since}"
)
TABLE = """
    CREATE TABLE {name} (
        series_id integer NOT NULL, ts {time} NOT NULL, open {real} NOT NULL,
        high {real} NOT NULL, low {real} NOT NULL, close {real} NOT NULL,
        volume bigint NOT NULL, PRIMARY KEY (series_id, ts)
    )
    """
MERGE = """
    MERGE INTO sent USING coming ON sent.series_id = coming.series_id
        AND sent.ts = coming.ts
    WHEN MATCHED AND (sent.open, sent.high, sent.low, sent.close, sent.volume)
        IS DISTINCT FROM
        (coming.open, coming.high, coming.low, coming.close, coming.volume)
        THEN UPDATE SET open = coming.open, high = coming.high, low = coming.low,
        close = coming.close, volume = coming.volume
    WHEN NOT MATCHED THEN INSERT VALUES (coming.series_id, coming.ts, coming.open,
        coming.high, coming.low, coming.close, coming.volume)
    """
_EPOCH_2000 = 946_684_800_000_000  # where PostgreSQL's timestamps begin


class PostgresRows:
    """Rows in PostgreSQL; times are timestamptz, as people keep them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = sa.create_engine(
            url.replace("postgresql://", "postgresql+psycopg://", 1)
        )
        with psycopg.connect(url) as c:
            for name in ("bar", "sent"):
                time = {"time": "timestamptz", "real": "float8"}
                c.execute(TABLE.format(name=name, **time))

    def close(self) -> None:
        self._engine.dispose()

    def fill(self, series: dict[int, pd.DataFrame]) -> None:
        """Write series one after the other, the best order for their readers."""
        with psycopg.connect(self.url, autocommit=True) as c:
            for number, frame in series.items():
                _copy(c, "bar", number, columns(frame))
            c.execute("VACUUM (ANALYZE, FREEZE) bar")

    def merge(self, bars: Columns) -> None:
        """Upsert bars into an empty table: COPY to the side, then MERGE."""
        with psycopg.connect(self.url) as c:
            c.execute("TRUNCATE sent")
            c.execute("CREATE TEMP TABLE coming (LIKE sent) ON COMMIT DROP")
            _copy(c, "coming", 1, bars)
            c.execute(MERGE)

    def read_sql(self, query: str) -> pd.DataFrame:
        with self._engine.connect() as c:
            return pd.read_sql(sa.text(query), c)

    def bytes(self) -> int:
        """Return what the table and its index take."""
        with psycopg.connect(self.url) as c:
            found = c.execute("SELECT pg_total_relation_size('bar')").fetchone()
            return int(found[0]) if found else 0

    @staticmethod
    def moment(ts: int) -> str:
        """Return microseconds as the database compares them."""
        return f"'{pd.Timestamp(ts, unit='us', tz='UTC').isoformat()}'"


class SqliteRows:
    """Rows in SQLite; times are microseconds in an integer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = sa.create_engine(f"sqlite:///{path}")
        # Without WAL: the peers bring a SQLite of their own, and two of them in one
        # process know nothing of each other's locks and cut the shared memory off.
        self._filled = _opened(path, "bar")
        self._sent = _opened(path.with_name("sent.db"), "sent")
        self._sent.execute("PRAGMA journal_mode=WAL")
        self._sent.execute("PRAGMA synchronous=NORMAL")

    def close(self) -> None:
        self._engine.dispose()
        self._filled.close()
        self._sent.close()

    def fill(self, series: dict[int, pd.DataFrame]) -> None:
        for number, frame in series.items():
            insert = "INSERT INTO bar VALUES (?,?,?,?,?,?,?)"
            _insert(self._filled, insert, number, frame)
        self._filled.execute("ANALYZE")
        self._filled.commit()

    def upsert(self, frame: pd.DataFrame) -> None:
        """Upsert bars into an empty table."""
        self._sent.execute("DELETE FROM sent")
        sets = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])
        _insert(
            self._sent,
            "INSERT INTO sent VALUES (?,?,?,?,?,?,?) "
            f"ON CONFLICT (series_id, ts) DO UPDATE SET {sets}",
            1,
            frame,
        )

    def read_sql(self, query: str) -> pd.DataFrame:
        with self._engine.connect() as c:
            return pd.read_sql(sa.text(query), c)

    @staticmethod
    def moment(ts: int) -> str:
        """Return microseconds as the database compares them."""
        return str(ts)


def _opened(path: Path, table: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    text = TABLE.format(name=table, time="integer", real="real")
    connection.execute(text.rstrip() + " WITHOUT ROWID")
    return connection


def _insert(
    connection: sqlite3.Connection, statement: str, number: int, frame: pd.DataFrame
) -> None:
    bars = columns(frame)
    lists = (bars[name].tolist() for name in COLUMNS)
    rows = zip([number] * len(frame), *lists, strict=True)
    with connection:
        connection.executemany(statement, rows)


def indexed(frame: pd.DataFrame) -> pd.DataFrame:
    """Return rows as the store returns bars: by time, UTC."""
    ts = frame.pop("ts")
    if ts.dtype.kind in "iu":
        index = pd.to_datetime(ts, unit="us", utc=True)
    else:
        index = pd.to_datetime(ts, utc=True)
    return frame.set_index(pd.DatetimeIndex(index, name="ts"))


def panelled(frame: pd.DataFrame) -> pd.DataFrame:
    """Return rows of several series as a panel: time by series."""
    return frame.pivot(index="ts", columns="series_id", values="close")


def _copy(c: psycopg.Connection, table: str, series: int, bars: Columns) -> None:
    """Send bars by COPY in its binary form, made by numpy: there is no cheaper way."""
    fields = [("fields", ">i2"), ("l0", ">i4"), ("series_id", ">i4")]
    for at, name in enumerate(COLUMNS):
        kind = ">i8" if name in ("ts", "volume") else ">f8"
        fields += [(f"l{at + 1}", ">i4"), (name, kind)]
    rows = np.empty(len(bars["ts"]), np.dtype(fields))
    rows["fields"], rows["l0"], rows["series_id"] = 7, 4, series
    for at, name in enumerate(COLUMNS):
        rows[f"l{at + 1}"] = 8
        rows[name] = bars[name] - (_EPOCH_2000 if name == "ts" else 0)
    head = b"PGCOPY\n\xff\r\n\0" + bytes(8)
    with (
        c.cursor() as cursor,
        cursor.copy(f"COPY {table} FROM STDIN (FORMAT binary)") as copy,
    ):
        copy.write(head + rows.tobytes() + b"\xff\xff")
