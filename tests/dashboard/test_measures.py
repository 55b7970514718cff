import numpy as np
import pytest

from mltrading_dashboard.measures import change_over, first_row, key_figures


def test_a_span_is_counted_back_from_the_last_bar(bars):
    start = bars.index[first_row(bars.index, "1Y")]
    assert str(start.date()) == "2012-03-01"


def test_all_starts_at_the_first_bar(bars):
    assert first_row(bars.index, "All") == 0


def test_a_change_starts_from_the_last_close_on_or_before(bars):
    base = bars["close"].loc[:"2013-02-01"].iloc[-1]
    assert change_over(bars, "1M") == pytest.approx(bars["close"].iloc[-1] / base - 1)


def test_a_change_that_bars_do_not_reach_back_to_is_none(bars):
    assert change_over(bars.iloc[-20:], "1Y") is None


def test_key_figures_of_one_bar_leave_out_what_needs_more(bars):
    figures = key_figures(bars.iloc[-1:])
    assert figures.change is None
    assert figures.volatility_20d is None
    assert figures.low_52w <= figures.last <= figures.high_52w


def test_volatility_is_of_twenty_steps_per_year(bars):
    steps = np.diff(np.log(bars["close"].to_numpy()[-21:]))
    expected = steps.std(ddof=1) * 252**0.5
    assert key_figures(bars).volatility_20d == pytest.approx(expected)


def test_a_price_that_never_moved_sits_in_the_middle(bars):
    flat = bars.assign(open=5.0, high=5.0, low=5.0, close=5.0)
    assert key_figures(flat).place_in_52w == 0.5
