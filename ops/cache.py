"""Verdicts by content hash, kept between runs and shared by all checkouts.

A verdict is believed only when its row's checksum fits. A store that can't be read, or
in which something is not what was written, is left behind and begun anew under the
next number: renaming a database that another process has open could harm the new one.
A folder that can't be written costs speed, never a failure.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ops import folders, report

SCHEMA = 2
KEPT_DAYS = 30
# Bytes of the file above which the verdicts that were used longest ago are removed.
LIMIT = 256 * 1024 * 1024
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a gate said: `state` is green, red or warned.

    `cached` says that it was said on an earlier run about the same content;
    `seconds` is what it took then. `data` is what a report needs, as JSON values.
    """

    name: str
    state: str
    cached: bool = False
    seconds: float = 0.0
    findings: str = ""
    fix: str = ""
    data: Mapping[str, Any] | None = None


def key(**parts: Any) -> str:
    """Return the sha256 of everything that can change a verdict, as hex.

    The parts must be JSON values; callers pass contents and relative paths, never
    modification times or absolute paths.
    """
    text = json.dumps([SCHEMA, parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Store:
    """The verdicts on disk; without a usable disk, an empty store that forgets."""

    def __init__(
        self,
        folder: Path | None,
        today: int,
        warn: Callable[[str], None],
        limit: int,
    ) -> None:
        self._folder = folder
        self._today = today
        self._warn = warn
        self._limit = limit
        self._path: Path | None = None
        self._connection: sqlite3.Connection | None = None
        # How often this object had to begin anew: what it said before is in doubt.
        self.renewed = 0

    @classmethod
    def open(
        cls,
        folder: Path | None = None,
        *,
        now: float | None = None,
        warn: Callable[[str], None] | None = None,
        limit: int = LIMIT,
    ) -> Store:
        """Return the store in a folder, made or rebuilt where needed."""
        today = int((time.time() if now is None else now) // _DAY)
        store = cls(folder or folders.cache(), today, warn or _say, limit)
        store._open()
        return store

    @classmethod
    def forgetful(cls) -> Store:
        """Return a store that knows nothing and keeps nothing."""
        return cls(None, 0, _say, LIMIT)

    def get(self, key: str) -> Verdict | None:
        """Return the verdict under a key, or None where there is none to believe."""
        value = self.recall(key)
        try:
            return Verdict(**{**value, "cached": True}) if value else None
        except TypeError:
            # The row is whole but has another version's fields.
            return None

    def recall(self, key: str) -> Any:
        """Return the JSON value under a key, or None where there is none to believe.

        A row that is not what was written makes all others doubtful: the store is
        moved aside and begun anew.
        """
        if self._connection is None:
            return None
        try:
            row = self._connection.execute(
                "SELECT value, checksum, used FROM verdicts WHERE key = ?", (key,)
            ).fetchone()
            if row is None:
                return None
            if row[1] != _checksum(key, row[0]):
                self.distrust("a verdict in it is not the one that was written")
                return None
            if row[2] != self._today:
                self._connection.execute(
                    "UPDATE verdicts SET used = ? WHERE key = ?", (self._today, key)
                )
            return json.loads(row[0])
        except sqlite3.Error as error:
            self._mend(error)
        except (TypeError, ValueError):
            self.distrust("a verdict in it can't be read")
        return None

    def put(self, key: str, verdict: Verdict) -> None:
        """Keep a verdict."""
        self.put_all({key: verdict})

    def put_all(self, verdicts: Mapping[str, Verdict]) -> None:
        """Keep verdicts, all of them or none."""
        self.remember({key: asdict(verdict) for key, verdict in verdicts.items()})

    def remember(self, values: Mapping[str, Any]) -> None:
        """Keep JSON values, all of them or none."""
        if self._connection is None or not values:
            return
        rows = []
        for key, value in values.items():
            text = json.dumps(value, sort_keys=True)
            rows.append((key, text, _checksum(key, text), self._today))
        try:
            with self._connection:
                # An explicit transaction: the connection is in autocommit mode.
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(
                    "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?)", rows
                )
        except sqlite3.Error as error:
            self._mend(error)

    def distrust(self, why: str) -> None:
        """Begin anew: something in the store was not true, so nothing is believed."""
        broken, self._path = self._path, None
        self.close()
        if broken is not None:
            self.renewed += 1
            self._open(broken, why)

    def _open(self, broken: Path | None = None, why: str = "") -> None:
        folder = self._folder
        if folder is None:
            return
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_mode & 0o002:
                raise OSError("everybody may write there, so nothing there is believed")
            with _alone(folder / "verdicts.lock"):
                path = _newest(folder)
                if path != broken:
                    # Another process may have begun anew since.
                    try:
                        self._connection = self._connect(path)
                    except sqlite3.OperationalError:
                        raise
                    except sqlite3.DatabaseError as error:
                        broken, why = path, str(error)
                if self._connection is None:
                    path = _next(path)
                    self._connection = self._connect(path)
                    self._warn(
                        f"{broken.name if broken else path.name} is not believed"
                        f" ({why}); verdicts begin anew in {path.name}"
                    )
                self._path = path
        except (OSError, sqlite3.Error) as error:
            self._warn(f"no verdicts are kept: {folder}: {error}")

    def _connect(self, path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=5, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY,"
                " value TEXT NOT NULL, checksum TEXT NOT NULL, used INTEGER NOT NULL)"
                " WITHOUT ROWID"
            )
            # Prune once a day: user_version holds the day of the last time.
            if connection.execute("PRAGMA user_version").fetchone()[0] != self._today:
                _prune(connection, self._today - KEPT_DAYS, self._limit)
                connection.execute(f"PRAGMA user_version = {int(self._today)}")
                _forget_old(path)
            connection.execute(
                "SELECT key, value, checksum, used FROM verdicts LIMIT 1"
            )
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _mend(self, error: sqlite3.Error) -> None:
        """Rebuild a damaged file; let go of one that is locked, full or read-only."""
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, sqlite3.OperationalError
        ):
            self.distrust(str(error))
            return
        self._warn(f"no verdicts are kept: {error}")
        self.close()


def _say(text: str) -> None:
    report.say(f"warning: {text}", "yellow")


def _checksum(key: str, value: str) -> str:
    return hashlib.sha256(f"{key}\n{value}".encode()).hexdigest()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time open the store.

    SQLite's busy time-out does not cover the change to WAL, and two that find a
    broken store must not both move it aside.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _newest(folder: Path) -> Path:
    """Return the store with the highest number; verdicts.db has none."""
    return max(folder.glob("verdicts*.db"), key=_number, default=folder / "verdicts.db")


def _next(path: Path) -> Path:
    return path.with_name(f"verdicts-{_number(path) + 1}.db")


def _number(path: Path) -> int:
    digits = path.stem.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else 0


def _prune(connection: sqlite3.Connection, oldest: int, limit: int) -> None:
    """Remove what nobody used since a day, and the longest unused above a size."""
    connection.execute("DELETE FROM verdicts WHERE used < ?", (oldest,))
    large = _bytes(connection) > limit
    while _bytes(connection) > limit:
        connection.execute(
            "DELETE FROM verdicts WHERE key IN (SELECT key FROM verdicts"
            " ORDER BY used, key LIMIT (SELECT count(*) / 4 + 1 FROM verdicts))"
        )
        if connection.execute("SELECT count(*) FROM verdicts").fetchone()[0] == 0:
            break
    if large:
        connection.execute("VACUUM")


def _bytes(connection: sqlite3.Connection) -> int:
    """Return the bytes that rows take, without pages that are free."""
    names = ("page_size", "page_count", "freelist_count")
    size, pages, free = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names
    )
    return int(size * (pages - free))


def _forget_old(path: Path) -> None:
    """Remove stores that were left behind more than a day ago."""
    for file in path.parent.glob("verdicts*.db*"):
        with contextlib.suppress(OSError):
            old = time.time() - file.stat().st_mtime > _DAY
            if old and not file.name.startswith(path.name):
                file.unlink()
