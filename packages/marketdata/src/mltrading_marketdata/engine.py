"""Make the SQLAlchemy engine: pool, limits, and transactions that can write."""

from __future__ import annotations

import os
import sqlite3
from typing import Any
from urllib.parse import quote
from weakref import WeakSet

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event

from .url import Address

# Set on an engine or connection: its transactions take the write lock at BEGIN.
WRITES = "marketdata_writes"
SQLITE_BUSY_S = 5.0
CONNECT_TIMEOUT_S = 3

_live: WeakSet[Engine] = WeakSet()


def make_engine(
    address: Address,
    *,
    pool_size: int,
    pool_timeout_s: float,
    statement_timeout_s: float,
    binary: bool = False,
) -> Engine:
    """Return an engine with a fixed number of connections, opened when needed.

    There is no overflow: `pool_size` x processes is what the server sees. Each
    connection is probed before use. A forked child gets an empty pool of its own and
    leaves the parent's connections alone. `statement_timeout_s` 0 means no limit;
    SQLite has none. `binary`: PostgreSQL sends values as they are; SQLAlchemy's own
    questions about tables can't be asked then.
    """
    options: dict = {
        "poolclass": QueuePool,
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_timeout": pool_timeout_s,
        "pool_pre_ping": True,
    }
    if address.dialect == "sqlite":
        engine = create_engine(
            "sqlite://", creator=lambda: connect_sqlite(address), **options
        )
        event.listen(engine, "begin", _begin)
    else:
        engine = create_engine(
            address.sqlalchemy,
            connect_args={
                **({"cursor_factory": _binary_cursor()} if binary else {}),
                "connect_timeout": CONNECT_TIMEOUT_S,
                "application_name": "mltrading",
                "options": f"-c statement_timeout={int(statement_timeout_s * 1000)}",
                # A prepared statement outlives a migration that changes its result.
                "prepare_threshold": None,
            },
            **options,
        )
    _live.add(engine)
    return engine


def _binary_cursor() -> type:
    """Return a cursor to which the server sends bytes as they are, not as hex."""
    import psycopg
    from psycopg.pq import Format

    class BinaryCursor(psycopg.Cursor):
        def __init__(self, connection: psycopg.Connection, **options: Any) -> None:
            super().__init__(connection, **options)
            self.format = Format.BINARY

    return BinaryCursor


def connect_sqlite(address: Address) -> sqlite3.Connection:
    """Open an existing file; a missing one is an error, never a new empty database."""
    connection = sqlite3.connect(
        f"file:{quote(str(address.file))}?mode=rw",
        uri=True,
        timeout=SQLITE_BUSY_S,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _begin(connection: Connection) -> None:
    # SQLite's own BEGIN is deferred: two such writers that have both read fail at
    # once with "database is locked", whatever the busy timeout is.
    if connection.get_execution_options().get(WRITES):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _forget_connections() -> None:
    for engine in _live:
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_connections)
