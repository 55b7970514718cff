"""Apply the migrations of this package, or print their SQL."""

from __future__ import annotations

import io
import itertools
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from . import indexes
from .engine import SQLITE_BUSY_S, WRITES, make_engine
from .errors import Unavailable, explain
from .revisions import MIGRATIONS, Observed, pending, shipped
from .schemas import LOCK_KEY
from .tables import metadata
from .url import Address

T = TypeVar("T")

# While a migration waits for a table's lock, readers that come later wait behind it: so
# it waits briefly, lets them through, and tries again.
_TURN_MS = 100
_TURNS = 80
# Building an index concurrently keeps nobody waiting, so it may wait for them longer.
_PATIENCE_S = 60
_POLL_S = 0.05


def migrate(address: Address, schema: str | None = None) -> list[str]:
    """Bring the database to the head of this release; return what was applied.

    What is pending is one transaction; a migration that says `concurrently = True`
    ends it and is run on its own, except where the database is still empty. One
    migrator at a time. On PostgreSQL a table's lock is waited for in short turns, so
    that readers never queue behind it for long; `schema` names one that is not in use.
    Raises Unavailable.
    """
    with _engine(address, schema) as engine:
        applied = _in_turns(engine, address, _upgrade)
        while following := _following(_current(engine)):
            if following in _marked():
                applied += _outside(engine, address, following)
            else:
                applied += _in_turns(engine, address, _upgrade)
        return applied


def sql(address: Address, observed: Observed) -> str:
    """Return the SQL that `migrate` would run, or "" when nothing is pending."""
    lacking = pending(observed)
    alone = _marked() if observed.current else frozenset()
    known = [observed.current or "base", *lacking]
    text = io.StringIO()
    for before, revision in itertools.pairwise(known):
        outside = revision in alone and address.dialect == "postgresql"
        config = _config(dialect=address.dialect, concurrently=outside)
        if address.dialect == "postgresql":
            wait = f"{_PATIENCE_S}s" if outside else f"{_TURN_MS}ms"
            text.write(f"SET lock_timeout = '{wait}';\n\n")
        config.output_buffer = text
        command.upgrade(config, f"{before}:{revision}", sql=True)
    return text.getvalue()


def drift(address: Address) -> list[str]:
    """Return how the database differs from `tables`, one line each; nothing is well.

    For a database at the head of this release. Views and functions are not compared.
    Raises Unavailable.
    """

    def look(connection: sa.Connection) -> list[str]:
        context = MigrationContext.configure(connection)
        found = [_told(one) for one in compare_metadata(context, metadata)]
        broken = indexes.invalid(connection)
        return found + [f"index {name} was not built to its end" for name in broken]

    with _engine(address) as engine, engine.connect() as connection:
        return look(connection)


def wait_for_lock(connection: sa.Connection, *, session: bool = False) -> None:
    """Wait until nobody else migrates, resets or restores; SQLite has one writer.

    It is asked for again and again: who waits inside the question holds a snapshot,
    and whoever builds an index concurrently would wait for that. Held to the end of
    the transaction, or of the session. Raises Unavailable.
    """
    if connection.dialect.name != "postgresql":
        return
    kind = "" if session else "xact_"
    question = f"SELECT pg_try_advisory_{kind}lock({LOCK_KEY})"
    until = time.monotonic() + _PATIENCE_S
    while not connection.exec_driver_sql(question).scalar():
        if time.monotonic() > until:
            raise Unavailable(
                "another migration, reset or restore is at work on this database",
                "wait for it, then run the same command again",
            )
        time.sleep(_POLL_S)


@contextmanager
def _engine(address: Address, schema: str | None = None) -> Iterator[sa.Engine]:
    """Give an engine of one connection that writes; explain what the driver says."""
    try:
        if address.dialect == "sqlite":
            _make_file(address)
        engine = make_engine(
            address, pool_size=1, pool_timeout_s=5, statement_timeout_s=0
        )
        if schema is not None:
            event.listen(engine, "connect", _search_in(schema))
        try:
            yield engine.execution_options(**{WRITES: True})
        finally:
            engine.dispose()
    except DBAPIError as error:
        raise explain(error.orig or error, address.where) from error
    except (OSError, sqlite3.Error) as error:
        raise explain(error, address.where) from error


