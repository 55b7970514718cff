"""The sample as a user meets it: real bars, splits found and adjusted."""

import shutil

import numpy as np
import pandas as pd
import pytest

from mltrading_marketdata import SampleSource, ingest, open_store


@pytest.fixture(scope="module")
def filled(sqlite_template, tmp_path_factory):
    path = tmp_path_factory.mktemp("sample") / "market.db"
    shutil.copy(sqlite_template, path)
    with open_store(f"sqlite:///{path}") as store:
        ingest(store, SampleSource())
        yield store


def test_it_holds_five_symbols_and_all_bars(filled):
    info = filled.info()
    assert (info["symbols"], info["bars"]) == (5, 12154)
    assert info["sources"] == ["sample, ends 2013-03-01"]
    assert filled.symbols()["bars"].to_dict()["FB"] == 196


def test_its_splits_are_the_known_ones(filled):
    found = {}
    for name in filled.symbols().index:
        actions = filled.actions(name)
        splits = actions[actions["kind"] == "split"]
        found |= {(name, str(ts.date())): v for ts, v in splits["value"].items()}
    assert found == {
        ("AAPL", "2000-06-21"): 2,
        ("AAPL", "2005-02-28"): 2,
        ("MSFT", "2003-02-18"): 2,
    }


def test_its_dividends_are_the_ones_that_were_paid(filled):
    actions = filled.actions("AAPL")
    paid = actions[actions["kind"] == "dividend"]["value"]
    assert paid.tolist() == pytest.approx([2.65, 2.65, 2.65])
    special = filled.actions("MSFT").loc["2004-11-15", "value"]
    assert special == pytest.approx(3.08)


def test_adjusted_closes_have_no_jump_of_half_but_the_real_one(filled):
    closes = filled.panel(filled.symbols().index)
    change = closes.pct_change(fill_method=None).stack()
    jumps = change[(change < -0.4) | (change > 0.6)]
    # 2000-09-29: the profit warning; the source's own adjusted close has it too.
    assert [(str(ts.date()), name) for ts, name in jumps.index] == [
        ("2000-09-29", "AAPL")
    ]


@pytest.mark.parametrize("name", ["AAPL", "GOOG", "IBM", "MSFT"])
def test_fully_adjusted_returns_are_the_source_s_own(filled, name):
    raw = SampleSource()
    raw.fetch(name, "1d", None, None)
    own = raw._bars[raw._bars["symbol"] == name]["adj_close"].to_numpy()
    ours = filled.bars(name, adjust="all")["close"].to_numpy()
    assert np.allclose(ours[1:] / ours[:-1], own[1:] / own[:-1], rtol=1e-6)


def test_ingesting_it_twice_writes_nothing(filled):
    before = {name: filled.version(name) for name in filled.symbols().index}
    report = ingest(filled, SampleSource())
    assert (report.total("written"), report.total("unchanged")) == (0, 12154)
    assert {name: filled.version(name) for name in before} == before


def test_a_source_that_lacks_a_symbol_is_a_failure_not_an_empty_answer(filled):
    report = ingest(filled, SampleSource(), ["IBM", "TSLA"])
    assert list(report.changed) == ["IBM"]
    assert "the sample has no TSLA" in report.failed["TSLA"]


def test_candles_of_thirteen_years_fit_on_a_screen(filled):
    candles = filled.candles("IBM", max_points=700)
    assert candles.attrs["bucket"] == "1w" and len(candles) <= 700
    assert candles.index[0] == pd.Timestamp("2000-03-01", tz="UTC")
