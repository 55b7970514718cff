"""Copy the whole database to one file, prove the copy, and put it back.

SQLite: the online backup API, so readers and writers go on. PostgreSQL: pg_dump,
pg_restore and psql; where and who travels in PG* variables, never in argv.
"""

from __future__ import annotations

import os
import shutil
import sqlite3

# Runs pg_dump, pg_restore and psql, without a shell.
import subprocess  # nosec B404
import tempfile
from contextlib import closing
from pathlib import Path

from .errors import StoreError, Unavailable, explain
from .url import Address

# Everything of ours in the schema. What belongs to an extension stays.
DROP_ALL = """
DO $$ DECLARE name text; BEGIN
  FOR name IN SELECT viewname FROM pg_views WHERE schemaname = current_schema() LOOP
    EXECUTE format('DROP VIEW %I CASCADE', name);
  END LOOP;
  FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() LOOP
    EXECUTE format('DROP TABLE %I CASCADE', name);
  END LOOP;
  FOR name IN SELECT oid::regprocedure::text FROM pg_proc
      WHERE pronamespace = current_schema()::regnamespace AND NOT EXISTS (
        SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e') LOOP
    EXECUTE 'DROP ROUTINE ' || name || ' CASCADE';
  END LOOP;
END $$;
"""


def backup(address: Address, path: Path) -> Path:
    """Write a backup to `path` (its folder is made) and prove that it can be read.

    The file appears whole or not at all. Raises Unavailable, StoreError.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if address.dialect == "sqlite":
            _copy_sqlite(address.file, partial)
        else:
            _run(address, "pg_dump", "-Fc", "--no-owner", "-f", str(partial))
            _run(address, "pg_restore", "--list", str(partial))
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except (OSError, sqlite3.Error) as error:
        raise explain(error, f"{address.where} -> {path}") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def restore(address: Address, path: Path) -> None:
    """Replace everything in the database by the backup, or change nothing.

    Raises StoreError for a file that is no sound backup, Unavailable.
    """
    if not path.is_file():
        raise StoreError(f"no such backup: {path}", "give the file that `backup` wrote")
    try:
        if address.dialect == "sqlite":
            _restore_sqlite(address, path)
        else:
            _restore_postgresql(address, path)
    except (OSError, sqlite3.Error) as error:
        raise explain(error, f"{path} -> {address.where}") from error


def _copy_sqlite(source: Path, target: Path) -> None:
    if not source.is_file():
        raise Unavailable(f"no database at {source}", "check DATABASE_URL")
    with (
        closing(sqlite3.connect(source, timeout=5)) as old,
        closing(sqlite3.connect(target, timeout=5)) as new,
    ):
        old.backup(new)
        # The copy is one file that any reader opens: no -wal beside it.
        new.execute("PRAGMA journal_mode=DELETE")
        _check_integrity(new, target)


def _check_integrity(connection: sqlite3.Connection, path: Path) -> None:
    verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if verdict != "ok":
        raise Unavailable(f"{path} is damaged: {verdict}", "use an older backup")


def _restore_sqlite(address: Address, path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=5)) as connection:
        _check_integrity(connection, path)
    address.file.parent.mkdir(parents=True, exist_ok=True)
    try:
        _overwrite(path, address.file)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        # The old file is damaged beyond opening: put a new one in its place.
        for suffix in ("", "-wal", "-shm"):
            Path(f"{address.file}{suffix}").unlink(missing_ok=True)
        _overwrite(path, address.file)


def _overwrite(path: Path, target: Path) -> None:
    with (
        closing(sqlite3.connect(path, timeout=5)) as old,
        closing(sqlite3.connect(target, timeout=5)) as new,
    ):
        # Reads a page first: a damaged target shows here, before anything is written.
        new.execute("PRAGMA schema_version").fetchone()
        old.backup(new)
        new.execute("PRAGMA journal_mode=WAL")


def _restore_postgresql(address: Address, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "restore.sql"
        _run(
            address,
            "pg_restore",
            "--no-owner",
            "--no-acl",
            "-f",
            str(script),
            str(path),
        )
        drop = Path(folder) / "drop.sql"
        drop.write_text(DROP_ALL)
        _run(
            address,
            "psql",
            "--no-psqlrc",
            "--quiet",
            "--single-transaction",
            "--set=ON_ERROR_STOP=1",
            f"--file={drop}",
            f"--file={script}",
        )


def _run(address: Address, tool: str, *arguments: str) -> None:
    # No shell; argv holds paths, and secrets travel in the environment.
    done = subprocess.run(  # nosec B603
        [_find(tool), *arguments],
        env=os.environ | address.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        reason = (lines or done.stderr.splitlines() or ["no message"])[0]
        raise Unavailable(f"{tool} for {address.where} failed: {reason}")


def _find(tool: str) -> str:
    found = shutil.which(tool)
    if found is None:
        raise StoreError(
            f"{tool} is not installed on this machine",
            "install the PostgreSQL client tools and put them on PATH",
        )
    return found
