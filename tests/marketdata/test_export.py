"""What is written to files is what is stored, and can be ingested again."""

import json

import pandas as pd
import pytest

from mltrading_marketdata import (
    CsvSource,
    SampleSource,
    SourceError,
    StoreError,
    UnknownSymbol,
)
from mltrading_marketdata import export as exporting
from mltrading_marketdata import ingest, open_store
from mltrading_marketdata.export import export, page, paged, write
from mltrading_marketdata.sources import ParquetSource
from mltrading_marketdata.sources.synthetic import SyntheticSource

SOURCES = {"csv": CsvSource, "parquet": ParquetSource}


def hold(store):
    names = store.symbols().index
    bars = {name: store.bars(name, adjust="none") for name in names}
    actions = {name: store.actions(name) for name in names}
    return bars, actions, store.symbols()


@pytest.fixture
def other(sqlite_template, tmp_path):
    path = tmp_path / "other.db"
    path.write_bytes(sqlite_template.read_bytes())
    with open_store(f"sqlite:///{path}") as opened:
        yield opened


@pytest.mark.integration
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_an_export_ingested_again_is_the_same(store, other, tmp_path, form):
    ingest(store, SampleSource(), ["AAPL", "FB"])
    done = export(store, tmp_path / "out", form=form)
    assert (done["files"], done["bars"]) == (2, 3270 + 196)
    report = ingest(other, SOURCES[form](tmp_path / "out"))
    assert not report.failed and not report.total("rejected")
    bars, actions, symbols = hold(other)
    for name in ("AAPL", "FB"):
        wanted = store.bars(name, adjust="none")
        pd.testing.assert_frame_equal(bars[name], wanted)
        pd.testing.assert_frame_equal(actions[name], store.actions(name))
    pd.testing.assert_frame_equal(symbols, store.symbols().drop("ACME"))


@pytest.mark.integration
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_minutes_keep_their_time(store, other, tmp_path, form):
    now = pd.Timestamp("2026-03-20", tz="UTC")
    source = SyntheticSource(now=lambda: now)
    start = pd.Timestamp("2026-03-02", tz="UTC")
    ingest(store, source, ["DEMO"], interval="1m", start=start)
    export(store, tmp_path / "out", form=form, interval="1m")
    written = SOURCES[form](tmp_path / "out")
    ingest(other, written, interval="1m")
    pd.testing.assert_frame_equal(
        other.bars("DEMO", interval="1m"), store.bars("DEMO", interval="1m")
    )
    assert written.provenance.startswith("SYNTHETIC")


def test_a_series_longer_than_memory_is_written_in_stretches(
    store, bars, tmp_path, monkeypatch
):
    store.upsert_bars("ACME", "1d", bars(400), source="test")
    far = bars(10, start="2031-01-01")
    store.upsert_bars("ACME", "1d", far, source="test")
    monkeypatch.setitem(exporting.STRETCH, "1d", pd.Timedelta(days=90))
    export(store, tmp_path, form="csv")
    written = CsvSource(tmp_path).fetch("ACME", "1d", None, None).frame
    assert len(written) == 410 and written.index.is_monotonic_increasing


def test_pages_for_another_machine_hold_the_same(store, bars, tmp_path, monkeypatch):
    store.upsert_symbols(pd.DataFrame(index=["B", "EMPTY"]))
    store.upsert_bars("ACME", "1d", bars(400), source="test")
    store.upsert_bars("B", "1d", bars(50), source="test")
    monkeypatch.setitem(exporting.STRETCH, "1d", pd.Timedelta(days=90))
    monkeypatch.setattr(exporting, "PAGE_ROWS", 100)
    files, after = [], ("", -1)
    while after:
        said = page(store, "1d", None, after)
        files.append(tmp_path / f"{len(files):06}.json")
        files[-1].write_text(json.dumps(said))
        after = said["next"] and tuple(said["next"])
    first = json.loads(files[0].read_text())
    export(store, tmp_path / "direct", form="csv")
    write(
        tmp_path / "paged",
        paged(files),
        first["about"],
        first["actions"],
        form="csv",
        interval="1d",
        many=2,
    )
    assert len(files) > 2
    for name in ("ACME.csv", "B.csv", "symbols.csv", "actions.csv"):
        ours = (tmp_path / "paged" / name).read_bytes()
        assert ours == (tmp_path / "direct" / name).read_bytes()


def test_a_file_that_was_cut_off_never_appears(store, bars, tmp_path, monkeypatch):
    store.upsert_bars("ACME", "1d", bars(3), source="test")
    (tmp_path / "ACME.csv").write_text("as it was")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(StoreError, match="No space left") as caught:
        export(store, tmp_path, form="csv")
    assert "--path" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".csv"] == [
        "ACME.csv"
    ]
    assert (tmp_path / "ACME.csv").read_text() == "as it was"


def test_a_symbol_stays_within_the_folder(store, bars, tmp_path):
    name = "../../etc/passwd"
    store.upsert_symbols(pd.DataFrame(index=[name]))
    store.upsert_bars(name, "1d", bars(3), source="test")
    export(store, tmp_path / "out", form="csv", symbols=[name])
    assert (tmp_path / "out" / "..%2F..%2Fetc%2Fpasswd.csv").exists()
    assert CsvSource(tmp_path / "out").symbols() == [name]


def test_what_is_not_there_is_named(store, tmp_path):
    with pytest.raises(UnknownSymbol, match="NOPE"):
        export(store, tmp_path, form="csv", symbols=["NOPE"])
    with pytest.raises(StoreError, match="no 1m bars"):
        export(store, tmp_path, form="csv", interval="1m")
    with pytest.raises(StoreError, match='no format "xls"'):
        ingest(store, SampleSource(), ["FB"])
        export(store, tmp_path, form="xls")


def test_parquet_without_pyarrow_says_what_to_install(store, tmp_path, monkeypatch):
    ingest(store, SampleSource(), ["FB"])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(SourceError, match="pyarrow"):
        export(store, tmp_path, form="parquet")
