"""Charts of intraday bars read bars that were rolled up at ingestion."""

import numpy as np
import pandas as pd
import pytest

from mltrading_marketdata.adjustment import Action
from mltrading_marketdata.bucketing import bucket
from mltrading_marketdata.codec import COLUMNS
from mltrading_marketdata.rollups import TIERS, coarsest, rolled


def walk(n: int, start: str = "2020-01-30 14:30", seed: int = 1) -> pd.DataFrame:
    """Return minutes of a random walk in cents; a tenth of them is missing."""
    rng = np.random.default_rng(seed)
    index = pd.date_range(start, periods=n, freq="min", tz="UTC", name="ts")
    close = np.round(100 + np.cumsum(rng.normal(0, 0.05, n)), 2)
    open_ = np.r_[close[0], close[:-1]]
    frame = pd.DataFrame(
        {
            "open": open_,
            "high": np.maximum(open_, close) + 0.01,
            "low": np.minimum(open_, close) - 0.01,
            "close": close,
            "volume": rng.integers(1, 900, n),
        },
        index=index,
    ).round(2)
    return frame[rng.random(n) > 0.1]


def columns(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    found = {name: frame[name].to_numpy() for name in COLUMNS[1:]}
    return {"ts": frame.index.as_unit("us").asi8} | found


def test_rolling_up_step_by_step_is_rolling_up_at_once():
    bars = columns(walk(5000))
    by_steps = rolled(rolled(bars, "5m"), "1h")
    at_once = rolled(bars, "1h")
    assert all(np.array_equal(by_steps[name], at_once[name]) for name in COLUMNS)


def test_the_longest_interval_that_has_enough_bars_is_read():
    counts = {"1m": 100_000, "5m": 20_000, "1h": 1_700, "1d": 70}
    assert coarsest(counts, "1m", 2000) == "5m"
    assert coarsest(counts, "1m", 60) == "1d"
    assert coarsest(counts, "1m", 10**6) == "1m"
    assert coarsest({}, "1m", 10) == "1m"


@pytest.mark.parametrize("points", [40, 150, 700])
def test_a_chart_is_the_same_as_from_all_the_bars(store, points):
    given = walk(20_000)
    store.upsert_bars("ACME", "1m", given, source="test")
    chart = store.candles("ACME", interval="1m", max_points=points)
    whole, name = bucket(columns(given), "1m", points)
    assert chart.attrs["bucket"] == name and len(chart) <= points
    assert np.array_equal(chart.index.as_unit("us").asi8, whole["ts"])
    for column in COLUMNS[1:]:
        assert np.array_equal(chart[column], whole[column]), column


def test_a_late_bar_and_a_correction_reach_the_chart(store):
    given = walk(20_000)
    late, corrected = given.index[::977], given.index[5::1013]
    first = given.drop(late)
    first.loc[corrected.intersection(first.index), ["open", "high", "low"]] = 0.01
    first.loc[corrected.intersection(first.index), "close"] = 0.01
    store.upsert_bars("ACME", "1m", first, source="test")
    store.upsert_bars("ACME", "1m", given, source="test")
    chart = store.candles("ACME", interval="1m", max_points=150)
    whole, _ = bucket(columns(given), "1m", 150)
    assert np.array_equal(chart.index.as_unit("us").asi8, whole["ts"])
    assert np.array_equal(chart["low"], whole["low"])
    assert chart["volume"].sum() == given["volume"].sum()


def test_a_short_range_is_drawn_in_full_detail(store):
    given = walk(60_000)
    store.upsert_bars("ACME", "1m", given, source="test")
    day = store.candles(
        "ACME", "2020-02-10", "2020-02-10 23:59", interval="1m", max_points=2000
    )
    assert len(day) == len(given["2020-02-10":"2020-02-10 23:59"])


def test_a_split_is_adjusted_for_in_what_was_rolled_up(store):
    given = walk(20_000)
    store.upsert_bars("ACME", "1m", given, source="test")
    at = pd.Timestamp("2020-02-05", tz="UTC")
    store.upsert_actions("ACME", [Action(at.value // 1000, "split", 2.0)])
    chart = store.candles("ACME", interval="1m", max_points=40)
    raw = store.candles("ACME", interval="1m", max_points=40, adjust="none")
    before = chart.index < at
    assert np.array_equal(chart["close"][before], raw["close"][before] / 2)
    assert np.array_equal(chart["close"][~before], raw["close"][~before])


def test_dividends_are_adjusted_for_alike_in_bars_and_candles(store):
    given = walk(20_000)
    store.upsert_bars("ACME", "1m", given, source="test")
    at = pd.Timestamp("2020-02-05", tz="UTC")
    store.upsert_actions("ACME", [Action(at.value // 1000, "dividend", 1.5)])
    bars = store.bars("ACME", interval="1m", adjust="all")
    chart = store.candles("ACME", interval="1m", max_points=40, adjust="all")
    assert chart["low"].min() == bars["low"].min()


def test_every_interval_knows_what_it_is_rolled_up_to():
    assert {longer for tiers in TIERS.values() for longer in tiers} <= TIERS.keys()
