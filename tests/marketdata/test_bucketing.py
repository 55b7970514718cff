"""Candles against a plain pandas reference."""

import numpy as np
import pandas as pd
import pytest

from mltrading_marketdata import RawBars, SampleSource, bucketing
from mltrading_marketdata.codec import Columns

HOW = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}


def columns_of(raw: RawBars) -> Columns:
    frame = raw.frame
    found = {name: frame[name].to_numpy() for name in HOW}
    return found | {"ts": frame.index.as_unit("us").asi8}


@pytest.fixture(scope="module")
def sample() -> Columns:
    return columns_of(SampleSource().fetch("AAPL", "1d", None, None))


@pytest.mark.parametrize(
    ("max_points", "name", "rule"),
    [(2000, "1w", "W-SUN"), (200, "1mo", "ME"), (60, "3mo", "QE"), (14, "1y", "YE")],
)
def test_candles_equal_a_plain_resample(sample, max_points, name, rule):
    found, used = bucketing.bucket(sample, "1d", max_points)
    index = pd.DatetimeIndex(sample["ts"].view("M8[us]"))
    plain = pd.DataFrame({key: sample[key] for key in HOW}, index=index)
    plain = plain.resample(rule).agg(HOW).dropna()
    assert used == name and len(found["ts"]) == len(plain) <= max_points
    assert all((found[key] == plain[key].to_numpy()).all() for key in HOW)


def test_few_bars_stay_as_they_are(sample):
    found, used = bucketing.bucket(sample, "1d", 5000)
    assert found is sample and used == "1d"


@pytest.mark.parametrize("max_points", [1, 2, 3, 5, 13])
def test_even_years_can_be_too_many(sample, max_points):
    found, used = bucketing.bucket(sample, "1d", max_points)
    assert used == "runs" and len(found["ts"]) <= max_points
    assert found["volume"].sum() == sample["volume"].sum()
    assert found["close"][-1] == sample["close"][-1]


def test_a_candle_does_not_change_when_later_bars_arrive(sample):
    earlier = {name: column[:3000] for name, column in sample.items()}
    before, _ = bucketing.bucket(earlier, "1d", 1000)
    after, _ = bucketing.bucket(sample, "1d", 1000)
    whole = len(before["ts"]) - 1
    assert np.array_equal(before["high"][:whole], after["high"][:whole])
