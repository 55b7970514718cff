"""Reach the database: read again when a connection was cut, write in a transaction."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from .engine import WRITES, make_engine
from .errors import PoolExhausted, explain
from .url import Address

T = TypeVar("T")

RETRY_S = 3.0
WRITE_TIMEOUT_S = 60
_LOCK_SPACE = 0x4D4C  # "ML": our corner of PostgreSQL's advisory locks


class Access:
    """One database as a process reaches it: a pool, reads, transactions, locks.

    Safe for threads and for fork. Everything raises PoolExhausted, Unavailable or
    SchemaBehind when the database cannot answer.
    """

    def __init__(
        self,
        address: Address,
        *,
        pool_size: int,
        pool_timeout_s: float,
        statement_timeout_s: float,
    ) -> None:
        self.address = address
        self._pool_timeout_s = pool_timeout_s
        self._pool_size = pool_size
        self._engine = make_engine(
            address,
            pool_size=pool_size,
            pool_timeout_s=pool_timeout_s,
            statement_timeout_s=statement_timeout_s,
            binary=True,
        )
        self._reader = self._engine
        if address.dialect == "postgresql":
            self._reader = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writer = self._engine.execution_options(**{WRITES: True})

    def close(self) -> None:
        """Close the idle connections; a later question opens new ones."""
        self._engine.dispose()

    def read(self, work: Callable[[sa.Connection], T], retry_s: float = RETRY_S) -> T:
        """Return what `work` reads; it is called again when a connection was cut."""
        deadline = time.monotonic() + retry_s
        pause = 0.05
        while True:
            try:
                with self._reader.connect() as connection:
                    return work(connection)
            except PoolTimeout:
                raise self._exhausted() from None
            except DBAPIError as error:
                if not _cut_off(error) or time.monotonic() + pause > deadline:
                    raise explain(error.orig or error, self.address.where) from error
            time.sleep(pause)
            pause = min(pause * 2, 0.5)

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Give a connection in a transaction that is committed when the block ends."""
        try:
            with self._writer.begin() as connection:
                if self.address.dialect == "postgresql":
                    connection.exec_driver_sql(
                        f"SET LOCAL statement_timeout = '{WRITE_TIMEOUT_S}s'"
                    )
                yield connection
        except PoolTimeout:
            raise self._exhausted() from None
        except DBAPIError as error:
            raise explain(error.orig or error, self.address.where) from error

    def one_of(
        self, column: sa.ColumnElement[Any], values: Collection[Any]
    ) -> sa.ColumnElement[bool]:
        """Return `column IN values` with one parameter, however many values."""
        if self.address.dialect == "postgresql":
            return column == sa.any_(sa.literal(list(values), sa.ARRAY(column.type)))
        each = sa.func.json_each(json.dumps(list(values))).table_valued("value")
        return column.in_(sa.select(each.c.value))

    def lock(self, c: sa.Connection, key: int) -> None:
        """Wait for other writers of the same key; SQLite has one writer anyway."""
        if self.address.dialect == "postgresql":
            c.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_SPACE, key)))

    def insert(self, table: sa.Table) -> Any:
        """Return the engine's own INSERT, which knows ON CONFLICT."""
        # Only the one in use: the other's modules are megabytes in every worker.
        own = import_module(f"sqlalchemy.dialects.{self.address.dialect}")
        return own.insert(table)

    def _exhausted(self) -> PoolExhausted:
        return PoolExhausted(
            f"all {self._pool_size} connections to {self.address.where} were busy "
            f"for {self._pool_timeout_s} s",
            "set pool_size to the number of threads of a worker",
        )


def _cut_off(error: DBAPIError) -> bool:
    """Say whether asking again on a new connection can help."""
    state = getattr(error.orig, "sqlstate", None)
    if error.connection_invalidated or state in ("57P01", "57P02", "57P03"):
        return True
    refused = "authentication failed" in str(error.orig), "exist" in str(error.orig)
    is_server = type(error.orig).__module__.startswith("psycopg")
    operational = isinstance(error, sa.exc.OperationalError)
    return is_server and operational and state is None and not any(refused)
