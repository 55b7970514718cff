"""Which bars of an answer are taken in: no jump that never was, nothing unfinished."""

import numpy as np
import pandas as pd
import pytest

from mltrading_marketdata.adjustment import Action
from mltrading_marketdata.screening import JUMPS, screen

LATER = pd.Timestamp("2030-01-01", tz="UTC")


def daily(closes, start="2020-01-01", freq="D"):
    close = np.array(closes, float)
    index = pd.date_range(start, periods=len(close), freq=freq, tz="UTC")
    columns = {"open": close, "high": close * 1.01, "low": close * 0.99}
    return pd.DataFrame(columns | {"close": close, "volume": 1}, index=index)


def taken(frame, actions=(), interval="1d", now=LATER, exchange=""):
    found = screen(frame, list(actions), interval, now=now, exchange=exchange)
    return found.columns["close"].tolist(), found


@pytest.mark.parametrize("wrong", [30.5, 1000, 3.3, 0.1])
def test_a_jump_that_comes_straight_back_is_refused(wrong):
    closes, found = taken(daily([10, 10, wrong, 10, 10]))
    assert closes == [10, 10, 10, 10]
    (reject,) = found.rejects
    assert "jumps 3-fold and comes straight back" in reject.reason
    assert f"close={float(wrong)!r}" in reject.row


@pytest.mark.parametrize("closes", [[10, 10, 29, 10], [10, 10, 40, 40, 41], [40, 10]])
def test_a_jump_that_stays_or_is_within_the_limit_is_taken(closes):
    assert taken(daily([*closes, closes[-1]]))[0] == [*closes, closes[-1]]


def test_a_wick_alone_is_a_jump_too():
    frame = daily([10, 10, 10, 10])
    frame.iloc[1, frame.columns.get_loc("high")] = 31
    frame.iloc[2, frame.columns.get_loc("low")] = 3
    closes, found = taken(frame)
    assert closes == [10, 10] and len(found.rejects) == 2


def test_bars_between_two_jumps_are_judged_by_what_was_taken():
    assert taken(daily([10, 40, 10, 40, 10, 10]))[0] == [10, 10, 10, 10]


def test_a_split_explains_a_jump():
    split = Action(pd.Timestamp("2020-01-03", tz="UTC").value // 1000, "split", 7)
    closes, found = taken(daily([700, 700, 100, 101, 100]), [split])
    assert closes == [700, 700, 100, 101, 100] and not found.rejects


def test_a_price_in_old_shares_after_a_split_is_a_jump():
    split = Action(pd.Timestamp("2020-01-03", tz="UTC").value // 1000, "split", 7)
    assert taken(daily([700, 700, 100, 700, 101, 100]), [split])[0] == [
        *(700, 700, 100, 101, 100)
    ]


def test_the_newest_bar_waits_until_a_later_one_confirms_its_jump():
    closes, found = taken(daily([10, 10, 40]))
    assert (closes, found.waiting, found.rejects) == ([10, 10], 1, [])
    assert taken(daily([10, 10, 40, 40]))[0] == [10, 10, 40, 40]
    assert taken(daily([10, 10, 40, 10]))[0] == [10, 10, 10]


def test_minutes_have_a_narrower_limit():
    assert JUMPS["1m"] < JUMPS["1d"]
    frame = daily([10, 10, 21, 10], freq="min")
    assert taken(frame, interval="1m")[0] == [10, 10, 10]


def test_bad_rows_are_refused_before_jumps_are_looked_for():
    frame = daily([10, 10, 40, 10])
    frame.iloc[1, frame.columns.get_loc("close")] = np.nan
    closes, found = taken(frame)
    assert closes == [10, 10] and len(found.rejects) == 2


@pytest.mark.parametrize(
    ("now", "exchange", "last"),
    [
        ("2020-01-03 21:10", "NASDAQ", 2),  # 16:10 in New York
        ("2020-01-03 21:20", "NASDAQ", 3),
        ("2020-06-03 20:20", "NYSE", 3),  # summer: 16:20
        ("2020-01-03 16:50", "XETR", 3),
        ("2020-01-03 16:40", "XETR", 2),
        ("2020-01-03 23:59", "", 2),
        ("2020-01-04 00:00", "", 3),
        ("2020-01-03 21:20", "nobody knows", 2),
    ],
)
def test_a_daily_bar_waits_for_the_close(now, exchange, last):
    now = pd.Timestamp(now, tz="UTC")
    frame = daily([10, 11, 12], start=now.replace(day=1).normalize())
    closes, found = taken(frame, now=now, exchange=exchange)
    assert (len(closes), found.waiting) == (last, 3 - last)


def test_a_short_session_is_over_early():
    frame = daily([10, 11], start="2023-07-02")  # the day before a holiday: until 13:00
    now = pd.Timestamp("2023-07-03 17:20", tz="UTC")
    assert len(taken(frame, now=now, exchange="NYSE")[0]) == 2
    assert len(taken(frame, now=now)[0]) == 1


def test_an_intraday_bar_waits_until_its_time_is_over():
    frame = daily([10, 11, 12], start="2020-01-03 14:30", freq="min")
    now = pd.Timestamp("2020-01-03 14:32:30", tz="UTC")
    closes, found = taken(frame, interval="1m", now=now)
    assert closes == [10, 11] and found.waiting == 1


def test_a_running_bar_off_the_grid_waits_and_is_not_refused():
    frame = daily([10, 11], start="2020-01-03 14:30:17", freq="min").iloc[:1]
    now = pd.Timestamp("2020-01-03 14:30:40", tz="UTC")
    _, found = taken(frame, interval="1m", now=now)
    assert (found.waiting, found.rejects) == (1, [])


def test_nothing_at_all_is_nothing():
    closes, found = taken(daily([]))
    assert (closes, found.waiting, found.rejects) == ([], 0, [])
