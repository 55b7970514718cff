"""Backups that were proved, and restores that are whole or have not happened."""

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from mltrading_marketdata import (
    OutOfRange,
    StoreError,
    Unavailable,
    files,
    open_store,
    revisions,
    schemas,
    trash,
)
from mltrading_marketdata.backup import Backup, backup, beside, known, restore
from mltrading_marketdata.marker import Marker, write
from mltrading_marketdata.migration import drift
from mltrading_marketdata.preparation import schema
from mltrading_marketdata.url import parse
from tests.marketdata.databases import answer, execute

# Whole databases are written, set aside and brought back.
pytestmark = pytest.mark.integration

# What a schema may hold beside tables.
OBJECTS = (
    "CREATE VIEW tickers AS SELECT ticker FROM symbol",
    "CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS $$ SELECT 2 * n $$",
    "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM symbol",
    "CREATE TABLE noted (at timestamptz, words json)",
)


@pytest.fixture
def filled(store, url, bars):
    """An address with bars of one symbol, 600 of them."""
    store.upsert_bars("ACME", "1d", bars(600), source="test")
    return parse(url)


def bars_of(address):
    with open_store(address.sqlalchemy) as store:
        return store.info()["bars"]


def test_a_backup_brings_everything_back(filled, store, tmp_path):
    stamp = store.version("ACME")
    made = backup(filled, tmp_path / "new" / "copy")
    assert made.proved and known(made.path) == made
    trash.reset(filled)
    execute(filled, "CREATE TABLE later (id INTEGER)")
    done = restore(filled, made.path)
    assert store.version("ACME") == stamp and len(store.bars("ACME")) == 600
    assert drift(filled) == []
    assert (done["schema"], done["compared"]) == (revisions.shipped()[-1], True)


def test_what_is_there_is_set_aside_by_a_restore(filled, tmp_path):
    made = backup(filled, tmp_path / "copy")
    execute(filled, "DELETE FROM reject", "INSERT INTO meta VALUES ('late', 'note')")
    done = restore(filled, made.path)
    assert not answer(filled, "SELECT * FROM meta WHERE key = 'late'")
    assert trash.undo(filled)["undone"] == done["aside"]
    assert answer(filled, "SELECT value FROM meta WHERE key = 'late'") == [("note",)]


@pytest.mark.integration
def test_views_and_functions_come_back_too(postgres_url, tmp_path):
    address = parse(postgres_url)
    execute(address, *OBJECTS, "INSERT INTO noted VALUES (now(), '{}')")
    made = backup(address, tmp_path / "copy")
    trash.reset(address)
    restore(address, made.path)
    assert answer(address, "SELECT twice(21), (SELECT n FROM counted)") == [(42, 0)]
    assert {"view tickers", "function twice/1"} <= {*made.contents.objects}


def test_a_backup_holds_one_moment_whatever_is_written_meanwhile(
    filled, tmp_path, monkeypatch
):
    place = files if filled.dialect == "sqlite" else schemas
    name = "of_sqlite" if filled.dialect == "sqlite" else "run"
    real = getattr(place, name)

    def meddle(*arguments, **more):
        # The contents have been looked at, or pg_dump has not begun.
        found = real(*arguments, **more) if place is files else None
        monkeypatch.undo()
        execute(filled, "INSERT INTO meta VALUES ('late', 'note')")
        return found if place is files else real(*arguments, **more)

    monkeypatch.setattr(place, name, meddle)
    made = backup(filled, tmp_path / "copy")
    assert made.proved
    restore(filled, made.path)
    assert not answer(filled, "SELECT * FROM meta WHERE key = 'late'")


def test_the_newer_schema_of_an_older_backup_is_migrated_before_it_serves(
    filled, tmp_path, ship
):
    made = backup(filled, tmp_path / "copy")
    number = ship("op.add_column('symbol', sa.Column('note', sa.Text))")
    done = restore(filled, made.path)
    assert (done["applied"], done["schema"]) == ([number], number)
    assert answer(filled, "SELECT note FROM symbol") == [(None,)]


def test_a_backup_that_this_release_cannot_use_changes_nothing(filled, tmp_path):
    execute(filled, "UPDATE alembic_version SET version_num = '0100'")
    made = backup(filled, tmp_path / "copy")
    head = revisions.shipped()[-1]
    execute(filled, f"UPDATE alembic_version SET version_num = '{head}'")
    with pytest.raises(OutOfRange, match="is at 0100"):
        restore(filled, made.path)
    assert bars_of(filled) == 600 and nothing_left(filled)


