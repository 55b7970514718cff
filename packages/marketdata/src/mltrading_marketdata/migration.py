"""Apply the migrations of this package, or print their SQL."""

from __future__ import annotations

import io
import sqlite3
import time
from contextlib import closing

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy.exc import DBAPIError

from .engine import SQLITE_BUSY_S, WRITES, make_engine
from .errors import Unavailable, explain
from .revisions import MIGRATIONS, Observed, pending, shipped
from .url import Address

_LOCK_KEY = 0x4D4C4D49  # "MLMI"
_DDL_LOCK_MS = 250
_ATTEMPTS = 40


def migrate(address: Address, *, fresh: bool = False) -> list[str]:
    """Bring the database to the head of this release; return what was applied.

    All pending migrations and `fresh` (drop every table first) are one transaction. One
    migrator at a time; on PostgreSQL a table lock is waited for in short turns, so that
    readers never queue behind it for long. Raises Unavailable.
    """
    try:
        if address.dialect == "sqlite":
            _make_file(address)
        engine = make_engine(
            address, pool_size=1, pool_timeout_s=5, statement_timeout_s=0
        ).execution_options(**{WRITES: True})
        try:
            return _in_turns(engine, address, fresh)
        finally:
            engine.dispose()
    except DBAPIError as error:
        raise explain(error.orig or error, address.where) from error
    except (OSError, sqlite3.Error) as error:
        raise explain(error, address.where) from error


def sql(address: Address, observed: Observed) -> str:
    """Return the SQL that `migrate` would run, or "" when nothing is pending."""
    if not pending(observed):
        return ""
    text = io.StringIO()
    config = _config(dialect=address.dialect)
    config.output_buffer = text
    command.upgrade(config, f"{observed.current or 'base'}:head", sql=True)
    return text.getvalue()


def _in_turns(engine: sa.Engine, address: Address, fresh: bool) -> list[str]:
    for _ in range(_ATTEMPTS):
        try:
            with engine.begin() as connection:
                if address.dialect == "postgresql":
                    _wait_for_other_migrators(connection)
                return _upgrade(connection, fresh)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != "55P03":
                raise
            time.sleep(_DDL_LOCK_MS / 1000)
    raise Unavailable(
        f"{address.where}: a table lock was not free in {_ATTEMPTS} turns",
        "stop long transactions (a dump, an open psql), then run it again",
    )


def _wait_for_other_migrators(connection: sa.Connection) -> None:
    connection.exec_driver_sql("SET LOCAL lock_timeout = '60s'")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})")
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_DDL_LOCK_MS}ms'")


def _upgrade(connection: sa.Connection, fresh: bool) -> list[str]:
    if fresh:
        found = sa.inspect(connection).get_table_names()
        everything = sa.MetaData()
        everything.reflect(connection, only=found)
        everything.drop_all(connection)
    before = MigrationContext.configure(connection).get_current_revision()
    if before is not None and before not in shipped():
        return []
    command.upgrade(_config(connection=connection), "head")
    return [one for one in shipped() if one > (before or "")]


def _config(**attributes: object) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes.update(attributes)
    return config


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
