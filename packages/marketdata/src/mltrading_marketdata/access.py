"""Reach the database: read again when a connection was cut, write in a transaction."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from . import deadline, questions
from .engine import APPLICATION, WRITES, make_engine
from .errors import PoolExhausted, explain
from .hooks import SILENT, Hooks
from .url import Address

T = TypeVar("T")

WRITE_TIMEOUT_S = 60
# What the way there and back may take beside the statement: the server ends a slow
# statement itself, and a server that has not said so by then says nothing any more.
GRACE_S = 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.5
_LOCK_SPACE = 0x4D4C  # "ML": our corner of PostgreSQL's advisory locks
_LOCK = sa.select(
    sa.func.pg_advisory_xact_lock(
        sa.bindparam("space", type_=sa.Integer), sa.bindparam("key", type_=sa.Integer)
    )
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections a process has, and how long its threads wait; seconds.

    pool_size: connections, as many as threads that ask at once. pool_timeout_s: for a
    free one of them. statement_timeout_s: for one statement of a read, 0 is no limit;
    SQLite keeps none. deadline_s: for a read in all, with the tries after a cut.
    """

    pool_size: int = 5
    pool_timeout_s: float = 1.8
    statement_timeout_s: float = 30.0
    deadline_s: float = 10.0


class Access:
    """One database as a process reaches it: a pool, reads, transactions, locks.

    Safe for threads and for fork. Everything raises PoolExhausted, Unavailable or
    SchemaBehind when the database cannot answer.
    """

    def __init__(
        self,
        address: Address,
        limits: Limits | None = None,
        *,
        hooks: Hooks = SILENT,
        application: str = APPLICATION,
    ) -> None:
        self.address = address
        self.hooks = hooks
        self._limits = limits or Limits()
        self._engine = make_engine(
            address,
            pool_size=self._limits.pool_size,
            pool_timeout_s=self._limits.pool_timeout_s,
            statement_timeout_s=self._limits.statement_timeout_s,
            application=application,
            binary=True,
        )
        self._reader = self._engine
        if address.dialect == "postgresql":
            self._reader = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writer = self._engine.execution_options(**{WRITES: True})
        # Could it be reached since it was given up? A database that was never reached,
        # or is gone for long, is not waited for by everybody who comes.
        self._answers = False

    def close(self) -> None:
        """Close the idle connections; a later question opens new ones."""
        self._engine.dispose()

    def read(
        self,
        work: Callable[[sa.Connection], T],
        retry_s: float | None = None,
        *,
        name: str = "",
    ) -> T:
        """Return what `work` reads; it is called again when a connection was cut.

        The caller is free again after `retry_s` seconds (default: the deadline of the
        limits) with an answer or an error. It is asked once only when `retry_s` is 0,
        or when the database could not be reached since it was given up. `name` is what
        the hooks hear, by default the function that `work` was written in.
        """
        began = time.monotonic()
        patience = self._limits.deadline_s if retry_s is None else retry_s
        end, pause = began + patience, _FIRST_PAUSE_S
        name = name or work.__qualname__.partition(".<locals>")[0]
        with self._told(name, began):
            while True:
                try:
                    with deadline.waiting(end if patience else math.inf, self._each):
                        return self._ask(work)
                except DBAPIError as error:
                    reason = _worth_asking_again(error)
                    now = time.monotonic()
                    if not reason or not self._answers or now + pause > end:
                        if reason and patience:
                            self._answers = False
                        raise explain(error.orig or error, self.address.where) from (
                            error
                        )
                    self.hooks.retried(name, reason)
                # Not all at once: who was cut off together would come back together.
                time.sleep(pause * random.uniform(0.5, 1.0))  # nosec B311
                pause = min(pause * 2, _LONGEST_PAUSE_S)

    @contextmanager
    def writing(self, name: str = "write") -> Iterator[sa.Connection]:
        """Give a connection in a transaction that is committed when the block ends.

        `name` is what the hooks hear.
        """
        limit = f"SET LOCAL statement_timeout = '{WRITE_TIMEOUT_S}s'"
        with (
            self._told(name, time.monotonic()),
            deadline.waiting(math.inf, WRITE_TIMEOUT_S + GRACE_S),
        ):
            try:
                with self._connected(self._writer) as connection:
                    began = time.monotonic()
                    with connection.begin():
                        if self.address.dialect == "postgresql":
                            connection.exec_driver_sql(limit)
                        else:
                            self.hooks.locked(time.monotonic() - began)
                        yield connection
            except DBAPIError as error:
                raise explain(error.orig or error, self.address.where) from error

    def one_of(
        self, column: sa.ColumnElement[Any], values: Collection[Any]
    ) -> sa.ColumnElement[bool]:
        """Return `column IN values` with one parameter, however many values."""
        return questions.one_of(self.address.dialect, column, column.key or "", values)

    def listed(self, values: Collection[int] | Collection[str]) -> str:
        """Return values as the one parameter of `questions.one_of`."""
        return questions.listed(self.address.dialect, values)

    def lock(self, c: sa.Connection, key: int) -> None:
        """Wait for other writers of the same key; SQLite has one writer anyway."""
        if self.address.dialect == "postgresql":
            began = time.monotonic()
            c.execute(_LOCK, {"space": _LOCK_SPACE, "key": key})
            self.hooks.locked(time.monotonic() - began)

    def insert(self, table: sa.Table) -> Any:
        """Return the engine's own INSERT, which knows ON CONFLICT."""
        # Only the one in use: the other's modules are megabytes in every worker.
        own = import_module(f"sqlalchemy.dialects.{self.address.dialect}")
        return own.insert(table)

    @property
    def _each(self) -> float:
        """Return how long one answer of a read is awaited, in seconds."""
        limit = self._limits.statement_timeout_s
        return limit + GRACE_S if limit else math.inf

    def _ask(self, work: Callable[[sa.Connection], T]) -> T:
        with self._connected(self._reader) as connection:
            try:
                return work(connection)
            except DBAPIError as error:
                if _worth_asking_again(error) == "plan":
                    # The plan stays as long as the connection does.
                    connection.invalidate()
                raise

    @contextmanager
    def _connected(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        began = time.monotonic()
        try:
            connection = engine.connect()
        except PoolTimeout:
            raise PoolExhausted(
                f"all {self._limits.pool_size} connections to {self.address.where} "
                f"were busy for {self._limits.pool_timeout_s} s",
                "set DATABASE_POOL_SIZE to the number of threads of a worker",
            ) from None
        self._answers = True
        self.hooks.connected(time.monotonic() - began)
        self._count()
        try:
            with connection:
                yield connection
        finally:
            self._count()

    def _count(self) -> None:
        in_use = self._engine.pool.checkedout()  # type: ignore[attr-defined]
        self.hooks.pool(in_use, self._limits.pool_size)

    @contextmanager
    def _told(self, name: str, began: float) -> Iterator[None]:
        """Tell the hooks how what happens inside has ended."""
        outcome = "ok"
        try:
            yield
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            self.hooks.asked(name, time.monotonic() - began, outcome)


def _worth_asking_again(error: DBAPIError) -> str:
    """Return why asking again on a new connection can help, "" where it can't."""
    state = getattr(error.orig, "sqlstate", None)
    text = str(error.orig)
    if type(error.orig).__name__ == "Silent":
        return "silent"
    if error.connection_invalidated or state in ("57P01", "57P02", "57P03", "57P05"):
        return "cut"
    if state == "0A000" and "cached plan" in text:
        return "plan"
    refused = "authentication failed" in text, "exist" in text
    is_server = type(error.orig).__module__.startswith("psycopg")
    operational = isinstance(error, sa.exc.OperationalError)
    cut = is_server and operational and state is None and not any(refused)
    return "cut" if cut else ""
