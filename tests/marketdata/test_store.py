"""What the store promises, on both engines."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import psycopg
import pytest

from mltrading_marketdata import (
    BadData,
    Limits,
    PoolExhausted,
    StoreError,
    Unavailable,
    UnknownSymbol,
    open_store,
)
from mltrading_marketdata.adjustment import Action
from mltrading_marketdata.revisions import shipped

SPLIT = Action(pd.Timestamp("2020-01-03", tz="UTC").value // 1000, "split", 2.0)


def test_bars_come_back_as_they_went_in(store, bars):
    store.upsert_bars("ACME", "1d", bars(800), source="test")
    pd.testing.assert_frame_equal(
        store.bars("ACME"), bars(800), check_freq=False, check_names=False
    )
    assert store.bars("ACME").index.name == "ts"


def test_the_same_bars_again_write_nothing(store, bars):
    first = store.upsert_bars("ACME", "1d", bars(5), source="test")
    again = store.upsert_bars("ACME", "1d", bars(5), source="test")
    assert (first.inserted, again.written, again.unchanged) == (5, 0, 5)
    assert again.version == first.version == store.version("ACME")


def test_a_correction_replaces_one_bar_and_raises_the_version(store, bars):
    first = store.upsert_bars("ACME", "1d", bars(5), source="test")
    better = bars(5).assign(volume=[100, 100, 7, 100, 100])
    done = store.upsert_bars("ACME", "1d", better, source="test")
    assert (done.inserted, done.updated, done.unchanged) == (0, 1, 4)
    assert done.version > first.version
    assert store.bars("ACME")["volume"].tolist() == [100, 100, 7, 100, 100]


def test_late_bars_find_their_place(store, bars):
    whole = bars(900)
    for part in (whole[600:], whole[:100], whole[90:650]):
        store.upsert_bars("ACME", "1d", part, source="test")
    assert store.bars("ACME")["close"].tolist() == whole["close"].tolist()
    assert store.symbols().loc["ACME", "bars"] == 900


def test_the_writer_sees_its_own_bars_at_once(store, bars):
    store.upsert_bars("ACME", "1d", bars(5), source="test")
    assert len(store.bars("ACME")) == 5
    store.upsert_bars("ACME", "1d", bars(6), source="test")
    assert len(store.bars("ACME")) == 6


def test_a_range_includes_both_ends(store, bars):
    store.upsert_bars("ACME", "1d", bars(10), source="test")
    found = store.bars("ACME", "2020-01-03", "2020-01-05", columns=["close"])
    assert found["close"].tolist() == [12, 13, 14]


def test_changing_an_answer_leaves_the_next_one_alone(store, bars):
    store.upsert_bars("ACME", "1d", bars(3), source="test")
    mine = store.bars("ACME")
    mine.loc[:, "close"] = 0
    assert store.bars("ACME")["close"].tolist() == [10, 11, 12]


def test_a_split_halves_the_prices_before_it(store, bars):
    store.upsert_bars("ACME", "1d", bars(4), source="test")
    store.upsert_actions("ACME", [SPLIT])
    assert store.bars("ACME")["close"].tolist() == [5, 5.5, 12, 13]
    assert store.bars("ACME")["volume"].tolist() == [200, 200, 100, 100]
    assert store.bars("ACME", adjust="none")["close"].tolist() == [10, 11, 12, 13]


def test_a_split_after_the_range_still_counts(store, bars):
    store.upsert_bars("ACME", "1d", bars(4), source="test")
    store.upsert_actions("ACME", [SPLIT])
    assert store.bars("ACME", end="2020-01-02")["close"].tolist() == [5, 5.5]


def test_an_action_raises_the_version_once(store, bars):
    before = store.upsert_bars("ACME", "1d", bars(4), source="test").version
    first = store.upsert_actions("ACME", [SPLIT])
    again = store.upsert_actions("ACME", [SPLIT])
    assert before < first.version == again.version == store.version("ACME")
    assert store.actions("ACME")["value"].tolist() == [2.0]


def test_latest_compares_with_the_bar_before(store, bars):
    store.upsert_bars("ACME", "1d", bars(4), source="test")
    row = store.latest(["ACME"]).loc["ACME"]
    assert (row["close"], row["previous_close"]) == (13, 12)
    assert row["change"] == pytest.approx(13 / 12 - 1)


def test_latest_knows_that_the_last_bar_follows_a_split(store, bars):
    store.upsert_bars("ACME", "1d", bars(3), source="test")
    store.upsert_actions("ACME", [SPLIT])
    assert store.latest().loc["ACME", "change"] == pytest.approx(12 / 5.5 - 1)


def test_latest_knows_two_splits_on_two_days_without_bars(store, bars):
    store.upsert_bars("ACME", "1d", bars(4).iloc[[0, 3]], source="test")
    days = bars(4).index.as_unit("us").asi8
    splits = [Action(int(days[at]), "split", ratio) for at, ratio in ((1, 2), (2, 3))]
    store.upsert_actions("ACME", splits)
    rows = store.latest()
    assert rows["previous_close"].to_dict() == {"ACME": 10 / 6}


@pytest.mark.parametrize("shape", ["in one go", "days before", "year by year", "back"])
def test_latest_is_right_in_whatever_order_bars_come(store, bars, shape):
    """A first day of a year is alone in its chunk: the bar before is in another."""
    all_bars = bars(3 * 365 + 2, "2021-01-01")
    years = [all_bars.loc[str(year)] for year in range(2021, 2025)]
    order = {
        "in one go": [all_bars],
        "days before": [all_bars.iloc[-1:], all_bars.iloc[:-1]],
        "year by year": years,
        "back": years[::-1],
    }
    for part in order[shape]:
        store.upsert_bars("ACME", "1d", part, source="test")
    row = store.latest(["ACME"]).loc["ACME"]
    assert row["ts"] == all_bars.index[-1]
    assert row["previous_close"] == all_bars["close"].iloc[-2]
    assert row["close"] == all_bars["close"].iloc[-1]


def test_a_correction_of_the_bar_before_last_reaches_latest(store, bars):
    store.upsert_bars("ACME", "1d", bars(2, "2021-12-31"), source="test")
    better = bars(1, "2021-12-31") * 2
    store.upsert_bars("ACME", "1d", better, source="test")
    assert store.latest()["previous_close"].to_dict() == {"ACME": 20.0}


def test_the_first_bar_ever_has_no_change(store, bars):
    store.upsert_bars("ACME", "1d", bars(1), source="test")
    assert np.isnan(store.latest().loc["ACME", "change"])


def test_a_panel_leaves_holes_where_a_symbol_has_no_bar(store, bars):
    store.upsert_symbols(pd.DataFrame(index=["LATE"]))
    store.upsert_bars("ACME", "1d", bars(3), source="test")
    store.upsert_bars("LATE", "1d", bars(2, "2020-01-02"), source="test")
    panel = store.panel(["LATE", "ACME"], "2020-01-01", "2020-01-03")
    assert list(panel.columns) == ["LATE", "ACME"]
    assert panel.fillna(0).to_numpy().tolist() == [[0, 10], [10, 11], [11, 12]]


def test_a_panel_is_adjusted_like_bars(store, bars):
    store.upsert_bars("ACME", "1d", bars(4), source="test")
    store.upsert_actions("ACME", [SPLIT])
    panel = store.panel(["ACME"], "2020-01-02", None, "volume")
    assert panel["ACME"].tolist() == [200, 100, 100]


@pytest.mark.parametrize(
    "name",
    ['A"B', "A\\B", 'A\\"B', "A,B", "{A}", "NULL", "Ä", "A B", "A'B", "A%sB"],
)
def test_a_name_is_a_name_whatever_is_in_it(store, bars, name):
    store.upsert_symbols(pd.DataFrame(index=[name]))
    store.upsert_bars(name, "1d", bars(2), source="test")
    assert store.latest([name]).index.tolist() == [name]
    assert store.panel([name, "ACME"])[name].tolist() == [10, 11]


def test_minutes_and_days_are_separate_series(store, bars):
    store.upsert_bars("ACME", "1m", bars(90_000, freq="min"), source="test")
    assert len(store.bars("ACME")) == 0
    found = store.candles("ACME", interval="1m", max_points=100)
    assert (len(found), found.attrs["bucket"]) == (63, "1d")


def test_a_symbol_without_bars_is_empty_not_an_error(store):
    empty = store.bars("ACME")
    assert len(empty) == 0 and str(empty.index.tz) == "UTC"
    assert len(store.candles("ACME")) == len(store.panel(["ACME"])) == 0
    assert len(store.latest()) == len(store.actions("ACME")) == 0
    assert store.symbols().loc["ACME", "bars"] == store.version("ACME") == 0


@pytest.mark.parametrize("ask", ["bars", "candles", "actions", "version"])
def test_an_unknown_symbol_is_an_error_that_names_it(store, ask):
    with pytest.raises(UnknownSymbol, match="NOPE"):
        getattr(store, ask)("NOPE")


def test_bars_of_an_unknown_symbol_are_not_written(store, bars):
    with pytest.raises(UnknownSymbol, match="NOPE"):
        store.upsert_bars("NOPE", "1d", bars(1), source="test")
    assert store.info()["bars"] == 0


def test_bad_rows_are_counted_and_the_good_ones_stay(store, bars):
    frame = bars(4)
    frame.iloc[1, frame.columns.get_loc("high")] = np.nan
    frame.iloc[2, frame.columns.get_loc("low")] = 99
    done = store.upsert_bars("ACME", "1d", frame, source="test")
    assert (done.inserted, done.rejected) == (2, 2)
    again = store.upsert_bars("ACME", "1d", frame, source="test")
    assert (again.written, again.version) == (0, done.version)


def test_naive_timestamps_are_refused(store, bars):
    with pytest.raises(BadData, match="time-zone-aware"):
        store.upsert_bars("ACME", "1d", bars(2).tz_localize(None), source="test")


def test_symbols_keep_what_a_later_source_does_not_know(store):
    store.upsert_symbols(pd.DataFrame({"name": ["Acme"]}, index=["ACME"]))
    done = store.upsert_symbols(
        pd.DataFrame({"name": [""], "sector": ["Tools"]}, index=["ACME"])
    )
    row = store.symbols().loc["ACME"]
    assert (row["name"], row["sector"], done.updated) == ("Acme", "Tools", 1)


@pytest.mark.integration
def test_writers_at_the_same_time_lose_nothing(store, url, bars):
    whole = bars(60)

    def write(part: int) -> None:
        with open_store(url) as own:
            for day in range(part, 60, 4):
                own.upsert_bars("ACME", "1d", whole[day : day + 1], source="test")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert store.bars("ACME")["close"].tolist() == whole["close"].tolist()


@pytest.mark.integration
def test_a_forked_child_reads_right_answers(store, bars):
    store.upsert_bars("ACME", "1d", bars(50), source="test")
    store.version("ACME")
    children = [_fork(lambda: _reads_right(store)) for _ in range(3)]
    assert _reads_right(store)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


def _reads_right(store) -> bool:
    stamps = {store.version("ACME") for _ in range(50)}
    return len(stamps) == 1 and store.bars("ACME")["close"].sum() == 1725


def _fork(work) -> int:
    child = os.fork()
    if child:
        return child
    verdict = 1
    try:
        verdict = 0 if work() else 1
    finally:
        os._exit(verdict)


def test_a_full_pool_says_so_in_time(url):
    with open_store(url, Limits(pool_size=1, pool_timeout_s=0.05)) as store:
        with (
            store._access._engine.connect(),
            pytest.raises(PoolExhausted, match="busy"),
        ):
            store.ping()


def test_info_tells_what_is_there(store, bars):
    store.upsert_bars("ACME", "1d", bars(3), source="test")
    info = store.info()
    assert (info["symbols"], info["bars"], info["schema"]) == (1, 3, shipped()[-1])
    assert info["last_bar"] == "2020-01-03T00:00:00+00:00"
    assert info["sources"] == ["test, ends 2020-01-03"]


def test_threads_share_one_store(store, bars):
    store.upsert_bars("ACME", "1d", bars(300), source="test")
    seen, wait = [], threading.Barrier(5)

    def read(_: int) -> None:
        wait.wait()
        seen.append(len(store.bars("ACME")))

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(read, range(5)))
    assert seen == [300] * 5


def test_unknown_words_are_refused(store):
    with pytest.raises(StoreError, match="interval '2d'"):
        store.bars("ACME", interval="2d")
    with pytest.raises(StoreError, match="adjust 'some'"):
        store.bars("ACME", adjust="some")
    with pytest.raises(StoreError, match="cannot read 'soon'"):
        store.bars("ACME", "soon")


def test_a_missing_file_is_not_made_by_reading(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/none.db") as store:
        with pytest.raises(Unavailable, match="cannot be opened"):
            store.ping()
    assert not list(tmp_path.iterdir())


@pytest.mark.integration
def test_a_lost_connection_is_not_seen_by_readers(postgres_url):
    with open_store(postgres_url) as store:
        store.ping()
        with psycopg.connect(postgres_url, autocommit=True) as c:
            c.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'mltrading'"
            )
        assert store.info()["symbols"] == 0


@pytest.mark.integration
def test_a_connection_lost_during_a_question_is_asked_again(postgres_url):
    with open_store(postgres_url) as store:
        tries = []

        def cut_the_first(c):
            tries.append(1)
            if len(tries) == 1:
                c.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
            return c.exec_driver_sql("SELECT 7").scalar()

        assert store._access.read(cut_the_first) == 7
