"""Which schema this release ships and which one a database has. Cheap to ask.

Revisions are numbered 0001, 0002, ... in one line. This module reads the names of the
migration files and the table alembic_version itself: importing alembic costs more than
the rest of a deploy's `prepare` that has nothing to do.
"""

from __future__ import annotations

import re
import sqlite3
import tomllib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from .errors import OutOfRange, Unavailable, explain
from .marker import Marker
from .url import Address

MIGRATIONS = Path(__file__).parent / "migrations"

State = Literal["empty", "behind", "current", "ahead", "foreign"]


@dataclass(frozen=True)
class Observed:
    """A database as found: revision, number of tables, whether it has series
    (all of them, when they come from a seed), what it says of itself.
    """

    current: str | None
    tables: int
    filled: bool
    marker: Marker | None = None


def shipped() -> list[str]:
    """Return the revisions in this package, oldest first."""
    return sorted(
        path.name[:4]
        for path in (MIGRATIONS / "versions").iterdir()
        if re.fullmatch(r"\d{4}_\w+\.py", path.name)
    )


def supported() -> tuple[str, str]:
    """Return the oldest and the newest revision that this release's code works on."""
    said = tomllib.loads((MIGRATIONS / "schema.toml").read_text())
    return said["min_supported"], said["max_supported"]


def state_of(observed: Observed) -> State:
    """Say how the database stands to this release.

    "ahead": a newer release has migrated it. "foreign": its tables are not ours.
    """
    if observed.tables == 0 and observed.current is None:
        return "empty"
    if observed.current is None or not re.fullmatch(r"\d{4}", observed.current):
        return "foreign"
    head = shipped()[-1]
    if observed.current == head:
        return "current"
    return "behind" if observed.current < head else "ahead"


def pending(observed: Observed) -> list[str]:
    """Return the shipped revisions that the database still lacks, oldest first."""
    return [one for one in shipped() if one > (observed.current or "")]


def refuse_out_of_range(
    observed: Observed, where: str, within: tuple[str, str] | None = None
) -> None:
    """Raise OutOfRange when a release could not work on what `prepare` would leave.

    `within`: the revisions on which every release that may get traffic works.
    """
    low, high = supported()
    if observed.current is not None and observed.current > high:
        raise OutOfRange(
            f"{where} is at {observed.current}, this release works on {low} to {high}",
            "deploy a newer release, or restore a backup that was made before",
        )
    head = shipped()[-1]
    if within and pending(observed) and not within[0] <= head <= within[1]:
        raise OutOfRange(
            f"{where} would come to {head}, releases that may get traffic work on "
            f"{within[0]} to {within[1]}",
            "deploy first, without that migration, a release that works on both",
        )


def observe(address: Address) -> Observed:
    """Look at the database; raise Unavailable when it cannot be read."""
    if address.dialect == "sqlite":
        return _observe_sqlite(address)
    return _observe_postgresql(address)


def _observe_sqlite(address: Address) -> Observed:
    try:
        if not address.file.exists() or address.file.stat().st_size == 0:
            return Observed(None, 0, False)
        uri = f"file:{quote(str(address.file))}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, timeout=5)) as c:
            names = c.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            return _look(c.execute, {row[0] for row in names})
    except (sqlite3.Error, OSError) as error:
        raise explain(error, address.where) from error


def _observe_postgresql(address: Address) -> Observed:
    import psycopg

    try:
        with psycopg.connect(address.libpq, connect_timeout=5, autocommit=True) as c:
            names = c.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
            )
            return _look(c.execute, {row[0] for row in names})
    except psycopg.Error as error:
        raise explain(error, address.where) from error


def _look(execute: Callable[[str], Any], tables: set[str]) -> Observed:
    current, filled, said = None, False, None
    if "alembic_version" in tables:
        current = execute("SELECT version_num FROM alembic_version").fetchone()
    if {"series", "meta"} <= tables:
        filled = execute("SELECT id FROM series LIMIT 1").fetchone() is not None
        # Set while a seed runs: one that was cut off is carried on, not taken for done.
        cut_off = "SELECT value FROM meta WHERE key = 'seeding' AND value <> ''"
        filled = filled and execute(cut_off).fetchone() is None
    if "meta" in tables:
        said = execute("SELECT value FROM meta WHERE key = 'environment'").fetchone()
    mark = Marker.parse(said[0]) if said else None
    return Observed(current[0] if current else None, len(tables), filled, mark)


def refuse_foreign(observed: Observed, where: str) -> None:
    """Raise Unavailable when the tables in the database are not ours."""
    if state_of(observed) == "foreign":
        raise Unavailable(
            f"{where} holds {observed.tables} tables that are not of this application",
            "give it an empty database of its own in DATABASE_URL",
        )
