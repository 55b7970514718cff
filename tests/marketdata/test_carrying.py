"""An ingestion over two machines does what one in one process does."""

import json

import pytest

from mltrading_marketdata import (
    CsvSource,
    RawBars,
    SourceClosed,
    SourceDown,
    StoreError,
)
from mltrading_marketdata.carrying import (
    begin,
    describe,
    gather,
    merge,
    read_bars,
    request_of,
    write_bars,
)
from mltrading_marketdata.ledger import Ledger
from mltrading_marketdata.progress import Quiet
from tests.marketdata.test_ingestion import NAMES, Scripted


@pytest.fixture
def source(bars):
    return Scripted({name: bars(30) for name in NAMES})


def described(source):
    return describe(source, None, "1d", None, None, False)


def started(store, source, **how):
    request = request_of(json.loads(json.dumps(described(source))))
    said = begin(store, request, **{"restart": False, "dry_run": False} | how)
    return {"request": request.as_json(), **json.loads(json.dumps(said))}


def carried(store, source, folder, **limits):
    """Carry everything; return the reports of all batches."""
    state, reports = started(store, source), []
    while state["wishes"]:
        state = gather(source, state, folder, Quiet(), **limits)
        reports.append(merge(store, folder))
    return reports


def test_what_is_carried_is_what_the_source_said(store, source, tmp_path):
    (report,) = carried(store, source, tmp_path / "carry")
    assert report.total("inserted") == 120 and not report.failed
    assert store.bars("A")["close"].tolist() == source.answers["A"]["close"].tolist()
    (run,) = Ledger(store.access).runs()
    assert (run["state"], run["done"]) == ("done", 4)


def test_it_goes_in_batches_of_a_size(store, source, tmp_path):
    reports = carried(store, source, tmp_path / "carry", largest=1)
    assert [list(report.changed) for report in reports] == [[name] for name in NAMES]
    assert len(Ledger(store.access).runs()) == 1


def test_it_goes_in_batches_of_a_time(store, source, tmp_path):
    assert len(carried(store, source, tmp_path / "carry", longest_s=-1)) == 4


def test_cut_off_between_batches_it_goes_on_where_it_stopped(store, source, tmp_path):
    state = gather(source, started(store, source), tmp_path / "c", Quiet(), largest=1)
    merge(store, tmp_path / "c")
    assert len(state["wishes"]) == 3
    again = started(store, source)
    assert (again["run"], again["resumed"]) == (state["run"], 1)
    assert started(store, source, restart=True)["resumed"] == 0


def test_only_what_is_new_is_asked_for(store, source, tmp_path):
    carried(store, source, tmp_path / "carry")
    wishes = started(store, source)["wishes"]
    assert {one["start"] for one in wishes} == {"2020-01-23T00:00:00+00:00"}


def test_a_dry_run_begins_nothing(store, source):
    assert started(store, source, dry_run=True)["run"] == 0
    assert Ledger(store.access).runs() == []


def test_actions_and_names_come_along(store, tmp_path):
    (tmp_path / "symbols.csv").write_text("symbol,name\nX,Ex Inc.\n")
    (tmp_path / "actions.csv").write_text(
        "symbol,date,kind,value\nX,2020-01-03,split,2\n"
    )
    (tmp_path / "X.csv").write_text(
        "date,open,high,low,close,volume\n2020-01-02,8,8,8,8,1\n2020-01-03,4,4,4,4,1\n"
    )
    carried(store, CsvSource(tmp_path), tmp_path / "carry")
    assert store.symbols().loc["X", "name"] == "Ex Inc."
    assert store.bars("X")["close"].tolist() == [4, 4]


def test_a_source_that_closes_stops_the_run(store, source, tmp_path):
    source.answers["B"] = SourceClosed("over the limit")
    (report,) = carried(store, source, tmp_path / "carry")
    assert (report.state, report.stopped) == ("stopped", "over the limit")
    assert started(store, source)["resumed"] == 1


def test_silence_is_counted_over_batches(store, source, tmp_path):
    source.answers |= dict.fromkeys("ABC", SourceDown("silence"))
    reports = carried(store, source, tmp_path / "carry", longest_s=-1)
    assert [report.state for report in reports] == ["done", "done", "stopped"]
    assert Ledger(store.access).runs()[0]["state"] == "stopped"


def test_a_frame_that_cannot_be_read_fails_its_symbol_only(store, source, tmp_path):
    source.answers["B"] = source.answers["B"].drop(columns="volume")
    (report,) = carried(store, source, tmp_path / "carry")
    assert "lack the columns" in report.failed["B"] and len(report.changed) == 3


def test_bad_rows_travel_and_are_refused_where_the_database_is(
    store, source, bars, tmp_path
):
    frame = bars(30)
    frame.iloc[4, :] = float("nan")
    source.answers["A"] = frame
    (report,) = carried(store, source, tmp_path / "carry")
    assert report.total("rejected") == 1
    assert Ledger(store.access).rejects()[1][0]["reason"] == "a price is not finite"


def test_numbers_keep_every_bit(tmp_path, bars):
    frame = bars(3) / 3
    write_bars(tmp_path / "x.npz", frame)
    found = read_bars(tmp_path / "x.npz")
    assert (found.index == frame.index).all()
    assert (found.to_numpy() == frame.to_numpy()).all()


@pytest.mark.parametrize("content", [b"", b"PK nothing", b"\x80\x04."])
def test_a_file_that_holds_no_bars_is_an_error(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(StoreError, match="holds no bars"):
        read_bars(tmp_path / "x.npz")


@pytest.mark.parametrize("text", ["", "{}", '{"format": 99}', "[]"])
def test_a_folder_of_another_release_is_refused(store, tmp_path, text):
    (tmp_path / "carry.json").write_text(text)
    with pytest.raises(StoreError, match="can't be read") as caught:
        merge(store, tmp_path)
    assert "inv deploy" in caught.value.hint


@pytest.mark.parametrize("said", [{}, [], {"symbols": ["A"]}, {"symbols": 1}])
def test_a_request_that_is_none_is_refused(said):
    with pytest.raises(StoreError, match="can't be read"):
        request_of(said)


def test_an_item_cannot_name_a_file_elsewhere(store, source, tmp_path):
    folder = tmp_path / "carry"
    gather(source, started(store, source), folder, Quiet())
    said = json.loads((folder / "carry.json").read_text())
    said["items"][0]["file"] = "../../secret.npz"
    (folder / "carry.json").write_text(json.dumps(said))
    with pytest.raises(StoreError, match="carry/secret.npz"):
        merge(store, folder)


def test_an_empty_answer_is_carried_too(store, source, bars, tmp_path):
    source.fetch = lambda *_: RawBars(bars(3).iloc[:0])
    (report,) = carried(store, source, tmp_path / "carry")
    assert not report.failed and report.total("inserted") == 0
