"""Technical indicators over bars: arrays in, arrays of the same length out. Pure.

Each takes one-dimensional float arrays without NaN, oldest bar first, and lengths in
bars. A value for which there are too few bars yet, the warm-up, is NaN. All take time
in proportion to the bars alone, however long their windows.

Sources: J. Welles Wilder, New Concepts in Technical Trading Systems (1978) for RSI and
ATR; G. Appel for MACD; G. Lane for the Stochastic; J. Bollinger for the bands.
"""

from __future__ import annotations

import numpy as np

BLOCK = 64


def sma(values: np.ndarray, bars: int) -> np.ndarray:
    """Return the mean of the last `bars` values; the first is at row bars - 1."""
    return _mean(*_stretches(values, bars), len(values), bars)


def ema(values: np.ndarray, bars: int) -> np.ndarray:
    """Return the exponential average with weight 2 / (bars + 1) of the newest value.

    It starts at row bars - 1 with the mean of the values so far.
    """
    return _average(values, bars, 2 / (bars + 1))


def bollinger(
    values: np.ndarray, bars: int, deviations: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return lower, middle and upper band: sma ± deviations * standard deviation.

    The deviation is that of the window itself (divided by bars, not bars - 1).
    """
    middle, variance = _moments(values, bars)
    width = deviations * np.sqrt(variance)
    return middle - width, middle, middle + width


def rsi(values: np.ndarray, bars: int) -> np.ndarray:
    """Return 100 * rise / (rise + fall), from 0 to 100; the first is at row `bars`.

    rise and fall are Wilder's averages of the steps up and down. A price that did
    neither stands at 50.
    """
    steps = np.diff(values)
    rise = _average(np.maximum(steps, 0.0), bars, 1 / bars)
    fall = _average(np.maximum(-steps, 0.0), bars, 1 / bars)
    both = rise + fall
    share = np.divide(rise, both, out=np.full_like(both, 0.5), where=both != 0)
    return _late(100 * share, 1, len(values))


def macd(
    values: np.ndarray, fast: int, slow: int, signal: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return MACD, its signal line and the histogram, in units of the values.

    MACD is ema(fast) - ema(slow), the signal is its ema(signal), the histogram is what
    is between them. The first MACD is at row slow - 1, the first signal signal - 1
    rows later. Needs fast < slow.
    """
    line = ema(values, fast) - ema(values, slow)
    start = min(slow - 1, len(line))
    after = _late(ema(line[start:], signal), start, len(line))
    return line, after, line - after


def stochastic(
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    bars: int,
    smooth: int,
    signal: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return %K and %D, from 0 to 100.

    Where the close lies between the lowest low and the highest high of `bars` bars, as
    a percentage, averaged over `smooth` bars is %K; %K averaged over `signal` bars is
    %D. A range without height counts as 50.
    """
    top, bottom = _highest(high, bars), -_highest(-low, bars)
    height = top - bottom
    raw = np.divide(
        close - bottom, height, out=np.full(len(close), 0.5), where=height != 0
    )
    raw[np.isnan(height)] = np.nan
    # Rounding must not take an average of what is within 0 and 100 outside.
    k = np.clip(_after(100 * raw, bars - 1, smooth), 0, 100)
    return k, np.clip(_after(k, bars + smooth - 2, signal), 0, 100)


def vwap(
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    volume: np.ndarray,
    bars: int,
) -> np.ndarray:
    """Return the price of the last `bars` bars, weighted by volume.

    The price of a bar is (high + low + close) / 3. Daily bars have no session to start
    from, so the window moves. NaN where nothing was traded.
    """
    typical = (high + low + close) / 3
    traded = sma(volume, bars)
    worth = sma(typical * volume, bars)
    enough = traded > traded.max(initial=0.0, where=~np.isnan(traded)) * 1e-12
    return np.divide(worth, traded, out=np.full_like(worth, np.nan), where=enough)


def atr(high: np.ndarray, low: np.ndarray, close: np.ndarray, bars: int) -> np.ndarray:
    """Return Wilder's average of the true range, in units of the price.

    The true range is the largest of high - low and the distances of high and low from
    the close before; the first bar has none, so the first average is at row `bars`.
    """
    before = close[:-1]
    true = np.maximum(high[1:], before) - np.minimum(low[1:], before)
    return _late(_average(true, bars, 1 / bars), 1, len(close))


def _moments(values: np.ndarray, bars: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of each window."""
    count = len(values)
    centre, about = _stretches(values, bars)
    first = _windows(about, bars) / bars
    second = _windows(about * about, bars) / bars
    variance = np.maximum(second - first * first, 0).ravel()
    mean = _mean(centre, about, count, bars)
    return mean, _late(variance[: max(0, count - bars + 1)], bars - 1, count)


def _mean(centre: np.ndarray, about: np.ndarray, count: int, bars: int) -> np.ndarray:
    mean = (centre + _windows(about, bars) / bars).ravel()
    return _late(mean[: max(0, count - bars + 1)], bars - 1, count)


def _stretches(values: np.ndarray, bars: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what `bars` windows at a time hold: its mean, and its values about it.

    Over all bars a running sum would lose the small differences in the large sum.
    """
    width = 2 * bars - 1
    rows = -(-(len(values) - bars + 1) // bars)
    if rows < 1:
        return np.empty((0, 1)), np.empty((0, width))
    # The last value fills up: it changes the mean of its stretch least.
    padded = np.full((rows - 1) * bars + width, values[-1], dtype=float)
    padded[: len(values)] = values
    moving = np.lib.stride_tricks.sliding_window_view(padded, width)[::bars]
    centre = moving.mean(axis=1, keepdims=True)
    return centre, moving - centre


def _windows(rows: np.ndarray, bars: int) -> np.ndarray:
    sums = np.cumsum(rows, axis=1)
    sums[:, bars:] -= sums[:, : bars - 1].copy()
    return sums[:, bars - 1 :]


def _average(values: np.ndarray, bars: int, weight: float) -> np.ndarray:
    """Return weight * value + (1 - weight) * the one before, from a mean on."""
    result = np.full(len(values), np.nan)
    if len(values) >= bars:
        scaled = weight * values[bars - 1 :]
        scaled[0] = np.mean(values[:bars])
        result[bars - 1 :] = _decaying(scaled, 1 - weight)
    return result


def _decaying(values: np.ndarray, keep: float) -> np.ndarray:
    """Return y[t] = values[t] + keep * y[t - 1], a block at a time.

    Within a block it is a product of matrices; what one block leaves to the next is the
    same question about their last values.
    """
    count = len(values)
    if count <= BLOCK:
        result, last = np.empty(count), 0.0
        for row, value in enumerate(values.tolist()):
            last = value + keep * last
            result[row] = last
        return result
    blocks = np.zeros((-(-count // BLOCK), BLOCK))
    blocks.ravel()[:count] = values
    place = np.arange(BLOCK)
    back = place[:, None] - place
    result = blocks @ np.where(back >= 0, keep ** np.maximum(back, 0.0), 0.0).T
    left = _decaying(result[:, -1], keep**BLOCK)
    result[1:] += left[:-1, None] * keep ** (place + 1.0)
    return result.ravel()[:count]


def _highest(values: np.ndarray, bars: int) -> np.ndarray:
    """Return the largest of the last `bars` values, from row bars - 1 on."""
    result = np.full(len(values), np.nan)
    found = len(values) - bars + 1
    if found < 1:
        return result
    blocks = np.full((-(-len(values) // bars), bars), -np.inf)
    blocks.ravel()[: len(values)] = values
    # A window is the end of one block and the beginning of the next.
    until = np.maximum.accumulate(blocks, axis=1).ravel()
    since = np.maximum.accumulate(blocks[:, ::-1], axis=1)[:, ::-1].ravel()
    result[bars - 1 :] = np.maximum(since[:found], until[bars - 1 :][:found])
    return result


def _after(values: np.ndarray, start: int, bars: int) -> np.ndarray:
    """Return the sma of values whose first `start` rows are NaN."""
    start = min(start, len(values))
    return _late(sma(values[start:], bars), start, len(values))


def _late(values: np.ndarray, start: int, count: int) -> np.ndarray:
    """Return `count` rows that hold NaN, and from row `start` on the values."""
    result = np.full(count, np.nan)
    result[start:] = values
    return result
