"""Ingestion on both engines: idempotent, resumable, and nothing invented in between."""

from dataclasses import dataclass, field

import pandas as pd
import pytest

from mltrading_marketdata import (
    CsvSource,
    RawBars,
    SourceClosed,
    SourceDown,
    SourceError,
    Unavailable,
    ingest,
)
from mltrading_marketdata.ingestion import OVERLAP, plan
from mltrading_marketdata.ledger import Known, Ledger, Request, Run
from mltrading_marketdata.sources.synthetic import SyntheticSource

NAMES = ["A", "B", "C", "D"]


@dataclass
class Scripted:
    """A source that says what it is told to, and remembers what it was asked."""

    answers: dict = field(default_factory=dict)
    name: str = "scripted"
    provenance: str = "scripted"
    whole: bool = False
    asked: list = field(default_factory=list)
    first: pd.Timestamp | None = None

    def symbols(self):
        return list(self.answers)

    def earliest(self, interval):
        return self.first

    def fetch(self, symbol, interval, start, end):
        self.asked.append((symbol, start))
        said = self.answers[symbol]
        if isinstance(said, BaseException):
            raise said
        return RawBars(said if start is None else said[said.index >= start])


@pytest.fixture
def source(bars):
    return Scripted({name: bars(30) for name in NAMES})


def asked(source):
    return [name for name, _ in source.asked]


def test_the_same_again_writes_nothing_and_keeps_the_versions(store, source):
    assert ingest(store, source).total("inserted") == 120
    before = [store.version(name) for name in NAMES]
    report = ingest(store, source)
    assert (report.total("written"), report.failed) == (0, {})
    assert [store.version(name) for name in NAMES] == before


def test_only_what_is_new_is_asked_for_with_an_overlap(store, source, bars):
    ingest(store, source, ["A"])
    source.answers["A"] = bars(40)
    report = ingest(store, source, ["A"])
    assert report.total("inserted") == 10
    last = pd.Timestamp("2020-01-30", tz="UTC")
    assert source.asked[1] == ("A", last - OVERLAP["1d"])


def test_a_correction_within_the_overlap_is_taken(store, source, bars):
    ingest(store, source, ["A"])
    source.answers["A"] = bars(31).assign(volume=7)
    report = ingest(store, source, ["A"])
    assert (report.total("inserted"), report.total("updated")) == (1, 8)
    assert store.bars("A")["volume"].iloc[0] == 100


def test_full_asks_for_everything_again(store, source, bars):
    ingest(store, source, ["A"])
    source.answers["A"] = bars(30).assign(volume=7)
    report = ingest(store, source, ["A"], full=True)
    assert report.total("updated") == 30 and source.asked[1] == ("A", None)


def test_a_late_bar_in_a_file_is_found_without_being_asked_for(store, bars, tmp_path):
    def write(frame):
        out = frame.set_axis(frame.index.strftime("%Y-%m-%d"))
        out.to_csv(tmp_path / "ACME.csv", index_label="date")

    write(bars(300).drop(bars(300).index[3]))
    ingest(store, CsvSource(tmp_path))
    write(bars(300))
    report = ingest(store, CsvSource(tmp_path))
    assert (report.total("inserted"), report.total("unchanged")) == (1, 299)


def test_a_run_that_was_cut_off_is_gone_on_with(store, source):
    source.answers["C"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        ingest(store, source)
    source.answers["C"], source.asked[:] = source.answers["D"], []
    report = ingest(store, source)
    assert asked(source) == ["C", "D"] and report.resumed == 2
    assert len(Ledger(store.access).runs()) == 1


def test_a_database_that_fails_leaves_the_run_open(store, source, monkeypatch):
    def fail(*_, **__):
        raise Unavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "upsert_bars", fail)
        with pytest.raises(Unavailable):
            ingest(store, source)
    assert Ledger(store.access).runs()[0]["state"] == "open"
    assert ingest(store, source).total("inserted") == 120


