"""A folder of files as a source: it answers, or it says why not."""

import pandas as pd
import pytest

from mltrading_marketdata import CsvSource, SourceError, ingest

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
        (HEAD + ",1,3,1,2,10\n", "ACME.csv"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error(tmp_path, text, reason):
    with pytest.raises(SourceError, match=reason):
        fetch(tmp_path, text)


def test_an_empty_or_missing_folder_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="no <SYMBOL>.csv"):
        CsvSource(tmp_path).symbols()
    with pytest.raises(SourceError, match="no such folder"):
        CsvSource(tmp_path / "none").symbols()


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