def test_the_marker_is_the_database_s_and_not_the_backup_s(filled, tmp_path):
    write(filled, Marker("prod", "production"))
    made = backup(filled, tmp_path / "copy")
    write(filled, Marker("staging", "staging"), anew=True)
    assert restore(filled, made.path)["of"] == "prod production"
    assert schema(filled)["environment"] == "staging"


# What is no sound backup --------------------------------------------------------------


def damage(path: Path, at: float = 0.5) -> None:
    """Turn some bytes around in the middle of a file."""
    text = bytearray(path.read_bytes())
    middle = int(len(text) * at)
    text[middle : middle + 64] = bytes(255 - each for each in text[middle:][:64])
    path.write_bytes(text)


def nothing_left(address):
    """Say whether no half-made database is left beside the one in use."""
    if address.dialect == "sqlite":
        names = {path.name for path in address.file.parent.iterdir()}
        return not any("new-" in name or "partial" in name for name in names)
    with schemas.connected(address) as c:
        return not schemas.listed(c, "incoming") + schemas.listed(c, "held")


def test_a_damaged_backup_is_told_by_its_sha256(filled, tmp_path):
    made = backup(filled, tmp_path / "copy")
    damage(made.path)
    with pytest.raises(StoreError, match="is damaged: its sha256"):
        restore(filled, made.path)
    assert bars_of(filled) == 600


def test_a_damaged_backup_of_which_nothing_is_known_is_found_out(filled, tmp_path):
    made = backup(filled, tmp_path / "copy")
    beside(made.path).unlink()
    made.path.write_bytes(made.path.read_bytes()[:-4000])
    with pytest.raises(StoreError, match="damaged|no sound backup|malformed"):
        restore(filled, made.path)
    assert bars_of(filled) == 600 and nothing_left(filled)


def test_a_backup_that_holds_something_else_than_it_says_changes_nothing(
    filled, tmp_path
):
    made = backup(filled, tmp_path / "copy")
    said = json.loads(beside(made.path).read_text())
    said["contents"]["tables"]["symbol"][0] = 7
    beside(made.path).write_text(json.dumps(said))
    with pytest.raises(StoreError, match="symbol.*7"):
        restore(filled, made.path)
    assert bars_of(filled) == 600 and nothing_left(filled)


def test_what_is_known_of_a_backup_must_be_readable(filled, tmp_path):
    made = backup(filled, tmp_path / "copy")
    for text in ("{", "[]", "{}"):
        beside(made.path).write_text(text)
        with pytest.raises(StoreError, match="can't be read"):
            restore(filled, made.path)
    with pytest.raises(ValueError):
        Backup.parse(made.path, "null")


def test_a_file_that_is_no_backup_changes_nothing(filled, tmp_path):
    (tmp_path / "junk").write_bytes(b"junk " * 1000)
    with pytest.raises(StoreError, match="junk is no backup"):
        restore(filled, tmp_path / "junk")
    with pytest.raises(StoreError, match="no such backup"):
        restore(filled, tmp_path / "none")
    other = schemas.HEADER if filled.dialect == "sqlite" else files.HEADER
    (tmp_path / "junk").write_bytes(other * 10)
    with pytest.raises(StoreError, match="of another kind of database"):
        restore(filled, tmp_path / "junk")
    assert bars_of(filled) == 600


@pytest.mark.integration
def test_a_dump_of_another_application_is_refused(postgres_url, server, tmp_path):
    address = parse(postgres_url)
    execute(address, "ALTER TABLE alembic_version RENAME TO other")
    schemas.dump(address, tmp_path / "dump")
    execute(address, "ALTER TABLE other RENAME TO alembic_version")
    with pytest.raises(StoreError, match="no backup of this application"):
        restore(address, tmp_path / "dump")
    assert nothing_left(address)


def test_a_damaged_database_file_gives_way_and_is_kept(sqlite_url, tmp_path):
    address = parse(sqlite_url)
    made = backup(address, tmp_path / "copy")
    address.file.write_bytes(b"not a database at all" * 500)
    with pytest.raises(Unavailable, match="damaged"):
        revisions.observe(address)
    done = restore(address, made.path)
    assert done["reopen"] and schema(address)["state"] == "current"
    (kept,) = address.file.parent.glob("*.damaged-*")
    assert kept.read_bytes().startswith(b"not a database")
    assert trash.empty(address, older_than=timedelta()) == [kept.name]


# Out of room, and killed --------------------------------------------------------------

