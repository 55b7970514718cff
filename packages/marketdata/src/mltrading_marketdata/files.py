"""Copy an SQLite database that is in use, and put another in its place.

Never by renaming the file: whoever has it open would go on with the old one, and SQLite
could mix both up. The file stays, its pages are replaced in one transaction that
readers and a crash see wholly or not at all.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from .contents import Contents, of_sqlite
from .errors import Unavailable

HEADER = b"SQLite format 3\0"
# How long a writer is waited for.
_PATIENCE_S = 10.0
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def copy(source: Path, target: Path, *, prove: bool = True) -> Contents | None:
    """Copy a database to a new file, and `prove` the copy; return what both hold then.

    The file appears whole or not at all. Raises Unavailable, OSError, sqlite3.Error.
    """
    if not source.is_file():
        raise Unavailable(f"no database at {source}", "check DATABASE_URL")
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with (
            closing(_open(source)) as old,
            closing(sqlite3.connect(partial, timeout=5, isolation_level=None)) as new,
        ):
            # One snapshot for both, whatever is written meanwhile.
            old.execute("BEGIN")
            wanted = of_sqlite(old) if prove else None
            old.backup(new)
            # The copy is one file that any reader opens: no -wal beside it.
            new.execute("PRAGMA journal_mode=DELETE")
            if wanted is not None:
                verify(new, partial)
                wrong = wanted.differs(of_sqlite(new))
                if wrong:
                    said = f"the copy {target} is not what {source} is: {wrong}"
                    raise Unavailable(said)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(target)
        _sync(target.parent)
    finally:
        partial.unlink(missing_ok=True)
    return wanted


def verify(connection: sqlite3.Connection, path: Path) -> None:
    """Raise Unavailable when a file is damaged."""
    verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if verdict != "ok":
        raise Unavailable(f"{path} is damaged: {verdict}", "use an older backup")


def replace(live: Path, new: Path, aside: Path) -> None:
    """Put the contents of `new` into `live`; what it held is kept in the file `aside`.

    `aside` is exactly what was replaced: it is copied while the transaction that
    replaces keeps every writer out. Readers go on, and see the new at their next
    question. Raises Unavailable, OSError, sqlite3.Error, and has changed nothing then.
    """
    until = time.monotonic() + _PATIENCE_S
    kept = False

    def progress(status: int, remaining: int, _: int) -> None:
        nonlocal kept
        if status in _BUSY:
            if time.monotonic() > until:
                raise sqlite3.OperationalError("database is locked")
        elif not kept and remaining:
            # The first page is written, so the write lock is ours.
            copy(live, aside, prove=False)
            kept = True

    with closing(_open(new)) as source, closing(_open(live)) as target:
        # Reads a page: a damaged file shows here, before anything is written.
        target.execute("PRAGMA schema_version").fetchone()
        source.backup(target, pages=1, progress=progress, sleep=0.05)
        target.execute("PRAGMA journal_mode=WAL")


def discard(path: Path) -> None:
    """Remove a database file with what SQLite may keep beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw", uri=True, timeout=5, isolation_level=None
    )


def _sync(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