def _search_in(schema: str) -> Callable[[Any, Any], None]:
    def set_path(connection: Any, _: Any) -> None:
        connection.execute(
            "SELECT set_config('search_path', quote_ident(%s), false)", [schema]
        )
        connection.commit()

    return set_path


def _in_turns(
    engine: sa.Engine, address: Address, work: Callable[[sa.Connection], T]
) -> T:
    """Do work in a transaction, again while another holds a lock that it needs."""
    for _ in range(_TURNS):
        try:
            with engine.begin() as connection:
                wait_for_lock(connection)
                if address.dialect == "postgresql":
                    wait = f"SET LOCAL lock_timeout = '{_TURN_MS}ms'"
                    connection.exec_driver_sql(wait)
                return work(connection)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != "55P03":
                raise
            # Readers that came meanwhile are served first. Jitter is no secret.
            time.sleep(_TURN_MS / 1000 * (1 + random.random()))  # nosec B311
    raise Unavailable(
        f"{address.where}: a table lock was not free in {_TURNS} turns",
        "stop long transactions (a dump, an open psql), then run it again",
    )


def _upgrade(connection: sa.Connection) -> list[str]:
    """Apply what is pending up to the first migration that runs alone."""
    before = MigrationContext.configure(connection).get_current_revision()
    if before is not None and before not in shipped():
        return []
    lacking = [one for one in shipped() if one > (before or "")]
    if before is not None and connection.dialect.name == "postgresql":
        alone = _marked()
        lacking = list(itertools.takewhile(lambda one: one not in alone, lacking))
    if lacking:
        command.upgrade(_config(connection=connection), lacking[-1])
    return lacking


def _outside(engine: sa.Engine, address: Address, revision: str) -> list[str]:
    """Apply one migration outside a transaction; return it, or nothing if it was."""
    with engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        wait_for_lock(connection, session=True)
        try:
            before = MigrationContext.configure(connection).get_current_revision()
            if before is not None and before >= revision:
                return []
            wait = f"SET lock_timeout = '{_PATIENCE_S}s'"
            connection.exec_driver_sql(wait)
            command.upgrade(_config(connection=connection, concurrently=True), revision)
            return [revision]
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != "55P03":
                raise
            raise Unavailable(
                f"{address.where}: {revision} builds an index, and a transaction that "
                f"is older did not end within {_PATIENCE_S} s",
                "end it (see pg_stat_activity), then run it again: it begins anew",
            ) from error
        finally:
            # The session may outlive us: a pool between us and the server keeps it.
            with suppress(DBAPIError):
                connection.exec_driver_sql(f"SELECT pg_advisory_unlock({LOCK_KEY})")


def _current(engine: sa.Engine) -> str | None:
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def _following(current: str | None) -> str:
    """Return the next pending revision, "" when none is."""
    if current is None or current not in shipped():
        return ""
    return next((one for one in shipped() if one > current), "")


def _marked() -> frozenset[str]:
    """Return the revisions that say `concurrently = True`."""
    script = ScriptDirectory.from_config(_config())
    return frozenset(
        one.revision
        for one in script.walk_revisions()
        if getattr(one.module, "concurrently", False)
    )


def _config(**attributes: object) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes.update(attributes)
    return config


def _told(difference: Sequence[Any]) -> str:
    """Return what alembic found in words: what the database lacks, has, or differs in.

    Changes of one column come as a list of tuples, all else as a tuple.
    """
    if isinstance(difference, list):
        return "; ".join(_told(one) for one in difference)
    kind, *parts = difference
    if kind.startswith("modify_"):
        _, table, column, _, there, wanted = parts
        what = kind.removeprefix("modify_")
        return f"{table}.{column}: {what} is {there!r}, not {wanted!r}"
    verb = "lacks the" if kind.startswith("add_") else "has besides the"
    what = kind.partition("_")[2].replace("_", " ")
    # A schema is None, a table in front of its column a text; the rest has a name.
    names = [getattr(part, "name", part) for part in parts if part is not None]
    return f"{verb} {what} {'.'.join(map(str, names))}"


def _make_file(address: Address) -> None:
    """Make folder and file, and set what SQLite keeps in the file itself."""
    address.file.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + SQLITE_BUSY_S
    with closing(sqlite3.connect(address.file, timeout=SQLITE_BUSY_S)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                # Here, and only here, SQLite does not wait for another process itself.
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.02)