KILL = """
import os, signal, sqlite3, sys
from pathlib import Path
from mltrading_marketdata import files
from mltrading_marketdata.backup import restore
from mltrading_marketdata.url import parse

class Deadly(sqlite3.Connection):
    def backup(self, target, *, progress=None, **more):
        def count(status, remaining, total):
            if progress:
                progress(status, remaining, total)
                if remaining < total / 2:
                    os.kill(os.getpid(), signal.SIGKILL)
        super().backup(target, progress=count, **more)

connect = sqlite3.connect
sqlite3.connect = lambda *a, **k: connect(*a, **k, factory=Deadly)
restore(parse(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.integration
def test_a_restore_that_is_killed_half_way_leaves_the_old_file_whole(
    filled_file, tmp_path
):
    address, made = filled_file
    trash.reset(address)
    killed = run_script(KILL, address, made.path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert bars_of(address) == 0
    assert answer(address, "PRAGMA integrity_check") == [("ok",)]
    restore(address, made.path)
    assert bars_of(address) == 600


@pytest.fixture
def filled_file(sqlite_url, bars, tmp_path):
    address = parse(sqlite_url)
    fill(address, bars)
    return address, backup(address, tmp_path / "copy")


def fill(address, bars):
    import pandas as pd

    with open_store(address.sqlalchemy) as store:
        store.upsert_symbols(pd.DataFrame(index=["ACME"]))
        store.upsert_bars("ACME", "1d", bars(600), source="test")


def run_script(script, address, *arguments, **more):
    words = [sys.executable, "-c", script, address.sqlalchemy, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, **more)


RESTORE = """
import sys
from pathlib import Path
from mltrading_marketdata.__main__ import main
url = sys.argv[1].replace("+psycopg", "")
sys.exit(main(["restore", sys.argv[2]], {"DATABASE_URL": url}))
"""


@pytest.mark.integration
def test_a_restore_that_is_killed_half_way_leaves_the_old_schema(
    postgres_url, bars, tmp_path
):
    address = parse(postgres_url)
    fill(address, bars)
    # A table whose rows can't be written while somebody holds a lock: the restore
    # stands still in the middle of its transaction.
    execute(
        address,
        "CREATE FUNCTION gate() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_catalog.pg_advisory_xact_lock_shared(42); RETURN true; END $$",
        "CREATE TABLE gated (n int CHECK (public.gate()))",
        "INSERT INTO gated VALUES (1)",
    )
    made = backup(address, tmp_path / "copy")
    trash.reset(address)
    waits = (
        "SELECT pid FROM pg_stat_activity WHERE wait_event = 'advisory' "
        "AND datname = current_database()"
    )
    with psycopg.connect(address.libpq, autocommit=True) as keeper:
        keeper.execute("SELECT pg_advisory_lock(42)")
        process = subprocess.Popen(
            [sys.executable, "-c", RESTORE, address.sqlalchemy, str(made.path)],
            start_new_session=True,
            stderr=subprocess.PIPE,
        )
        while not keeper.execute(waits).fetchone():
            assert process.poll() is None, process.communicate()
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        # The server notices when it writes to whoever has gone.
        ours = "SELECT pg_terminate_backend(pid) FROM (%s) AS waiting" % waits
        keeper.execute(ours)
        while keeper.execute(waits).fetchone():
            pass
    assert bars_of(address) == 0 and nothing_left(address)
    restore(address, made.path)
    assert bars_of(address) == 600


@pytest.mark.integration
def test_without_room_for_the_copy_nothing_changes(filled, tmp_path):
    """The kernel lets no file grow beyond a few pages, as a disk that is full does."""
    made = backup(filled, tmp_path / "copy")
    again = RESTORE.replace('["restore", ', '["backup", ')
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))  # noqa
    ended = run_script(again, filled, tmp_path / "more", preexec_fn=limit)
    assert ended.returncode == 1, ended.stderr
    assert "error: " in ended.stderr and "Traceback" not in ended.stderr
    assert [path.name for path in tmp_path.glob("*more*")] == []
    if filled.dialect == "sqlite":
        ended = run_script(RESTORE, filled, made.path, preexec_fn=limit)
        assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert bars_of(filled) == 600 and nothing_left(filled)


def test_a_writer_that_does_not_end_is_named(filled_file, monkeypatch):
    address, made = filled_file
    monkeypatch.setattr(files, "_PATIENCE_S", 0.1)
    with closing(sqlite3.connect(address.file, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        with pytest.raises(Unavailable, match="locked by another writer"):
            restore(address, made.path)
        writer.execute("ROLLBACK")
    assert time.monotonic() - begun < 30
    assert bars_of(address) == 600
