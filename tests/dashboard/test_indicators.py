import numpy as np
import pytest

from mltrading_dashboard.charts import indicators
from tests.dashboard.bars import made_bars

NONE = np.nan


def array(*values):
    return np.array(values, dtype=float)


def columns(count, seed=7):
    bars = made_bars(max(1, count), seed).iloc[:count]
    names = ("high", "low", "close", "volume")
    return tuple(bars[name].to_numpy(dtype=float) for name in names)


def every(high, low, close, volume):
    """Return each line of each indicator, for what must hold for all of them."""
    lower, middle, upper = indicators.bollinger(close, 20, 2)
    line, signal, histogram = indicators.macd(close, 12, 26, 9)
    k, d = indicators.stochastic(high, low, close, 14, 3, 3)
    return {
        "sma": indicators.sma(close, 20),
        "ema": indicators.ema(close, 20),
        "lower": lower,
        "middle": middle,
        "upper": upper,
        "rsi": indicators.rsi(close, 14),
        "macd": line,
        "signal": signal,
        "histogram": histogram,
        "k": k,
        "d": d,
        "vwap": indicators.vwap(high, low, close, volume, 20),
        "atr": indicators.atr(high, low, close, 14),
    }


WARM_UP = {
    "sma": 19,
    "ema": 19,
    "lower": 19,
    "middle": 19,
    "upper": 19,
    "rsi": 14,
    "macd": 25,
    "signal": 33,
    "histogram": 33,
    "k": 15,
    "d": 17,
    "vwap": 19,
    "atr": 14,
}


def test_a_simple_average_by_hand():
    found = indicators.sma(array(1, 2, 3, 4, 8), 3)
    assert found == pytest.approx([NONE, NONE, 2, 3, 5], nan_ok=True)


def test_an_exponential_average_by_hand():
    # Weight 1/2: the mean of 1, 2, 3, then halfway to each next value.
    found = indicators.ema(array(1, 2, 3, 4, 8), 3)
    assert found == pytest.approx([NONE, NONE, 2, 3, 5.5], nan_ok=True)


def test_bands_by_hand():
    # Of 2, 4, 4, 4, 5, 5, 7, 9 the mean is 5 and the deviation 2.
    lower, middle, upper = indicators.bollinger(array(2, 4, 4, 4, 5, 5, 7, 9), 8, 1.5)
    assert (lower[-1], middle[-1], upper[-1]) == pytest.approx((2, 5, 8))


def test_relative_strength_by_hand():
    # Steps +1 -1 +2: rises 1 0 then half of what was and half of 2.
    found = indicators.rsi(array(10, 11, 10, 12), 2)
    rise, fall = (0.5 + 2) / 2, 0.5 / 2
    expected = [NONE, NONE, 50, 100 * rise / (rise + fall)]
    assert found == pytest.approx(expected, nan_ok=True)


def test_the_textbook_example_of_relative_strength():
    closes = (
        "44.34 44.09 44.15 43.61 44.33 44.83 45.10 45.42 45.84 46.08 45.89 46.03 "
        "45.61 46.28 46.28 46.00"
    )
    found = indicators.rsi(array(*map(float, closes.split())), 14)
    assert found[14:] == pytest.approx([70.46, 66.25], abs=0.01)


def test_macd_by_hand():
    # ema(1) is the value, ema(3) is 2 3 5.5; signal: 1 and 1, then weight 2/3.
    line, signal, histogram = indicators.macd(array(1, 2, 3, 4, 8), 1, 3, 2)
    assert line == pytest.approx([NONE, NONE, 1, 1, 2.5], nan_ok=True)
    assert signal == pytest.approx([NONE, NONE, NONE, 1, 2], nan_ok=True)
    assert histogram == pytest.approx([NONE, NONE, NONE, 0, 0.5], nan_ok=True)


def test_stochastic_by_hand():
    high, low = array(10, 12, 14, 13), array(8, 9, 10, 11)
    k, d = indicators.stochastic(high, low, array(9, 12, 11, 13), 2, 1, 2)
    # 12 of 8..12, 11 of 9..14, 13 of 10..14.
    assert k == pytest.approx([NONE, 100, 40, 75], nan_ok=True)
    assert d == pytest.approx([NONE, NONE, 70, 57.5], nan_ok=True)


def test_volume_weighted_price_by_hand():
    price, volume = array(10, 20, 30), array(1, 3, 0)
    found = indicators.vwap(price, price, price, volume, 2)
    assert found == pytest.approx([NONE, 17.5, 20], nan_ok=True)


