"""Copy the whole database to one file, prove the copy, and put it back.

SQLite: the online backup API, so readers and writers go on. PostgreSQL: pg_dump,
pg_restore and psql; where and who travels in PG* variables, never in argv. Beside a
backup lies FILE.json: what it holds, of which database, and its sha256.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import files, revisions, schemas
from .contents import Contents, of_sqlite
from .errors import StoreError, explain
from .marker import Marker
from .trash import enter_file, enter_schema
from .url import Address, Dialect


@dataclass(frozen=True)
class Backup:
    """A backup file and what is known of it.

    `at` is when it was begun, seconds since 1970 UTC; `schema` the revision, `marker`
    what the database said of itself. `proved`: it was restored and compared.
    """

    path: Path
    bytes: int
    sha256: str
    at: float
    database: str
    dialect: Dialect
    schema: str | None
    marker: str
    contents: Contents
    proved: bool

    def as_json(self) -> dict[str, Any]:
        """Return plain values, `backup` being the path."""
        return {
            "backup": str(self.path),
            "bytes": self.bytes,
            "sha256": self.sha256,
            "at": self.at,
            "database": self.database,
            "dialect": self.dialect,
            "schema": self.schema,
            "marker": self.marker,
            "rows": self.contents.rows,
            "contents": self.contents.as_json(),
            "proved": self.proved,
        }

    @classmethod
    def parse(cls, path: Path, text: str) -> Backup:
        """Read what lies beside a backup. Raises ValueError."""
        try:
            said = json.loads(text)
            return cls(
                path,
                int(said["bytes"]),
                str(said["sha256"]),
                float(said["at"]),
                str(said["database"]),
                said["dialect"],
                said["schema"],
                str(said["marker"]),
                Contents.from_json(said["contents"]),
                bool(said["proved"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{error!r} is not as it should be") from None


def backup(address: Address, path: Path, *, prove: bool = True) -> Backup:
    """Write a backup to `path` (its folder is made) and return what is known of it.

    `prove`: it is restored, undone again, and what came back is compared with what the
    database held, table by table. Without it the file is only read to its end. The
    file appears whole or not at all. Raises Unavailable, StoreError.
    """
    at = round(time.time(), 3)
    observed = revisions.observe(address)
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        contents = _write(address, partial, prove)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
            sha256 = hashlib.file_digest(written, "sha256").hexdigest()
        made = Backup(
            path,
            partial.stat().st_size,
            sha256,
            at,
            address.name,
            address.dialect,
            observed.current,
            observed.marker.text if observed.marker else "",
            contents,
            prove or address.dialect == "sqlite",
        )
        # First what is known: then no backup is without it.
        _note(beside(path), json.dumps(made.as_json()))
        partial.replace(path)
    except (OSError, sqlite3.Error) as error:
        raise explain(error, f"{address.where} -> {path}") from error
    finally:
        partial.unlink(missing_ok=True)
    return made


def known(path: Path) -> Backup | None:
    """Return what is known of a backup, None where nothing lies beside it.

    Raises StoreError where that can't be read, or is of another file.
    """
    try:
        found = Backup.parse(path, beside(path).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{beside(path)} can't be read: {error}",
            "remove it to restore the file without it",
        ) from error
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != found.sha256:
        raise StoreError(
            f"{path} is damaged: its sha256 is {sha256[:12]}…, not "
            f"{found.sha256[:12]}… as when it was written",
            "use another backup",
        )
    return found


def beside(path: Path) -> Path:
    """Return where lies what is known of a backup."""
    return path.with_name(f"{path.name}.json")


def restore(
    address: Address,
    path: Path,
    *,
    mark: Marker | None = None,
    within: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """Put a backup in the place of the database; return what was done.

    It is restored beside the database, compared with what is known of it, and migrated
    to this release; then both change places at once, so who reads sees one or the
    other. What the database said of itself stays; `mark` is for one that said nothing.
    Raises StoreError for a file that is no sound backup, Unavailable, OutOfRange; the
    database is as it was then.
    """
    if not path.is_file():
        raise StoreError(f"no such backup: {path}", "give the file that `backup` wrote")
    try:
        about = known(path)
        _refuse_kind(address, path)
        if address.dialect == "sqlite":
            return _restore_file(address, path, about, mark, within)
        return _restore_schema(address, path, about, mark, within)
    except (OSError, sqlite3.Error) as error:
        raise explain(error, f"{path} -> {address.where}") from error


def _write(address: Address, partial: Path, prove: bool) -> Contents:
    if address.dialect == "sqlite":
        found = files.copy(address.file, partial)
        assert found is not None  # nosec B101
        return found
    found, _ = schemas.dump(address, partial)
    if prove:
        schemas.load(address, partial, found, keep=False)
    else:
        words = ("-f", os.devnull, str(partial))
        schemas.run(address, "pg_restore", *words, reads=partial)
    return found


def _note(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}.partial")
    scratch.write_text(text)
    scratch.replace(path)


def _refuse_kind(address: Address, path: Path) -> None:
    """Raise StoreError where a file is of the other engine, or of none."""
    with path.open("rb") as file:
        head = file.read(16)
    wanted, others = files.HEADER, schemas.HEADER
    if address.dialect == "postgresql":
        wanted, others = others, wanted
    if not head.startswith(wanted):
        of = "of another kind of database" if head.startswith(others) else "no backup"
        raise StoreError(
            f"{path} is {of}; {address.where} is {address.dialect}",
            "give the file that `backup` wrote",
        )


def _restore_file(
    address: Address,
    path: Path,
    about: Backup | None,
    mark: Marker | None,
    within: tuple[str, str] | None,
) -> dict[str, Any]:
    address.file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{address.name}.new-", dir=address.file.parent
    ) as folder:
        new = Path(folder) / address.name
        files.copy(path, new, prove=False)
        with closing(sqlite3.connect(new, timeout=5)) as connection:
            files.verify(connection, path)
            wrong = about.contents.differs(of_sqlite(connection)) if about else ""
        if wrong:
            raise StoreError(f"{path} is not what was backed up: {wrong}")
        there = Address("sqlite", str(new), new)
        return _done(path, there, about) | enter_file(
            address, there, mark=mark, within=within
        )


def _restore_schema(
    address: Address,
    path: Path,
    about: Backup | None,
    mark: Marker | None,
    within: tuple[str, str] | None,
) -> dict[str, Any]:
    name = schemas.load(address, path, about.contents if about else None, keep=True)
    return _done(path, address, about) | enter_schema(
        address, name, mark=mark, within=within, discard=True
    )


def _done(path: Path, there: Address, about: Backup | None) -> dict[str, Any]:
    return {
        "restored": str(path),
        "of": about.marker if about else "",
        "at": about.at if about else None,
        "rows": about.contents.rows if about else None,
        "compared": about is not None,
    }
