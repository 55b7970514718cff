"""Which bars are missing, by the hours of the exchange."""

import numpy as np
import pandas as pd
import pytest

from mltrading_marketdata import StoreError
from mltrading_marketdata.sessions import Gap, expected, missing

HOUR = 3_600_000_000
DAY = 24 * HOUR


def hours(*days: tuple[int, int, int, int, int]) -> dict[str, np.ndarray]:
    names = ("ts", "open", "close", "break_start", "break_end")
    return dict(zip(names, np.array(days, np.int64).T, strict=True))


def test_an_hour_that_begins_at_half_past_is_counted_from_the_open():
    half = HOUR // 2
    open_, close = 14 * HOUR + half, 21 * HOUR
    found = expected(hours((0, open_, close, -1, -1)), "1h", 0, DAY)
    assert found.tolist() == [open_ + at * HOUR for at in range(7)]


def test_nothing_is_expected_while_the_exchange_pauses():
    found = expected(hours((0, 0, 5 * HOUR, 2 * HOUR, 3 * HOUR)), "1h", 0, DAY)
    assert (found // HOUR).tolist() == [0, 1, 3, 4]


def test_nothing_is_expected_outside_of_the_range():
    days = hours(*((at * DAY, 0, 1, -1, -1) for at in range(5)))
    assert (expected(days, "1d", DAY, 3 * DAY) // DAY).tolist() == [1, 2, 3]


def test_missing_bars_that_follow_each_other_are_one_gap():
    wanted = np.arange(8, dtype=np.int64) * DAY
    there = wanted[[0, 3, 4, 7]]
    gaps = missing(there, wanted, "1d")
    assert gaps == [Gap(DAY, 2 * DAY, 2), Gap(5 * DAY, 6 * DAY, 2)]
    assert missing(wanted, wanted, "1d") == []
    assert missing(there[:0], wanted, "1d") == [Gap(0, 7 * DAY, 8)]


def test_a_bar_that_is_stamped_within_its_time_is_there():
    wanted = np.array([0, HOUR, 2 * HOUR])
    assert missing(wanted + HOUR // 2, wanted, "1h") == []


@pytest.fixture
def listed(store, bars):
    """Daily bars over Christmas, weekends and all, without 3 and 6 January."""
    store.upsert_symbols(pd.DataFrame({"exchange": ["NYSE"]}, index=["ACME"]))
    every = bars(20, "2019-12-20")
    lacking = every.index.isin(pd.DatetimeIndex(["2020-01-03", "2020-01-06"], tz="UTC"))
    store.upsert_bars("ACME", "1d", every[~lacking], source="test")
    return store


@pytest.mark.integration
def test_a_holiday_and_a_weekend_are_no_gaps(listed):
    gaps = listed.gaps("ACME")
    assert gaps["bars"].tolist() == [2]
    assert gaps["start"].tolist() == [pd.Timestamp("2020-01-03", tz="UTC")]
    assert gaps["end"].tolist() == [pd.Timestamp("2020-01-06", tz="UTC")]


def test_a_range_that_is_asked_for_counts_beyond_the_bars(listed):
    gaps = listed.gaps("ACME", "2020-01-07", "2020-01-14")
    assert gaps["bars"].sum() == 4


def test_half_a_day_before_christmas_is_not_missed(store, bars):
    store.upsert_symbols(pd.DataFrame({"exchange": ["NYSE"]}, index=["ACME"]))
    # The 24th closed at 18:00 UTC; the 25th is a holiday.
    eve = bars(210, "2019-12-24 14:30", "min")
    store.upsert_bars("ACME", "1m", eve, source="test")
    assert store.gaps("ACME", interval="1m").empty
    later = store.gaps("ACME", "2019-12-24", "2019-12-26 14:31", interval="1m")
    assert later["bars"].tolist() == [2]


@pytest.mark.integration
def test_hours_that_are_known_are_not_made_again(listed, monkeypatch):
    listed.gaps("ACME")
    monkeypatch.setattr("mltrading_marketdata.sessions._made", None)
    assert len(listed.gaps("ACME")) == 1


@pytest.mark.parametrize("exchange", ["", "Nowhere"])
def test_an_exchange_without_a_calendar_is_named(store, bars, exchange):
    store.upsert_symbols(pd.DataFrame({"exchange": [exchange]}, index=["ACME"]))
    store.upsert_bars("ACME", "1d", bars(3), source="test")
    with pytest.raises(StoreError, match="no calendar of") as told:
        store.gaps("ACME")
    assert "NASDAQ" in told.value.hint


def test_a_symbol_without_bars_has_no_gaps(store):
    assert store.gaps("ACME").empty
