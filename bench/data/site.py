"""The databases of a bench: ours, and rows beside them, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

import pandas as pd
import psycopg

from bench.data import made, peers
from bench.data.cost import Meter
from bench.data.made import MINUTES, Size
from bench.data.peers import Query
from bench.data.rows import PostgresRows, SqliteRows
from mltrading_marketdata import Store, open_store
from mltrading_marketdata.migration import migrate
from mltrading_marketdata.url import parse
from ops import report
from tests.postgres import Server

# Autovacuum and checkpoints come when they like, and would be counted to whoever is
# measured then. No parallel workers and no JIT: both cost more processor time in all.
SETTINGS = (
    "shared_buffers=1GB",
    "autovacuum=off",
    "checkpoint_timeout=1d",
    "max_wal_size=32GB",
    # Or a note of who runs is written to the log every few seconds.
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_parallel_workers_per_gather=0",
    "jit=off",
)
ENGINES = ("SQLite", "PostgreSQL")


class Site:
    """Everything that is asked; it is filled when it is first needed."""

    def __init__(
        self, folder: Path, server: Server, size: Size, missing: dict[str, str]
    ) -> None:
        self.folder = folder
        self.server = server
        self.size = size
        self.missing = missing
        self.meter = Meter(server)
        self._stack = ExitStack()
        self._numbers = 0

    def close(self) -> None:
        self._stack.close()

    def empty(self, engine: str) -> str:
        """Return the URL of a new database with our tables."""
        self._numbers += 1
        name = f"market{self._numbers}"
        if engine == "SQLite":
            url = f"sqlite:///{self.folder / name}.db"
        else:
            with psycopg.connect(self.server.url, autocommit=True) as c:
                c.execute(f"CREATE DATABASE {name} TEMPLATE template0")
            url = self.server.database(name)
        migrate(parse(url))
        return url

    def open(self, url: str) -> Store:
        """Open a store that is closed with the site; no statement is too slow."""
        return self._stack.enter_context(open_store(url))

    def server_version(self) -> str:
        with psycopg.connect(self.server.url) as c:
            return str(c.execute("SHOW server_version").fetchone()[0])

    def settle(self, url: str) -> None:
        """Have PostgreSQL do now what it would do at a moment of its own."""
        if url.startswith("postgresql"):
            with psycopg.connect(url, autocommit=True) as c:
                c.execute("VACUUM (ANALYZE, FREEZE)")
                c.execute("CHECKPOINT")

    @cached_property
    def minutes(self) -> pd.DataFrame:
        return made.minutes(self.size.minutes)

    @cached_property
    def days(self) -> dict[str, pd.DataFrame]:
        return made.days(self.size.symbols, self.size.days)

    @cached_property
    def numbered(self) -> dict[int, pd.DataFrame]:
        """Return the daily series as the rows name them: 1, 2, …; minutes are 0."""
        return dict(enumerate(self.days.values(), 1))

    @cached_property
    def urls(self) -> dict[str, str]:
        """Return our two databases by engine, filled."""
        urls = {engine: self.empty(engine) for engine in ENGINES}
        for engine, url in urls.items():
            report.say(f"  filling {engine}")
            with open_store(url) as store:
                store.upsert_symbols(pd.DataFrame(index=[MINUTES, *self.days]))
                store.upsert_bars(MINUTES, "1m", self.minutes, source="synthetic")
                for name, frame in self.days.items():
                    store.upsert_bars(name, "1d", frame, source="synthetic")
            self.settle(url)
        return urls

    @cached_property
    def stores(self) -> dict[str, Store]:
        return {engine: self.open(url) for engine, url in self.urls.items()}

    def cold(self, engine: str) -> Callable[[], Store]:
        """Return what gives a store that remembers nothing, on a connection that is."""
        access = self.stores[engine].access
        return lambda: Store(access, cache_ttl_s=900.0)

    @cached_property
    def postgres_rows(self) -> PostgresRows:
        report.say("  filling rows in PostgreSQL")
        with psycopg.connect(self.server.url, autocommit=True) as c:
            c.execute("CREATE DATABASE rows TEMPLATE template0")
        rows = PostgresRows(self.server.database("rows"))
        self._stack.callback(rows.close)
        rows.fill({0: self.minutes, **self.numbered})
        return rows

    @cached_property
    def sqlite_rows(self) -> SqliteRows:
        report.say("  filling rows in SQLite")
        rows = SqliteRows(self.folder / "rows.db")
        self._stack.callback(rows.close)
        rows.fill({0: self.minutes, **self.numbered})
        return rows

    @cached_property
    def asking(self) -> dict[str, dict[str, Query]]:
        """Return by engine how others ask for rows: read_sql, and the peers."""
        return {
            "SQLite": {"read_sql": self.sqlite_rows.read_sql}
            | peers.of_sqlite(self.sqlite_rows.path, self.missing),
            "PostgreSQL": {"read_sql": self.postgres_rows.read_sql}
            | peers.of_postgres(self.postgres_rows.url, self.missing),
        }

    @cached_property
    def duck(self) -> peers.Duck | None:
        if "DuckDB" in self.missing:
            return None
        report.say("  filling DuckDB")
        duck = peers.Duck(self.folder / "bars.duckdb")
        self._stack.callback(duck.close)
        duck.fill(peers.table({0: self.minutes, **self.numbered}))
        return duck

    @cached_property
    def parquet(self) -> peers.Parquet:
        files = peers.Parquet(self.folder)
        files.fill(peers.table({0: self.minutes}), peers.table(self.numbered))
        return files


@contextmanager
def built(
    folder: Path, server: Server, size: Size, missing: dict[str, str]
) -> Iterator[Site]:
    """Give a site on a server, which is restarted with the settings of a bench."""
    server.restart(*SETTINGS)
    site = Site(folder, server, size, missing)
    try:
        yield site
    finally:
        site.close()
