"""The verbs as the delivery engine runs them."""

import json
import os
import sqlite3
import subprocess
import sys

import pytest

from mltrading_marketdata import SourceClosed
from mltrading_marketdata import __main__ as cli
from mltrading_marketdata import errors, sources
from mltrading_marketdata.__main__ import main
from mltrading_marketdata.interval import MICROSECONDS
from mltrading_marketdata.revisions import shipped


def run(capsys, url, *argv):
    code = main([*argv, "--json"], {"DATABASE_URL": url})
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.integration
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


@pytest.mark.integration
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


def test_a_dry_run_says_what_would_be_taken_and_writes_nothing(capsys, sqlite_url):
    argv = ("ingest", "--source", "sample", "--symbols", "FB,NOPE", "--dry-run")
    code, done = run(capsys, sqlite_url, *argv)
    assert (code, done["bars"], list(done["failed"])) == (1, 196, ["NOPE"])
    assert run(capsys, sqlite_url, "info")[1]["bars"] == 0
    assert run(capsys, sqlite_url, "runs")[1]["runs"] == []


def test_a_source_that_asks_to_wait_is_exit_one_with_the_way_on(
    capsys, sqlite_url, monkeypatch
):
    def close(*_, **__):
        raise SourceClosed("over the limit")

    monkeypatch.setattr("mltrading_marketdata.sources.SampleSource.fetch", close)
    code, done = run(capsys, sqlite_url, "ingest", "--source", "sample")
    assert (code, done["state"], done["stopped"]) == (1, "stopped", "over the limit")
    assert run(capsys, sqlite_url, "runs")[1]["runs"][0]["state"] == "stopped"


@pytest.mark.integration
def test_bars_are_invented_exported_and_their_rejects_listed(
    capsys, sqlite_url, tmp_path
):
    argv = ["--source", "synthetic", "--symbols", "DEMO", "--interval", "1h"]
    argv += ["--start", "2024-01-02", "--end", "2024-01-31"]
    assert run(capsys, sqlite_url, "ingest", *argv)[1]["inserted"] == 22 * 7
    assert "SYNTHETIC" in run(capsys, sqlite_url, "info")[1]["sources"][0]
    path = str(tmp_path / "out")
    argv = ["export", "--interval", "1h", "--path", path]
    assert run(capsys, sqlite_url, *argv)[1]["bars"] == 22 * 7
    file = tmp_path / "out" / "DEMO.csv"
    file.write_text(file.read_text() + "2024-02-01T09:00:00Z,9,1,1,9,1\n")
    argv = ["--source", "csv", "--path", path, "--interval", "1h"]
    code, done = run(capsys, sqlite_url, "ingest", *argv)
    assert (code, done["rejected"], done["unchanged"]) == (0, 1, 22 * 7)
    code, found = run(capsys, sqlite_url, "rejects", "--symbols", "DEMO")
    assert (code, found["total"]) == (0, 1)
    assert found["rejects"][0] == {
        "symbol": "DEMO",
        "interval": "1h",
        "ts": "2024-02-01T09:00:00+00:00",
        "reason": "OHLC order",
        "source": "synthetic",
        "row": "open=9.0 high=1.0 low=1.0 close=9.0 volume=1.0",
    }


@pytest.mark.integration
def test_both_sides_of_two_machines_are_verbs(capsys, sqlite_url, tmp_path):
    source = ("--source", "sample", "--symbols", "FB,IBM")
    request = run(capsys, "", "describe", *source)[1]
    begun = run(capsys, sqlite_url, "begin", "--request", json.dumps(request))[1]
    state = {"request": request, **begun}
    (tmp_path / "state.json").write_text(json.dumps(state))
    assert run(capsys, "", "gather", str(tmp_path), *source)[1]["left"] == 0
    done = run(capsys, sqlite_url, "merge", str(tmp_path / "carry"))[1]
    assert (done["inserted"], done["unanswered"]) == (196 + 3270, {})
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "0.json").write_text(json.dumps(run(capsys, sqlite_url, "page")[1]))
    argv = ("unpack", str(pages), "--path", str(tmp_path / "out"))
    assert run(capsys, "", *argv)[1]["bars"] == 196 + 3270


def test_a_key_is_in_no_word_that_is_printed(capsys, sqlite_url, monkeypatch):
    env = {"DATABASE_URL": sqlite_url, "TIINGO_API_KEY": "s3cret key"}
    argv = ["ingest", "--source", "tiingo", "--symbols", "A", "--json"]
    assert main(argv, env) == 1
    said = "".join(capsys.readouterr())
    assert "TIINGO_API_KEY" in said and "s3cret" not in said


def test_the_words_of_the_parser_are_those_of_the_package():
    assert cli.KINDS == sources.KINDS
    assert set(cli.INTERVALS) == set(MICROSECONDS)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2020-01-31", "2020-01-31 23:59:59.999999+00:00"),
        ("2020-01-31T10:00", "2020-01-31 10:00:00+00:00"),
        ("2020-01-31T10:00-05:00", "2020-01-31 15:00:00+00:00"),
    ],
)
def test_an_end_that_is_a_date_is_all_of_that_day(text, moment):
    assert str(cli._last(text)) == moment


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
    [
        ["frobnicate"],
        [],
        ["ingest", "--source", "csv"],
        ["ingest", "--source", "parquet"],
        ["ingest", "--source", "sample", "--symbols", "A,,B"],
        ["ingest", "--source", "sample", "--start", "yesterday-ish"],
        ["ingest", "--source", "sample", "--interval", "2d"],
        ["export"],
        ["prepare", "--seed", "x"],
    ],
)
def test_a_wrong_call_is_exit_two(argv):
    with pytest.raises(SystemExit) as caught:
        main(argv, {"DATABASE_URL": "sqlite:///x.db"})
    assert caught.value.code == 2


def test_without_a_database_url_it_is_exit_two():
    with pytest.raises(SystemExit) as caught:
        main(["info"], {})
    assert caught.value.code == 2
