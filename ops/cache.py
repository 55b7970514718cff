"""Verdicts by content hash, kept between runs and shared by all checkouts.

A verdict is believed only when its row's checksum fits; a store that can't be read
is moved aside and rebuilt. A folder that can't be written costs speed, never a
failure.
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

SCHEMA = 1
KEPT_DAYS = 30
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
        connection: sqlite3.Connection | None,
        today: int,
        warn: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._today = today
        self._warn = warn

    @classmethod
    def open(
        cls,
        folder: Path | None = None,
        *,
        now: float | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> Store:
        """Return the store in a folder, made or rebuilt where needed."""
        today = int((time.time() if now is None else now) // _DAY)
        warn = warn or _say
        path = (folder or folders.cache()) / "verdicts.db"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _alone(path.with_suffix(".lock")):
                try:
                    connection = _connect(path, today)
                except sqlite3.OperationalError:
                    raise
                except sqlite3.DatabaseError:
                    _move_aside(path, warn)
                    connection = _connect(path, today)
        except (OSError, sqlite3.Error) as error:
            warn(f"no verdicts are kept: {path.parent}: {error}")
            return cls(None, today, warn)
        return cls(connection, today, warn)

    @classmethod
    def forgetful(cls) -> Store:
        """Return a store that knows nothing and keeps nothing."""
        return cls(None, 0, _say)

    def get(self, key: str) -> Verdict | None:
        """Return the verdict under a key, or None where there is none to believe."""
        if self._connection is None:
            return None
        try:
            row = self._connection.execute(
                "SELECT value, checksum, used FROM verdicts WHERE key = ?", (key,)
            ).fetchone()
            if row is None or row[1] != _checksum(key, row[0]):
                return None
            if row[2] != self._today:
                self._connection.execute(
                    "UPDATE verdicts SET used = ? WHERE key = ?", (self._today, key)
                )
            return Verdict(**{**json.loads(row[0]), "cached": True})
        except sqlite3.Error as error:
            self._give_up(error)
        except (TypeError, ValueError):
            # The row has the right checksum but another version's fields.
            return None
        return None

    def put(self, key: str, verdict: Verdict) -> None:
        """Keep a verdict."""
        self.put_all({key: verdict})

    def put_all(self, verdicts: Mapping[str, Verdict]) -> None:
        """Keep verdicts, all of them or none."""
        if self._connection is None:
            return
        rows = []
        for key, verdict in verdicts.items():
            value = json.dumps(asdict(verdict), sort_keys=True)
            rows.append((key, value, _checksum(key, value), self._today))
        try:
            with self._connection:
                # An explicit transaction: the connection is in autocommit mode.
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(
                    "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?)", rows
                )
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _give_up(self, error: sqlite3.Error) -> None:
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


def _connect(path: Path, today: int) -> sqlite3.Connection:
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
        if connection.execute("PRAGMA user_version").fetchone()[0] != today:
            connection.execute(
                "DELETE FROM verdicts WHERE used < ?", (today - KEPT_DAYS,)
            )
            connection.execute(f"PRAGMA user_version = {int(today)}")
        connection.execute("SELECT key, value, checksum, used FROM verdicts LIMIT 1")
    except BaseException:
        connection.close()
        raise
    return connection


def _move_aside(path: Path, warn: Callable[[str], None]) -> None:
    aside = path.with_name(f"{path.name}.broken-{time.time_ns()}")
    path.replace(aside)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    warn(f"the verdicts could not be read; moved to {aside.name} and begun anew")
