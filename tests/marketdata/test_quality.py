"""Which rows are bars."""

import numpy as np
import pandas as pd
import pytest

from mltrading_marketdata import BadData
from mltrading_marketdata.quality import examine


def broken(bars, column, value):
    frame = bars(3).astype(float)
    frame.iloc[1, frame.columns.get_loc(column)] = value
    return frame


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("open", np.nan, "not finite"),
        ("close", np.inf, "not finite"),
        ("low", 0, "not positive"),
        ("open", -1, "not positive"),
        ("high", 10, "OHLC order"),
        ("low", 11.5, "OHLC order"),
        ("volume", -1, "volume"),
        ("volume", 1.5, "volume"),
        ("volume", np.nan, "volume"),
    ],
)
def test_one_bad_row_is_refused_with_its_reason(bars, column, value, reason):
    good, refused = examine(broken(bars, column, value), "1d")
    assert good["close"].tolist() == [10, 12]
    assert len(refused) == 1 and reason in refused[0].reason


def test_a_daily_bar_stands_at_midnight_utc(bars):
    frame = bars(2).set_axis(bars(2).index + pd.Timedelta(hours=5))
    good, refused = examine(frame, "1d")
    assert len(good["ts"]) == 0 and "1d grid" in refused[0].reason


def test_an_exact_repeat_is_one_bar(bars):
    good, refused = examine(pd.concat([bars(3), bars(3)]), "1d")
    assert good["close"].tolist() == [10, 11, 12] and not refused


def test_of_two_rows_with_one_time_the_later_wins(bars):
    later = bars(1).assign(volume=5)
    good, refused = examine(pd.concat([bars(3), later]), "1d")
    assert good["volume"].tolist() == [5, 100, 100]
    assert "came later" in refused[0].reason


def test_rows_in_any_order_come_out_in_order_of_time(bars):
    good, _ = examine(bars(5).iloc[::-1], "1d")
    assert good["close"].tolist() == [10, 11, 12, 13, 14]


def test_another_time_zone_is_converted(bars):
    frame = bars(2).tz_convert("America/New_York")
    assert (
        examine(frame, "1d")[0]["ts"].tolist()
        == examine(bars(2), "1d")[0]["ts"].tolist()
    )


def test_a_missing_column_is_refused_by_name(bars):
    with pytest.raises(BadData, match="volume"):
        examine(bars(2).drop(columns="volume"), "1d")


def test_text_in_a_price_is_refused(bars):
    with pytest.raises(BadData, match="not a number"):
        examine(bars(2).assign(open="n/a"), "1d")


def test_an_hour_may_start_at_half_past_and_at_no_other_minute(bars):
    hours = bars(7, "2024-03-04 14:30", "h")
    assert len(examine(hours, "1h")[1]) == 0
    refused = examine(bars(7, "2024-03-04 14:20", "h"), "1h")[1]
    assert len(refused) == 7 and "1h grid" in refused[0].reason
