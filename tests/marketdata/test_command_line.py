"""The verbs as the delivery engine runs them."""

import json
import os
import sqlite3
import subprocess
import sys

import pytest

from mltrading_marketdata import errors
from mltrading_marketdata.__main__ import main
from mltrading_marketdata.revisions import shipped


def run(capsys, url, *argv):
    code = main([*argv, "--json"], {"DATABASE_URL": url})
    return code, json.loads(capsys.readouterr().out)


def test_prepare_with_nothing_to_do_imports_nothing_heavy(sqlite_url):
    probe = (
        "import sys; from mltrading_marketdata.__main__ import main;"
        "import os; code = main(['prepare', '--seed', 'sample'], os.environ);"
        "print(code, {'pandas', 'alembic', 'sqlalchemy', 'numpy'} & set(sys.modules))"
    )
    assert main(["prepare", "--seed", "sample"], {"DATABASE_URL": sqlite_url}) == 0
    env = os.environ | {"DATABASE_URL": sqlite_url}
    done = subprocess.run([sys.executable, "-c", probe], env=env, capture_output=True)
    assert done.stdout.split(b"\n")[0] == b"0 set()", done.stderr


def test_each_verb_gives_one_object(capsys, sqlite_url, tmp_path):
    copy = str(tmp_path / "copy")
    assert run(capsys, sqlite_url, "schema")[1]["state"] == "current"
    assert run(capsys, sqlite_url, "migrate", "--dry-run")[1]["pending"] == []
    assert run(capsys, sqlite_url, "backup", copy)[1]["backup"] == copy
    assert run(capsys, sqlite_url, "restore", copy)[1]["restored"] == copy
    assert run(capsys, sqlite_url, "reset")[1]["applied"] == shipped()
    assert run(capsys, sqlite_url, "info")[1]["bars"] == 0


def test_ingest_reads_the_symbols_asked_for(capsys, sqlite_url):
    argv = ("ingest", "--source", "sample", "--symbols", "FB")
    code, done = run(capsys, sqlite_url, *argv)
    assert (code, done["inserted"], done["failed"]) == (0, 196, {})


def test_a_symbol_that_failed_is_exit_one(capsys, sqlite_url):
    argv = ("ingest", "--source", "sample", "--symbols", "NOPE")
    code, done = run(capsys, sqlite_url, *argv)
    assert code == 1 and "NOPE" in done["failed"]


def test_a_corrupt_file_is_named_with_what_to_do(capsys, tmp_path):
    path = tmp_path / "market.db"
    path.write_bytes(b"garbage" * 1000)
    code, done = run(capsys, f"sqlite:///{path}", "prepare")
    assert code == 1 and str(path) in done["error"]
    assert "restore" in done["hint"]


def test_a_silent_server_is_named_without_its_password(capsys):
    url = "postgres://me:s3cret@localhost:1/market"
    code, done = run(capsys, url, "schema")
    assert (code, done["kind"]) == (1, "Unavailable")
    assert "localhost:1/market" in done["error"] and "s3cret" not in str(done)


def test_a_folder_that_cannot_be_made_is_named(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    code, done = run(capsys, f"sqlite:///{tmp_path}/file/market.db", "prepare")
    assert code == 1 and f"{tmp_path}/file" in done["error"]


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("attempt to write a readonly database", "read-only"),
        ("database or disk is full", "disk is full"),
        ("database is locked", "locked by another writer"),
        ("database disk image is malformed", "damaged"),
    ],
)
def test_each_failure_of_a_file_has_its_own_words(words, meaning):
    found = errors.explain(sqlite3.OperationalError(words), "market.db")
    assert meaning in str(found) and "market.db" in str(found) and found.hint


@pytest.mark.parametrize(
    "argv",
    [["frobnicate"], [], ["ingest", "--source", "csv"], ["prepare", "--seed", "x"]],
)
def test_a_wrong_call_is_exit_two(argv):
    with pytest.raises(SystemExit) as caught:
        main(argv, {"DATABASE_URL": "sqlite:///x.db"})
    assert caught.value.code == 2


def test_without_a_database_url_it_is_exit_two():
    with pytest.raises(SystemExit) as caught:
        main(["info"], {})
    assert caught.value.code == 2