def test_restart_begins_again(store, source):
    source.answers["C"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        ingest(store, source)
    source.answers["C"], source.asked[:] = source.answers["D"], []
    assert ingest(store, source, restart=True).resumed == 0
    assert asked(source) == NAMES
    states = [run["state"] for run in Ledger(store.access).runs()]
    assert states == ["done", "replaced"]


def test_another_request_is_another_run(store, source):
    source.answers["C"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        ingest(store, source)
    source.asked[:] = []
    assert ingest(store, source, ["A", "B"]).resumed == 0
    assert asked(source) == ["A", "B"]


def test_an_old_run_is_not_gone_on_with(store):
    ledger = Ledger(store.access)
    request = Request("s", "1d", ("A",))
    hour = 3600 * 10**6
    run = ledger.begin(request, now=0)
    assert ledger.begin(request, now=23 * hour).id == run.id
    assert ledger.begin(request, now=25 * hour).id != run.id


def test_a_source_that_closes_stops_the_run_and_the_next_goes_on(store, source):
    source.answers["B"] = SourceClosed("over the limit", "later")
    report = ingest(store, source)
    assert (asked(source), report.state) == (["A", "B"], "stopped")
    assert "over the limit (later)" in report.stopped
    source.answers["B"], source.asked[:] = source.answers["A"], []
    report = ingest(store, source)
    assert (asked(source), report.state) == (["B", "C", "D"], "done")


def test_three_without_an_answer_in_a_row_stop_it(store, source):
    source.answers |= dict.fromkeys("ABC", SourceDown("silence"))
    report = ingest(store, source)
    assert asked(source) == ["A", "B", "C"]
    assert "silence (3 symbols in a row)" in report.stopped


def test_two_without_an_answer_do_not(store, source):
    source.answers |= dict.fromkeys("AB", SourceDown("silence"))
    report = ingest(store, source)
    assert list(report.failed) == ["A", "B"] and report.state == "done"


def test_a_failed_symbol_ends_its_run_and_is_asked_again_next_time(store, source):
    source.answers["B"] = SourceError("unknown")
    assert ingest(store, source).failed == {"B": "unknown"}
    source.asked[:] = []
    ingest(store, source)
    assert asked(source) == NAMES


def test_a_symbol_that_failed_is_not_put_into_the_store(store, source):
    source.answers["B"] = SourceError("unknown")
    ingest(store, source)
    assert "B" not in store.symbols().index


def test_a_file_whose_rows_are_all_bad_is_a_failure(store, source, bars):
    source.answers["B"] = bars(3).assign(close=-1)
    report = ingest(store, source)
    assert report.failed == {"B": "all 3 rows were refused"}
    assert Ledger(store.access).rejects()[0] == 3


def test_rejects_are_kept_with_reason_and_row(store, source, bars):
    frame = bars(30)
    frame.iloc[2, frame.columns.get_loc("high")] = 0.5
    frame.iloc[9, frame.columns.get_loc("close")] = 900
    frame.iloc[9, frame.columns.get_loc("high")] = 900
    source.answers["A"] = frame
    assert ingest(store, source).total("rejected") == 2
    total, rows = Ledger(store.access).rejects(["A"])
    assert total == 2
    assert [row["reason"] for row in rows] == [
        "a price jumps 3-fold and comes straight back",
        "OHLC order",
    ]
    assert "close=900.0" in rows[0]["row"] and rows[0]["source"] == "scripted"
    assert Ledger(store.access).rejects(["B"]) == (0, [])


def test_bars_that_are_not_final_are_counted_and_left(store, source, bars):
    source.answers = {"A": bars(5, start=pd.Timestamp.now("UTC").strftime("%Y-%m-%d"))}
    report = ingest(store, source)
    assert (report.waiting, report.total("inserted")) == (5, 0)


def test_real_and_invented_bars_are_never_mixed(store, source):
    ingest(store, source, ["A"])
    now = pd.Timestamp("2020-06-01", tz="UTC")
    invented = SyntheticSource(1, now=lambda: now)
    report = ingest(store, invented, ["A", "DEMO"])
    assert "never mixed" in report.failed["A"] and "DEMO" in report.changed
    source.answers["DEMO"] = source.answers["A"]
    assert "never mixed" in ingest(store, source, ["DEMO"]).failed["DEMO"]
    assert store.info()["sources"] == [
        "scripted, ends 2020-01-30",
        "SYNTHETIC, seed 1, ends 2020-06-01",
    ]


def test_the_mark_is_there_before_the_first_invented_bar(store, monkeypatch):
    def fail(*_, **__):
        raise Unavailable("gone")

    monkeypatch.setattr(type(store), "upsert_symbols", fail)
    now = pd.Timestamp("2020-06-01", tz="UTC")
    with pytest.raises(Unavailable):
        ingest(store, SyntheticSource(1, now=lambda: now), ["DEMO"])
    labels = Ledger(store.access).labels()
    assert labels == {"source:synthetic": "SYNTHETIC, seed 1"}


def test_a_source_without_a_list_wants_names(store):
    with pytest.raises(SourceError, match="no symbols of its own"):
        ingest(store, SyntheticSource(now=lambda: pd.Timestamp.now("UTC")))


def test_the_ledger_tells_what_each_run_did(store, source):
    source.answers["B"] = SourceError("unknown")
    ingest(store, source)
    (run,) = Ledger(store.access).runs()
    assert (run["done"], run["failed"], run["inserted"]) == (3, 1, 90)
    assert (run["state"], run["symbols"]) == ("done", 4)
    assert run["ended_at"] >= run["began_at"]


def test_the_plan_asks_only_for_what_is_due():
    last = pd.Timestamp("2020-01-30", tz="UTC")
    known = {"A": Known("", last.value // 1000, frozenset())}
    request = Request("s", "1d", ("A", "B", "C"))
    wishes = plan(request, known, Run(1, frozenset("C")))
    assert [(one.symbol, one.start) for one in wishes] == [
        ("A", last - OVERLAP["1d"]),
        ("B", None),
    ]


def test_a_start_that_was_asked_for_holds_for_all(store, source):
    start = pd.Timestamp("2020-01-20", tz="UTC")
    ingest(store, source, start=start)
    ingest(store, source, start=start)
    assert {since for _, since in source.asked} == {start}


def test_a_gap_that_no_source_can_fill_is_left(store, source):
    ingest(store, source, ["A"])
    source.first = pd.Timestamp("2020-01-28", tz="UTC")
    ingest(store, source, ["A"])
    assert source.asked[1] == ("A", source.first)


@pytest.mark.integration
def test_a_million_minutes_are_taken_in_and_not_written_twice(store):
    now = pd.Timestamp("2026-03-20 22:00", tz="UTC")
    source, start = SyntheticSource(now=lambda: now), pd.Timestamp(
        "2016-01-04", tz="UTC"
    )

    def carry(**how):
        report = ingest(store, source, ["DEMO"], interval="1m", **how)
        counts = (report.total("inserted"), report.total("unchanged"))
        return counts, report.total("rejected"), report.waiting

    assert carry(start=start) == ((1_039_350, 0), 0, 0)
    version = store.version("DEMO", interval="1m")
    assert carry(start=start) == ((0, 1_039_350), 0, 0)
    # The last day again, and the bar that ended it the day before.
    assert carry() == ((0, 391), 0, 0)
    assert store.version("DEMO", interval="1m") == version
    assert len(store.candles("DEMO", interval="1m")) <= 2000


@pytest.mark.parametrize(
    ("name", "answers", "silent"),
    [
        ("yahoo", {"A": "bars", "B": SourceError("none")}, []),
        ("yahoo", {"A": SourceError("none"), "B": SourceError("none")}, ["yahoo"]),
        ("tiingo", {"A": "bars", "B": SourceClosed("no key")}, ["tiingo"]),
        ("scripted", {"A": SourceError("none")}, []),
    ],
)
def test_a_provider_that_gave_nothing_when_last_asked_is_named(
    store, bars, name, answers, silent
):
    said = {k: bars(3) if v == "bars" else v for k, v in answers.items()}
    ingest(store, Scripted(said, name=name))
    assert Ledger(store.access).silent() == silent
    ingest(store, Scripted({"A": bars(4)}, name=name))
    assert Ledger(store.access).silent() == []
