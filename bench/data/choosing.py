"""What the layouts cost that were considered: read, write, bytes, and plain SQL."""

from __future__ import annotations

import sqlite3
from typing import Any

import pandas as pd
import psycopg

from bench.data.cost import Cost, milliseconds, taking_turns
from bench.data.layouts import Layout, layouts, months, teach
from bench.data.made import MINUTES, columns
from bench.data.site import Site
from bench.run import figure
from mltrading_marketdata import open_store
from mltrading_marketdata.codec import COLUMNS, Columns
from ops.errors import StepFailed

Figures = list[dict[str, Any]]


def choose(site: Site, runs: int) -> Figures:
    """Write and read the same months in every layout, without a store around it."""
    bars = columns(site.minutes)
    figures: Figures = []
    with psycopg.connect(site.server.url, autocommit=True) as c:
        c.execute("CREATE DATABASE layouts TEMPLATE template0")
    with psycopg.connect(site.server.database("layouts"), autocommit=True) as c:
        teach(c)
        ways: list[_Postgres | _Sqlite] = [
            _Postgres(c, f"layout{at}", layout) for at, layout in enumerate(layouts())
        ]
        lite = sqlite3.connect(site.folder / "layouts.db")
        lite.execute("PRAGMA journal_mode=WAL")
        ways += [
            _Sqlite(lite, f"layout{at}", layout)
            for at, layout in enumerate(layouts())
            if layout.anywhere
        ]
        reads: dict[str, list[Cost]] = {way.name: [] for way in ways}
        writes: dict[str, list[Cost]] = {way.name: [] for way in ways}
        for number in range(runs + 1):
            for way in ways:
                way.begin()
                cost = site.meter.cost(lambda way=way: way.write(bars))
                read = site.meter.cost(way.read)
                if number:
                    writes[way.name].append(cost)
                    reads[way.name].append(read)
        for way in ways:
            if not all((way.read()[name] == bars[name]).all() for name in COLUMNS):
                raise StepFailed(f"{way.name} gives other bars back")
            what = f"layout {way.name}"
            figures.append(
                milliseconds(f"{what}: read {len(bars['ts']):,}", reads[way.name])
            )
            figures.append(milliseconds(f"{what}: write", writes[way.name]))
            size = way.bytes() / len(bars["ts"])
            figures.append(figure(f"{what}: size", [size], "bytes per bar"))
        lite.close()
    return figures + _sql(site, runs)


class _Postgres:
    """A layout in a table of its own."""

    def __init__(self, c: psycopg.Connection, table: str, layout: Layout) -> None:
        self.name = f"{layout.name}, PostgreSQL"
        self._c, self._table, self._layout = c, table, layout
        self._names = [f"c{at}" for at in range(len(layout.types))]
        typed = zip(self._names, layout.types, strict=True)
        listed = ", ".join(f"{name} {kind} NOT NULL" for name, kind in typed)
        c.execute(f"CREATE TABLE {table} (period int PRIMARY KEY, n int, {listed})")
        for name in self._names:
            c.execute(
                f"ALTER TABLE {table} ALTER COLUMN {name} SET STORAGE {layout.storage}"
            )

    def begin(self) -> None:
        self._c.execute(f"TRUNCATE {self._table}")

    def write(self, bars: Columns) -> None:
        rows = [(at, len(b["ts"]), *self._layout.pack(b)) for at, b in months(bars)]
        places = ", ".join(["%s", "%s", *["%b"] * len(self._names)])
        with self._c.transaction(), self._c.cursor() as cursor:
            cursor.executemany(f"INSERT INTO {self._table} VALUES ({places})", rows)

    def read(self) -> Columns:
        with self._c.cursor(binary=True) as cursor:
            listed = ", ".join(self._names)
            cursor.execute(f"SELECT n, {listed} FROM {self._table} ORDER BY period")
            return self._layout.unpack([(n, row) for n, *row in cursor])

    def bytes(self) -> int:
        found = self._c.execute(
            "SELECT pg_total_relation_size(%s)", (self._table,)
        ).fetchone()
        return int(found[0]) if found else 0


class _Sqlite:
    """A layout of one payload in a table of its own."""

    def __init__(self, c: sqlite3.Connection, table: str, layout: Layout) -> None:
        self.name = f"{layout.name}, SQLite"
        self._c, self._table, self._layout = c, table, layout
        c.execute(f"CREATE TABLE {table} (period INTEGER PRIMARY KEY, n, payload)")

    def begin(self) -> None:
        with self._c:
            self._c.execute(f"DELETE FROM {self._table}")

    def write(self, bars: Columns) -> None:
        rows = [(at, len(b["ts"]), *self._layout.pack(b)) for at, b in months(bars)]
        with self._c:
            self._c.executemany(f"INSERT INTO {self._table} VALUES (?, ?, ?)", rows)

    def read(self) -> Columns:
        query = f"SELECT n, payload FROM {self._table} ORDER BY period"
        return self._layout.unpack([(n, row) for n, *row in self._c.execute(query)])

    def bytes(self) -> int:
        query = f"SELECT sum(length(payload)) FROM {self._table}"
        return int(self._c.execute(query).fetchone()[0])


def _sql(site: Site, runs: int) -> Figures:
    """Ask for the mean close of a month of minutes in SQL: of chunks, and of arrays."""
    month = site.minutes.loc[str(site.minutes.index[-1])[:7]]
    url = site.empty("PostgreSQL")
    with open_store(url) as store:
        store.upsert_symbols(pd.DataFrame(index=[MINUTES]))
        store.upsert_bars(MINUTES, "1m", month, source="synthetic")
    with psycopg.connect(url, autocommit=True) as c:
        teach(c)
        arrays = next(each for each in layouts() if len(each.types) > 1)
        kept = _Postgres(c, "arrays", arrays)
        kept.write(columns(month))
        unnested = "unnest(c0, c1, c2, c3, c4, c5) AS bar (ts, o, h, l, close, v)"
        asked = {
            "the view on chunks": "SELECT count(*), avg(close) FROM bars",
            "float8[]": f"SELECT count(*), avg(close) FROM arrays, {unnested}",
        }
        answers = {name: c.execute(query).fetchone() for name, query in asked.items()}
        if len({f"{n} {mean:.6f}" for n, mean in answers.values()}) != 1:
            raise StepFailed(f"SQL gives different answers: {answers}")
        ways = {
            name: lambda query=query: c.execute(query).fetchall()
            for name, query in asked.items()
        }
        costs = taking_turns(site.meter, ways, runs)
    what = f"mean of {len(month):,} closes in SQL"
    return [milliseconds(f"{what}: {name}", each) for name, each in costs.items()]
