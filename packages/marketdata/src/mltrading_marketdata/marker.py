"""What a database says of itself: whose it is, and whether its data can be lost.

One row of `meta`, so that it goes where the data goes: who points a variable at the
wrong server learns it from the server. Cheap to ask: no SQLAlchemy.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from .errors import Protected, StoreError, explain
from .url import Address

KEY = "environment"
KINDS = ("development", "staging", "production")
PRODUCTION = "production"
ONCE = "INSERT INTO meta (key, value) VALUES (%s, %s) ON CONFLICT (key) DO NOTHING"
ANEW = (
    "INSERT INTO meta (key, value) VALUES (%s, %s)"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)


@dataclass(frozen=True)
class Marker:
    """The environment that a database is of, and of which kind that is."""

    environment: str
    kind: str

    def __str__(self) -> str:
        return f"{self.environment} ({self.kind})"

    @property
    def text(self) -> str:
        """Return the value of the row."""
        return f"{self.environment} {self.kind}"

    @classmethod
    def parse(cls, text: str) -> Marker:
        """Read the row; what can't be read counts as production."""
        environment, _, kind = text.partition(" ")
        return cls(environment, kind if kind in KINDS else PRODUCTION)


def of(environ: Mapping[str, str]) -> Marker | None:
    """Return whose this process is: ENVIRONMENT and ENVIRONMENT_KIND, None without.

    Raises StoreError for a kind that there is not.
    """
    environment, kind = environ.get("ENVIRONMENT"), environ.get("ENVIRONMENT_KIND")
    if not environment or not kind:
        return None
    if kind not in KINDS or not environment.isprintable() or " " in environment:
        raise StoreError(
            f"ENVIRONMENT_KIND: {kind!r} of {environment!r} is not allowed",
            f"the kinds are: {', '.join(KINDS)}",
        )
    return Marker(environment, kind)


def refuse_other(there: Marker | None, mine: Marker | None, where: str) -> None:
    """Raise Protected where a database says that it is another environment's."""
    if there is not None and mine is not None and there != mine:
        raise Protected(
            f"{where} says that it is of {there}, not of {mine}",
            "check DATABASE_URL; where it was copied here on purpose: python -m "
            f"mltrading_marketdata mark {mine.text} --was {there.environment}",
        )


def guarded(there: Marker | None, mine: Marker | None) -> bool:
    """Say whether a database is production, by either, or another environment's."""
    kinds = {one.kind for one in (there, mine) if one is not None}
    others = there is not None and mine is not None and there != mine
    return PRODUCTION in kinds or others


def refuse_unasked(
    address: Address,
    there: Marker | None,
    mine: Marker | None,
    *,
    force: bool,
    name: str,
) -> None:
    """Raise Protected unless a database may be emptied or replaced.

    One that is `guarded` needs `force` and its own `name`.
    """
    if not guarded(there, mine):
        return
    said = there or mine
    if not force or name != address.name:
        typed = f"{name!r} is not its name" if force and name else f"it is of {said}"
        raise Protected(
            f"{address.where} is not emptied or replaced by mistake: {typed}",
            f"to do it all the same: --force --name {address.name}",
        )


def write(address: Address, marker: Marker, *, anew: bool = False) -> None:
    """Mark a database that has no marker yet, or, `anew`, whatever it has.

    Raises Unavailable, SchemaBehind.
    """
    words = ANEW if anew else ONCE
    if address.dialect == "sqlite":
        try:
            with closing(sqlite3.connect(address.file, timeout=5)) as c, c:
                c.execute(words.replace("%s", "?"), (KEY, marker.text))
        except sqlite3.Error as error:
            raise explain(error, address.where) from error
        return
    import psycopg

    try:
        with psycopg.connect(address.libpq, connect_timeout=5) as c:
            c.execute(words, (KEY, marker.text))
    except psycopg.Error as error:
        raise explain(error, address.where) from error