def test_nothing_traded_has_no_volume_weighted_price():
    price, volume = array(10, 20, 30, 40), array(5e9, 0.1, 0, 0)
    found = indicators.vwap(price, price, price, volume, 2)
    assert np.isnan(found[[0, 3]]).all() and not np.isnan(found[1])


def test_true_range_reaches_to_the_close_before():
    # 12-10, then 20-11 over the gap, then 20-5 under it.
    high, low, close = array(11, 12, 20, 6), array(9, 10, 18, 5), array(10, 11, 20, 6)
    found = indicators.atr(high, low, close, 2)
    assert found == pytest.approx([NONE, NONE, 5.5, (5.5 + 15) / 2], nan_ok=True)


@pytest.mark.parametrize("name", WARM_UP)
def test_the_warm_up_is_not_a_number_and_nothing_after_it_is(name):
    line = every(*columns(300))[name]
    assert np.flatnonzero(~np.isnan(line)).tolist() == list(range(WARM_UP[name], 300))


@pytest.mark.parametrize("count", [0, 1, 2, 13, 14, 15, 20, 25, 33, 34])
def test_few_bars_give_few_values_and_no_error(count):
    for name, line in every(*columns(count)).items():
        assert len(line) == count
        assert np.count_nonzero(~np.isnan(line)) == max(0, count - WARM_UP[name])


@pytest.mark.parametrize("cut", [40, 64, 65, 128, 200])
def test_no_value_knows_the_bars_after_it(cut):
    whole = every(*columns(300))
    part = every(*(column[:cut] for column in columns(300)))
    for name, line in part.items():
        assert line == pytest.approx(whole[name][:cut], nan_ok=True), name


def test_prices_in_cents_give_the_same_shape():
    high, low, close, volume = columns(300)
    plain = every(high, low, close, volume)
    scaled = every(100 * high, 100 * low, 100 * close, volume)
    for name, line in plain.items():
        times = 1 if name in ("rsi", "k", "d") else 100
        assert scaled[name] == pytest.approx(times * line, nan_ok=True), name


def test_a_price_that_never_moves():
    flat = np.full(100, 42.0)
    found = {n: line[50] for n, line in every(flat, flat, flat, np.ones(100)).items()}
    level = ("sma", "ema", "lower", "middle", "upper", "vwap")
    assert [found[name] for name in level] == pytest.approx([42.0] * 6)
    assert [found[n] for n in ("macd", "signal", "atr")] == pytest.approx([0, 0, 0])
    assert [found[n] for n in ("rsi", "k", "d")] == pytest.approx([50, 50, 50])


def test_oscillators_stay_within_their_range():
    found = every(*columns(5_000))
    for name in ("rsi", "k", "d"):
        line = found[name][~np.isnan(found[name])]
        assert 0 <= line.min() and line.max() <= 100
    rising = np.arange(1.0, 100.0)
    assert indicators.rsi(rising, 14)[-1] == 100
    assert indicators.rsi(rising[::-1], 14)[-1] == 0


@pytest.mark.parametrize("bars", [1, 2, 7, 20, 64, 400])
def test_the_quick_forms_agree_with_the_definitions(bars):
    high, low, close, _ = columns(1_000)
    moving = np.lib.stride_tricks.sliding_window_view(close, bars)
    lower, middle, upper = indicators.bollinger(close, bars, 2)
    assert middle[bars - 1 :] == pytest.approx(moving.mean(axis=1))
    spread = 4 * moving.std(axis=1)
    assert (upper - lower)[bars - 1 :] == pytest.approx(spread, abs=1e-6)
    weight, average = 2 / (bars + 1), [close[:bars].mean()]
    for value in close[bars:]:
        average.append(weight * value + (1 - weight) * average[-1])
    assert indicators.ema(close, bars)[bars - 1 :] == pytest.approx(average)
    tops = np.lib.stride_tricks.sliding_window_view(high, bars).max(axis=1)
    bottoms = np.lib.stride_tricks.sliding_window_view(low, bars).min(axis=1)
    k, _ = indicators.stochastic(high, low, close, bars, 1, 1)
    expected = 100 * (close[bars - 1 :] - bottoms) / (tops - bottoms)
    assert k[bars - 1 :] == pytest.approx(expected, abs=1e-9)


def test_small_moves_of_a_large_price_keep_their_deviation():
    close = np.r_[np.full(50_000, 5e5), 1e3 + 1e-3 * np.tile([0.0, 2.0], 5_000)]
    lower, middle, upper = indicators.bollinger(close, 20, 1)
    assert (upper - middle)[-1] == pytest.approx(1e-3, rel=1e-3)
