import numpy as np
import pandas as pd
import pytest

from mltrading_dashboard.comparison import FEWEST_STEPS, common, compared
from tests.dashboard.bars import made_bars


def frame(**columns):
    index = pd.bdate_range("2013-01-01", periods=len(next(iter(columns.values()))))
    return pd.DataFrame(columns, index=index, dtype=float)


def measured(**columns):
    closes = frame(**columns)
    return compared(closes, closes * 0 + 100)


def walk(seed, count=300):
    return made_bars(count, seed)["close"].to_numpy()


def test_the_change_is_from_the_first_close_to_the_last():
    assert measured(a=[50, 80, 60])["a"].change == pytest.approx(0.2)


def test_the_drawdown_is_the_deepest_fall_below_the_highest_close_before():
    assert measured(a=[50, 80, 60, 100, 90])["a"].drawdown == pytest.approx(-0.25)
    assert measured(a=[50, 60, 70])["a"].drawdown == 0


def test_volatility_and_sharpe_are_of_a_year():
    price = walk(1)
    change, step = price[1:] / price[:-1] - 1, np.diff(np.log(price))
    found = measured(a=price)["a"]
    assert found.volatility == pytest.approx(step.std(ddof=1) * 252**0.5)
    assert found.sharpe == pytest.approx(
        change.mean() * 252 / (change.std(ddof=1) * 252**0.5)
    )


def test_the_first_symbol_moves_with_itself():
    first = measured(a=walk(1), b=walk(2))["a"]
    assert (first.correlation, first.beta) == pytest.approx((1, 1))


def test_twice_the_changes_of_the_first_are_a_beta_of_two():
    price = walk(1)
    doubled = np.cumprod(np.r_[1, 1 + 2 * (price[1:] / price[:-1] - 1)])
    found = measured(a=price, b=doubled)["b"]
    assert (found.correlation, found.beta) == pytest.approx((1, 2))


def test_changes_against_the_first_are_a_correlation_of_minus_one():
    price = walk(1)
    against = np.cumprod(np.r_[1, 1 - 0.5 * (price[1:] / price[:-1] - 1)])
    found = measured(a=price, b=against)["b"]
    assert (found.correlation, found.beta) == pytest.approx((-1, -0.5))


def test_what_does_not_move_has_no_ratio():
    found = measured(a=walk(1, 30), b=np.full(30, 7.0))["b"]
    assert (found.volatility, found.drawdown, found.beta) == pytest.approx((0, 0, 0))
    assert (found.sharpe, found.correlation) == (None, None)
    first = measured(a=np.full(30, 7.0), b=walk(1, 30))["b"]
    assert (first.correlation, first.beta) == (None, None)


@pytest.mark.parametrize("count", [1, 2, FEWEST_STEPS])
def test_few_days_have_a_change_and_no_deviation(count):
    found = measured(a=walk(1, count), b=walk(2, count))["b"]
    assert found.drawdown <= 0
    deviations = found.volatility, found.sharpe, found.correlation, found.beta
    assert deviations == (None,) * 4


def test_volume_is_the_mean_of_the_days_in_the_period():
    closes = frame(a=[5, 6, 7])
    volumes = frame(a=[1_000, 20, 40])
    assert compared(closes, volumes)["a"].volume == 30


def test_only_days_that_all_have_are_compared():
    whole, late = made_bars(300, 1), made_bars(300, 2).iloc[100:-20]
    holes = late.drop(late.index[50:60])
    closes, volumes = common({"A": whole, "B": holes}, "All")
    assert closes.index.equals(holes.index) and volumes.index.equals(holes.index)
    assert list(closes) == ["A", "B"] and not closes.isna().to_numpy().any()


def test_a_span_counts_from_the_close_before_it():
    closes, _ = common({"A": made_bars(600)}, "1M")
    assert str(closes.index[0].date()) == "2013-01-31"
    assert str(closes.index[1].date()) == "2013-02-01"


def test_no_common_day_is_nothing_to_compare():
    early, late = made_bars(300).iloc[:100], made_bars(300).iloc[200:]
    closes, volumes = common({"A": early, "B": late}, "1Y")
    assert closes.empty and volumes.empty
    one = common({"A": made_bars(1)}, "1Y")[0]
    assert len(one) == 1
