"""Set the database aside for an empty one, or for another, and take that back.

What was set aside is kept whole: on PostgreSQL as the schema trash_<time>, for SQLite
as the file NAME.trash-<time> beside the database. So a reset is undone in a moment.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from . import files, marker, revisions, schemas
from .errors import StoreError, explain
from .marker import Marker
from .revisions import Observed
from .url import Address

_STAMP = "%Y%m%dt%H%M%Sz"


@dataclass(frozen=True)
class Trash:
    """What was set aside: the name to call it by, and when that was (UTC)."""

    name: str
    at: datetime

    def as_json(self) -> dict[str, Any]:
        """Return plain values; `at` in seconds since 1970 UTC."""
        return {"name": self.name, "at": self.at.timestamp()}


def listed(address: Address) -> list[Trash]:
    """Return what is set aside, newest first. Raises Unavailable."""
    if address.dialect == "postgresql":
        with schemas.connected(address) as c:
            return [Trash(*found) for found in schemas.listed(c, schemas.TRASH)]
    found = []
    for path in _beside(address, "trash-*"):
        with suppress(ValueError):
            text = path.name.removeprefix(f"{address.name}.trash-")
            at = datetime.strptime(text, _STAMP).replace(tzinfo=UTC)
            found.append(Trash(f"trash_{text}", at))
    return sorted(found, key=lambda one: one.at, reverse=True)


def reset(address: Address, *, mark: Marker | None = None) -> dict[str, Any]:
    """Put an empty database of this release in the place of what is there.

    Returns `applied`, `aside` (the name of what was there) and `schema`. What the
    database said of itself stays; `mark` is for one that said nothing. Raises
    StoreError, and has changed nothing then.
    """
    # Not on top: alembic costs more than all else that asks this module.
    from .migration import migrate

    if address.dialect == "postgresql":
        with schemas.connected(address) as c:
            name = schemas.make(c)
        applied = migrate(address, name)
        done = enter_schema(address, name, mark=mark, discard=True)
    else:
        with _scratch(address) as there:
            applied = migrate(there)
            done = enter_file(address, there, mark=mark)
    return done | {"applied": applied}


def undo(
    address: Address,
    name: str = "",
    *,
    mark: Marker | None = None,
    within: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """Take back what was set aside last, or what is called `name`.

    What is there now is set aside for it. Returns `undone` (the name), `aside`,
    `applied` and `schema`. Raises StoreError, and has changed nothing then.
    """
    kept = listed(address)
    chosen = next((one for one in kept if name in ("", one.name)), None)
    if chosen is None:
        names = ", ".join(one.name for one in kept)
        raise StoreError(
            f"{address.where}: {name or 'nothing'} is set aside",
            f"there is: {names}" if names else "restore a backup",
        )
    done = {"undone": chosen.name}
    if address.dialect == "postgresql":
        return done | enter_schema(address, chosen.name, mark=mark, within=within)
    aside = _file(address, chosen.name)
    with _scratch(address) as there:
        with _explaining(address):
            files.copy(aside, there.file, prove=False)
        done |= enter_file(address, there, mark=mark, within=within)
    files.discard(aside)
    return done


def empty(address: Address, *, older_than: timedelta) -> list[str]:
    """Remove for good what is aside for longer; return the names.

    And what a killed reset or restore has left, once nobody can be at it any more.
    Raises StoreError.
    """
    now = datetime.now(UTC)
    old = [one.name for one in listed(address) if one.at <= now - older_than]
    left = now - min(older_than, timedelta(hours=1))
    if address.dialect == "sqlite":
        with _explaining(address):
            return _empty_folder(address, old, now - older_than, left)
    with schemas.connected(address) as c:
        kind = schemas.INCOMING
        old += [name for name, at in schemas.listed(c, kind) if at <= left]
        for name in old:
            schemas.drop(c, name)
    return old


def _empty_folder(
    address: Address, old: list[str], limit: datetime, left: datetime
) -> list[str]:
    for name in old:
        files.discard(_file(address, name))
    removed = list(old)
    folder, damaged = address.file.parent, f"{address.name}.damaged-*"
    for pattern, before in ((f".{address.name}.*", left), (damaged, limit)):
        for path in folder.glob(pattern):
            if datetime.fromtimestamp(path.stat().st_mtime, UTC) <= before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                removed.append(path.name)
    return removed


def enter_file(
    address: Address,
    there: Address,
    *,
    mark: Marker | None = None,
    within: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """Bring a file to this release, and put what it holds in the place of ours.

    Raises StoreError, and has changed nothing then.
    """
    applied, schema = _made_fit(there, revisions.observe(there), None, within)
    at = datetime.now(UTC)
    while _file(address, f"trash_{at:{_STAMP}}").exists():
        at += timedelta(seconds=1)
    aside = _file(address, f"trash_{at:{_STAMP}}")
    try:
        said = revisions.observe(address).marker or mark
        sound = address.file.exists() and address.file.stat().st_size > 0
    except StoreError:
        said, sound = mark, False
    if said is not None:
        marker.write(there, said, anew=True)
    done = {"applied": applied, "schema": schema, "database": address.name}
    if sound:
        with _explaining(address):
            files.replace(address.file, there.file, aside)
        return done | {"aside": f"trash_{at:{_STAMP}}", "reopen": False}
    # There is none, or nobody can read it: it makes way, damaged as it is.
    with _explaining(address):
        _give_way(address, there.file)
    return done | {"aside": "", "reopen": True}


def enter_schema(
    address: Address,
    name: str,
    *,
    mark: Marker | None = None,
    within: tuple[str, str] | None = None,
    discard: bool = False,
) -> dict[str, Any]:
    """Bring a schema to this release, and give it the place of the one in use.

    `discard`: it was made for this, and is dropped if it can't. Raises StoreError, and
    has changed nothing then.
    """
    try:
        with schemas.connected(address) as c:
            current = schemas.revision(c, name)
        applied, schema = _made_fit(address, Observed(current, 1, False), name, within)
        with schemas.connected(address) as c:
            aside = schemas.exchange(c, address, name, mark)
    except BaseException:
        if discard:
            with suppress(StoreError), schemas.connected(address) as c:
                schemas.drop(c, name)
        raise
    done = {"applied": applied, "schema": schema, "database": address.name}
    return done | {"aside": aside, "reopen": False}


def _made_fit(
    there: Address, observed: Observed, name: str | None, within: tuple[str, str] | None
) -> tuple[list[str], str | None]:
    """Migrate what is to come into use; return what was applied and where it is."""
    revisions.refuse_foreign(observed, there.where)
    revisions.refuse_out_of_range(observed, there.where, within)
    if not revisions.pending(observed):
        return [], observed.current
    from .migration import migrate

    applied = migrate(there, name)
    return applied, revisions.shipped()[-1]


def _give_way(address: Address, new: Path) -> None:
    """Move a damaged file out of the way and put a whole one there."""
    at = datetime.now(UTC)
    if address.file.exists():
        damaged = f"{address.name}.damaged-{at:{_STAMP}}"
        address.file.replace(address.file.with_name(damaged))
    files.discard(address.file)
    files.copy(new, address.file, prove=False)
    with sqlite3.connect(address.file, timeout=5) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    connection.close()


@contextmanager
def _scratch(address: Address) -> Iterator[Address]:
    """Give a database file on the same disk that is gone when the block ends."""
    try:
        address.file.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(
            prefix=f".{address.name}.new-", dir=address.file.parent
        )
    except OSError as error:
        raise explain(error, address.where) from error
    with folder as name:
        path = Path(name) / address.name
        yield Address("sqlite", str(path), path)


@contextmanager
def _explaining(address: Address) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise explain(error, address.where) from error


def _beside(address: Address, pattern: str) -> list[Path]:
    return list(address.file.parent.glob(f"{address.name}.{pattern}"))


def _file(address: Address, name: str) -> Path:
    """Return the file that holds what is called trash_<time>."""
    text = name.removeprefix("trash_")
    return address.file.with_name(f"{address.name}.trash-{text}")
