"""Blocks of columns and their bytes."""

import numpy as np
import pytest

from mltrading_marketdata import Unavailable
from mltrading_marketdata.codec import CODEC, COLUMNS, DTYPES, decode, encode
from mltrading_marketdata.interval import period
from mltrading_marketdata.merging import merge


def columns(ts, value=1):
    return {"ts": np.array(ts, np.int64)} | {
        name: np.full(len(ts), value, DTYPES[name]) for name in COLUMNS[1:]
    }


def test_columns_come_back_exactly():
    given = columns([1, 2, 3], 0.1 + 0.2)
    found = decode(encode(given), CODEC)
    assert all(np.array_equal(found[name], given[name]) for name in COLUMNS)


def test_only_the_columns_asked_for_are_unpacked():
    assert list(decode(encode(columns([1])), CODEC, ("ts", "close"))) == ["ts", "close"]


def test_a_codec_of_a_later_release_is_refused():
    with pytest.raises(Unavailable, match="codec 2 is not known"):
        decode(b"", 2)


def test_damaged_bytes_are_refused():
    with pytest.raises(Unavailable, match="block is damaged"):
        decode(encode(columns([1, 2]))[:-9], CODEC)


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


@pytest.mark.parametrize(
    ("interval", "expected"),
    [("1d", [-1, 0, 43]), ("5m", [-1, 0, 172]), ("1m", [-1, 0, 518])],
)
def test_a_period_follows_the_calendar(interval, expected):
    days = ["1969-12-31", "1970-01-01", "2013-03-01"]
    ts = np.array(days, "M8[us]").astype(np.int64)
    assert period(ts, interval).tolist() == expected
