"""A folder of files as a source: it answers, or it says why not."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from mltrading_marketdata import CsvSource, SourceError, ingest
from mltrading_marketdata.adjustment import Action
from mltrading_marketdata.ledger import Ledger
from mltrading_marketdata.sources import KINDS, ParquetSource, open_source

HEAD = "date,open,high,low,close,volume\n"
ROW = "2020-01-02,1,3,1,2,10\n"


def fetch(folder, text, name="ACME"):
    (folder / f"{name}.csv").write_text(text)
    return CsvSource(folder).fetch(name, "1d", None, None)


def test_dates_become_midnight_utc_of_the_session(tmp_path):
    found = fetch(tmp_path, HEAD + ROW)
    assert found.frame.index[0] == pd.Timestamp("2020-01-02", tz="UTC")


def test_a_whole_folder_is_ingested(store, tmp_path):
    (tmp_path / "ACME.csv").write_text(HEAD + ROW)
    (tmp_path / "NEW.csv").write_text(HEAD + ROW)
    (tmp_path / "symbols.csv").write_text("symbol,name\nNEW,New Inc.\n")
    report = ingest(store, CsvSource(tmp_path))
    assert report.total("inserted") == 2 and not report.failed
    assert store.symbols().loc["NEW", "name"] == "New Inc."


def test_one_bad_file_does_not_stop_the_others(store, tmp_path):
    (tmp_path / "ACME.csv").write_text("date,close\n2020-01-02,2\n")
    (tmp_path / "NEW.csv").write_text(HEAD + ROW)
    report = ingest(store, CsvSource(tmp_path))
    assert "lacks the columns" in report.failed["ACME"]
    assert len(store.bars("NEW")) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "cannot read"),
        (HEAD + "2020-13-02,1,3,1,2,10\n", "2020-13-02"),
        (HEAD + "2020-01-02 09:30,1,3,1,2,10\n", "need a zone"),
        (HEAD + ROW + ",1,3,1,2,10\n", "ACME.csv, row 2: there is no time"),
        (HEAD, "ACME.csv has no rows"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error(tmp_path, text, reason):
    with pytest.raises(SourceError, match=reason):
        fetch(tmp_path, text)


def test_an_empty_or_missing_folder_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="no <SYMBOL>.csv"):
        CsvSource(tmp_path).symbols()
    with pytest.raises(SourceError, match="no such folder"):
        CsvSource(tmp_path / "none")


def test_a_missing_symbol_names_those_that_are_there(tmp_path):
    fetch(tmp_path, HEAD + ROW)
    with pytest.raises(SourceError) as caught:
        CsvSource(tmp_path).fetch("../ACME", "1d", None, None)
    assert "ACME" in caught.value.hint


def test_a_split_is_read_from_the_adjusted_close(tmp_path):
    head = "date,open,high,low,close,volume,adj_close\n"
    rows = "2020-01-02,9,9,9,9,1,4.5\n2020-01-03,4,5,4,4.5,1,4.5\n"
    (action,) = fetch(tmp_path, head + rows).actions
    assert (action.kind, action.value) == ("split", 2)


def test_an_adjusted_close_that_makes_no_sense_is_an_error(tmp_path):
    head = "date,open,high,low,close,volume,adj_close\n"
    rows = "2020-01-02,9,9,9,9,1,9\n2020-01-03,9,9,9,9,1,8.7654\n"
    with pytest.raises(SourceError, match="factor 0.973933 on 2020-01-03"):
        fetch(tmp_path, head + rows)


def test_times_of_day_are_read_with_their_zones(tmp_path):
    rows = "".join(
        f"{time},1,3,1,2,10\n"
        for time in ("2020-03-06 09:30:00-05:00", "2020-03-09T09:30:00-04:00")
    )
    index = fetch(tmp_path, HEAD + rows).frame.index
    assert list(index.strftime("%H:%M")) == ["14:30", "13:30"]
    assert str(index.tz) == "UTC"


def test_only_the_range_asked_for_is_given(tmp_path):
    (tmp_path / "ACME.csv").write_text(HEAD + ROW + ROW.replace("-02,", "-03,"))
    day = pd.Timestamp("2020-01-03", tz="UTC")
    assert len(CsvSource(tmp_path).fetch("ACME", "1d", day, None).frame) == 1
    assert len(CsvSource(tmp_path).fetch("ACME", "1d", None, day).frame) == 2


def test_splits_and_dividends_are_read_from_their_own_file(tmp_path):
    (tmp_path / "actions.csv").write_text(
        "symbol,date,kind,value\nACME,2020-01-02,split,2\nX,2020-01-02,dividend,1\n"
    )
    (tmp_path / "ACME.csv").write_text(HEAD + ROW)
    ts = pd.Timestamp("2020-01-02", tz="UTC").value // 1000
    source = CsvSource(tmp_path)
    assert source.fetch("ACME", "1d", None, None).actions == [Action(ts, "split", 2)]
    assert source.symbols() == ["ACME"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("symbol,date,kind\nA,2020-01-02,split\n", "lacks the column 'value'"),
        ("symbol,date,kind,value\nA,2020-01-02,gift,1\n", '"gift" is not split'),
        ("symbol,date,kind,value\nA,2020-01-02,split,x\n", "cannot read"),
    ],
)
def test_actions_that_cannot_be_read_are_an_error(tmp_path, text, reason):
    (tmp_path / "actions.csv").write_text(text)
    with pytest.raises(SourceError, match=reason):
        fetch(tmp_path, HEAD + ROW)


def test_planted_faults_are_refused_one_by_one_and_the_rest_is_taken(store, tmp_path):
    faults = (Path(__file__).parent / "answers" / "faults.csv").read_text()
    (tmp_path / "ACME.csv").write_text(faults)
    report = ingest(store, CsvSource(tmp_path))
    assert (report.total("inserted"), report.total("rejected")) == (9, 10)
    _, rows = Ledger(store.access).rejects()
    assert [(row["ts"] // 86_400_000_000 - 19723, row["reason"]) for row in rows] == [
        (24, "a price is not finite"),
        (22, "a price jumps 3-fold and comes straight back"),
        (21, "a price is not positive"),
        (18, "a price is not positive"),
        (17, "another row with the same ts came later"),
        (15, "volume is not a whole number >= 0"),
        (11, "volume is not a whole number >= 0"),
        (10, "a price is not finite"),
        (9, "a price is not finite"),
        (3, "OHLC order"),
    ]
    closes = store.bars("ACME")["close"]
    assert closes.index.is_monotonic_increasing
    assert closes.loc["2024-01-18"] == 10.95
    again = ingest(store, CsvSource(tmp_path))
    assert again.total("written") == 0 and Ledger(store.access).rejects()[0] == 10


def test_a_parquet_file_is_read_as_its_csv_is(tmp_path):
    csv = tmp_path / "csv"
    csv.mkdir()
    (csv / "ACME.csv").write_text(HEAD + ROW)
    frame = pd.read_csv(csv / "ACME.csv")
    for name, column in {
        "TEXT": frame["date"],
        "DATE": pd.to_datetime(frame["date"]).dt.date,
        "ACME": pd.to_datetime(frame["date"]),
        "ZONE": pd.to_datetime(frame["date"]).dt.tz_localize("UTC"),
    }.items():
        frame.assign(date=column).to_parquet(tmp_path / f"{name}.parquet")
    source, theirs = ParquetSource(tmp_path), CsvSource(csv)
    assert source.symbols() == ["ACME", "DATE", "TEXT", "ZONE"]
    for name in source.symbols():
        found = source.fetch(name, "1d", None, None).frame
        wanted = theirs.fetch("ACME", "1d", None, None).frame
        pd.testing.assert_frame_equal(found, wanted, check_index_type=False)


def test_a_parquet_file_without_a_zone_or_that_is_none_is_an_error(tmp_path):
    frame = pd.DataFrame({"ts": pd.to_datetime(["2020-01-02 14:30"])})
    frame[["open", "high", "low", "close", "volume"]] = 1.0
    frame.to_parquet(tmp_path / "ACME.parquet")
    (tmp_path / "BAD.parquet").write_bytes(b"PAR1 or not")
    source = ParquetSource(tmp_path)
    with pytest.raises(SourceError, match="need a zone"):
        source.fetch("ACME", "1m", None, None)
    with pytest.raises(SourceError, match="cannot read"):
        source.fetch("BAD", "1m", None, None)


def test_without_pyarrow_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SourceError, match="needs pyarrow") as caught:
        open_source("parquet", {}, path=tmp_path)
    assert "mltrading-marketdata[parquet]" in caught.value.hint


@pytest.mark.integration
def test_csv_needs_no_pyarrow(sqlite_url, tmp_path):
    (tmp_path / "ACME.csv").write_text(HEAD + ROW)
    program = (
        "import os, sys; sys.modules['pyarrow'] = sys.modules['rich'] = None;"
        "from mltrading_marketdata.__main__ import main;"
        "main(['ingest', '--source', 'csv', '--path', sys.argv[1]], os.environ);"
        "main(['export', '--path', sys.argv[1] + '/out'], os.environ)"
    )
    env = os.environ | {"DATABASE_URL": sqlite_url}
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    written = tmp_path / "out" / "ACME.csv"
    assert written.exists(), done.stderr
    assert written.read_text() == HEAD + "2020-01-02,1.0,3.0,1.0,2.0,10\n"


def test_what_a_folder_says_to_be_invented_stays_marked(store, tmp_path):
    (tmp_path / "symbols.csv").write_text('symbol,source\nDEMO,"SYNTHETIC, seed 1"\n')
    (tmp_path / "DEMO.csv").write_text(HEAD + ROW)
    source = CsvSource(tmp_path)
    assert source.name == "synthetic" and source.provenance.startswith("SYNTHETIC, csv")
    ingest(store, source)
    assert store.info()["sources"][0].startswith("SYNTHETIC")


def test_a_symbol_that_no_file_can_be_named_after(tmp_path):
    (tmp_path / "BRK%2FB.csv").write_text(HEAD + ROW)
    source = CsvSource(tmp_path)
    assert source.symbols() == ["BRK/B"]
    assert len(source.fetch("BRK/B", "1d", None, None).frame) == 1


@pytest.mark.parametrize("kind", [each for each in KINDS if each != "sample"])
def test_each_kind_says_what_it_lacks(kind):
    with pytest.raises(SourceError) as caught:
        open_source(kind, {}).symbols()
    assert caught.value.hint


def test_an_unknown_kind_names_the_known_ones():
    with pytest.raises(SourceError) as caught:
        open_source("bloomberg", {})
    assert "tiingo" in caught.value.hint
