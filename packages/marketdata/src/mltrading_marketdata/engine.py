"""Make the SQLAlchemy engine: pool, limits, and transactions that can write."""

from __future__ import annotations

import math
import os
import sqlite3
import time
from typing import Any
from urllib.parse import quote
from weakref import WeakSet

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.exc import InvalidatePoolError

from . import deadline
from .url import Address

# Set on an engine or connection: its transactions take the write lock at BEGIN.
WRITES = "marketdata_writes"
SQLITE_BUSY_S = 5.0
CONNECT_TIMEOUT_S = 3
# A connection that lay in the pool for longer is asked whether it lives. A read on one
# that was cut since is asked again anyway, and the question costs as much as a read.
PROBE_AFTER_S = 1.0
PROBE_S = 1.0
# The server ends a session that is not used for so long: a release that stands by
# leaves its connections to the one that serves.
IDLE_S = 300
APPLICATION = "mltrading"

_live: WeakSet[Engine] = WeakSet()
_left_to_the_parent: list[object] = []


def make_engine(
    address: Address,
    *,
    pool_size: int,
    pool_timeout_s: float,
    statement_timeout_s: float,
    application: str = APPLICATION,
    binary: bool = False,
) -> Engine:
    """Return an engine with a fixed number of connections, opened when needed.

    There is no overflow: `pool_size` x processes is what the server sees, under the
    name `application`. A connection that was idle is probed before use. A forked child
    gets an empty pool of its own and leaves the parent's connections alone.
    `statement_timeout_s` 0 means no limit; SQLite has none. `binary`: PostgreSQL sends
    values as they are; SQLAlchemy's own questions about tables can't be asked then.
    """
    options: dict = {
        "poolclass": QueuePool,
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_timeout": pool_timeout_s,
        # The last one given back is taken first, so that the others can be closed.
        "pool_use_lifo": True,
    }
    if address.dialect == "sqlite":
        engine = create_engine(
            "sqlite://", creator=lambda: connect_sqlite(address), **options
        )
        event.listen(engine, "begin", _begin)
    else:
        limits = {
            "statement_timeout": f"{int(statement_timeout_s * 1000)}",
            "idle_session_timeout": f"{IDLE_S}s",
        }
        engine = create_engine(
            address.sqlalchemy,
            connect_args={
                **({"cursor_factory": _binary_cursor()} if binary else {}),
                "connect_timeout": CONNECT_TIMEOUT_S,
                "application_name": application,
                "options": " ".join(f"-c {n}={value}" for n, value in limits.items()),
                # A prepared statement outlives a migration that changes its result.
                "prepare_threshold": None,
            },
            **options,
        )
        event.listen(engine, "do_connect", _connect_postgres)
        event.listen(engine, "checkin", _note_return)
        event.listen(engine, "checkout", _Probe(engine.dialect))
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


def _connect_postgres(_: Any, record: Any, args: list, options: dict) -> Any:
    # Only here: SQLite's users need no megabytes of psycopg.
    from .connection import Connection as PostgresConnection

    return PostgresConnection.connect(*args, **options)


def _note_return(_: Any, record: Any) -> None:
    record.info["returned"] = time.monotonic()


class _Probe:
    """Ask a connection that was idle whether it lives, before somebody gets it."""

    def __init__(self, dialect: sa.Dialect) -> None:
        self._dialect = dialect

    def __call__(self, connection: Any, record: Any, _: Any) -> None:
        returned = record.info.get("returned")
        if returned is None or time.monotonic() - returned < PROBE_AFTER_S:
            return
        try:
            with deadline.waiting(math.inf, PROBE_S):
                self._dialect.do_ping(connection)
        except self._dialect.loaded_dbapi.Error as error:
            # The pool opens a new one, and no other of that age is trusted.
            raise InvalidatePoolError() from error


def _begin(connection: Connection) -> None:
    # SQLite's own BEGIN is deferred: two such writers that have both read fail at
    # once with "database is locked", whatever the busy timeout is.
    if connection.get_execution_options().get(WRITES):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _forget_connections() -> None:
    for engine in _live:
        # Held, so that nothing closes them here: SQLite would take the parent's locks
        # for its own and tidy up under its feet.
        _left_to_the_parent.append(engine.pool)
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_connections)
