"""Watch an SQLAlchemy engine: a check, its pool, and how long each statement takes.

SQLAlchemy is no dependency of this package; whoever imports this module has it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from mltrading_health.checks import Health
from mltrading_health.queries import SLOW_S, Queries

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from mltrading_health.metrics import Metrics

#: What names a statement, if its execution option "query" does not.
VERBS = frozenset({"select", "insert", "update", "delete", "with", "call"})
_BEGAN = "mltrading_health.began"


def sqlalchemy(
    engine: Engine,
    health: Health,
    metrics: Metrics,
    name: str = "database",
    *,
    limit: int | None = None,
    timeout: float = 2.0,
    slow_s: float = SLOW_S,
) -> None:
    """Add the check ``name`` and measure what goes through ``engine``.

    The check borrows a connection of the engine's own pool; it waits ``timeout`` s and
    never twice at the same time. A statement is named by its first word, or by
    ``connection.execution_options(query="latest bars")``: what the code calls it.
    ``limit`` is the most connections of this process, by default size and overflow of
    the pool.
    """
    engine = getattr(engine, "sync_engine", engine)  # that of an AsyncEngine
    queries = Queries(metrics, slow_s=slow_s)
    most = _limit(engine.pool) if limit is None else limit

    def ping() -> None:
        with engine.connect() as connection:
            named = connection.execution_options(query=f"check {name}")
            named.exec_driver_sql("SELECT 1")

    health.check(name, ping, timeout=timeout, kind="datastore")

    @event.listens_for(engine, "before_cursor_execute")
    def begin(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        options = connection.get_execution_options()
        label = options.get("query") or _verb(statement)
        connection.info[_BEGAN] = label, time.perf_counter()

    @event.listens_for(engine, "after_cursor_execute")
    def end(connection: Any, *more: Any) -> None:
        _ended(queries, connection, "ok")

    @event.listens_for(engine, "handle_error")
    def fail(context: Any) -> None:
        error = context.sqlalchemy_exception or context.original_exception
        _ended(queries, context.connection, type(error).__name__)

    @event.listens_for(engine, "checkout")
    def take(*more: Any) -> None:
        queries.in_use.inc()
        if most:
            queries.most.set(most)

    @event.listens_for(engine, "checkin")
    @event.listens_for(engine, "detach")
    def give(*more: Any) -> None:
        queries.in_use.dec()


def _ended(queries: Queries, connection: Any, outcome: str) -> None:
    """Count a statement once; an error may come before there is one."""
    if connection is not None and not connection.invalidated:
        began = connection.info.pop(_BEGAN, None)
        if began is not None:
            queries.asked(began[0], time.perf_counter() - began[1], outcome)
            return
    if outcome != "ok":
        queries.failed.labels("connect", outcome).inc()


def _verb(statement: str) -> str:
    word = statement.lstrip()[:10].partition(" ")[0].lower()
    return word if word in VERBS else "other"


def _limit(pool: Any) -> int:
    """Return how many connections a pool gives at most, 0 if it has no bound."""
    size = getattr(pool, "size", None)
    overflow = getattr(pool, "_max_overflow", 0)
    most = size() if callable(size) else 0
    return most + overflow if most and overflow >= 0 else 0
