"""Chunks of columns and their bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrading_marketdata import Unavailable
from mltrading_marketdata.codec import CODEC, COLUMNS, DTYPES, encode, gathered
from mltrading_marketdata.interval import period, span
from mltrading_marketdata.merging import merge

# A column spans less than 2**63, also when it is rounded to hundreds.
WHOLE = st.integers(-(2**62) + 100, 2**62 - 100)
FLOATS = st.floats(width=64) | st.floats(width=32)
DECIMALS = st.integers(-(10**9), 10**9).map(lambda cents: cents / 100)


def columns(ts, value=1):
    return {"ts": np.array(ts, np.int64)} | {
        name: np.full(len(ts), value, DTYPES[name]) for name in COLUMNS[1:]
    }


def back(payload, rows, names=COLUMNS, wanted=COLUMNS):
    return gathered([(rows, CODEC, payload)], names, wanted)


@given(st.lists(WHOLE, min_size=1) | st.lists(WHOLE.map(lambda n: n // 100 * 100)))
def test_whole_numbers_come_back_exactly(numbers):
    column = np.array(numbers, np.int64)
    found = back(encode({"ts": column}), len(column), ("ts",))
    assert np.array_equal(found["ts"], column)


@given(st.lists(FLOATS) | st.lists(DECIMALS) | st.lists(DECIMALS | FLOATS))
def test_floats_come_back_exactly(numbers):
    column = np.array(numbers, np.float64)
    found = back(encode({"x": column}), len(column), ("x",), ("x",))
    assert np.array_equal(found["x"], column, equal_nan=True)


@pytest.mark.parametrize(
    ("value", "bytes_each"),
    [(12.34, 0), (0.1 + 0.2, 8), (float(np.float32(0.1)), 4)],
    ids=["a decimal, always the same", "no decimal", "a float32"],
)
def test_a_value_takes_the_bytes_that_it_needs(value, bytes_each):
    rows = 1000
    spread = np.linspace(1, 1, rows) * value
    size = len(encode({"x": spread}))
    assert size == 12 + 16 + rows * bytes_each


def test_a_year_of_cents_takes_two_bytes_a_price():
    close = np.round(np.linspace(100, 300, 253), 2)
    assert len(encode({"close": close})) == 12 + 16 + 253 * 2


def test_days_and_minutes_are_counted_in_their_units():
    days = np.arange(253, dtype=np.int64) * 86_400_000_000
    assert len(encode({"ts": days})) == 12 + 16 + 253


def test_a_column_may_be_left_out():
    found = back(encode(columns([1, 2], 5)), 2, wanted=("ts", "close"))
    assert list(found) == ["ts", "close"] and found["close"].tolist() == [5, 5]


def test_chunks_follow_each_other_in_one_set_of_columns():
    parts = [encode(columns([1, 2])), encode(columns([3]))]
    found = gathered([(2, CODEC, parts[0]), (1, CODEC, parts[1])])
    assert found["ts"].tolist() == [1, 2, 3]


def test_a_codec_of_a_later_release_is_refused():
    with pytest.raises(Unavailable, match="codec 9 is not known"):
        gathered([(1, 9, b"")])


@pytest.mark.parametrize("place", [0, 4, 9, 13, 20, -1])
def test_damaged_bytes_are_refused(place):
    payload = bytearray(encode(columns([1, 2], 3)))
    payload[place] ^= 1
    with pytest.raises(Unavailable, match="chunk is damaged"):
        back(bytes(payload), 2)


def test_bytes_that_were_cut_off_are_refused():
    payload = encode(columns(range(9), 0.1 + 0.2))
    for size in (0, 5, 30, len(payload) - 1):
        with pytest.raises(Unavailable, match="chunk is damaged"):
            back(payload[:size], 9)


def test_a_chunk_that_has_other_rows_than_its_row_says_is_refused():
    with pytest.raises(Unavailable, match="chunk is damaged"):
        back(encode(columns([1, 2], 0.1 + 0.2)), 3)


def test_a_merge_counts_new_changed_and_same():
    new = columns([0, 2, 3, 9])
    new["close"][1] = 7
    merged, *counts = merge(columns([1, 2, 3]), new)
    assert counts == [2, 1, 1]
    assert merged["ts"].tolist() == [0, 1, 2, 3, 9]
    assert merged["close"].tolist() == [1, 1, 7, 1, 1]


def test_nothing_new_gives_back_the_old_object():
    old = columns([1, 2, 3])
    assert merge(old, columns([2]))[0] is old


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)))
def test_a_merge_is_the_union_in_order_and_the_new_one_wins(old, new):
    merged, inserted, updated, same = merge(
        columns(sorted(old), 1), columns(sorted(new), 2)
    )
    assert merged["ts"].tolist() == sorted(old | new)
    expected = [2 if ts in new else 1 for ts in sorted(old | new)]
    assert merged["close"].tolist() == expected
    assert (inserted, updated, same) == (len(new - old), len(new & old), 0)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [("1d", [-1, 0, 43]), ("5m", [-1, 0, 172]), ("1m", [-1, 0, 518])],
)
def test_a_period_follows_the_calendar(interval, expected):
    days = ["1969-12-31", "1970-01-01", "2013-03-01"]
    ts = np.array(days, "M8[us]").astype(np.int64)
    assert period(ts, interval).tolist() == expected


@pytest.mark.parametrize("interval", ["1m", "5m", "1h", "1d"])
def test_the_span_of_a_period_holds_its_first_and_last_moment(interval):
    start, end = span(518, interval)
    ends = np.array([start - 1, start, end - 1, end])
    assert period(ends, interval).tolist() == [517, 518, 518, 519]
