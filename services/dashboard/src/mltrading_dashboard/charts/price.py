"""The price chart: candles, OHLC bars or a line, with averages and volume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mltrading_dashboard.charts.arrays import packed
from mltrading_dashboard.charts.axis import date_ticks
from mltrading_dashboard.charts.bucket import bucket_size, bucketed
from mltrading_dashboard.charts.theme import FONT, Theme, faded

FEWEST_BARS = 10
MARGIN = 0.1  # of the view, drawn beyond each edge so that a short pan finds bars
VOLUME_SHARE = 5.0  # the highest volume bar takes one part in five of the height
TRANSPARENT = "rgba(0,0,0,0)"


@dataclass(frozen=True)
class Window:
    """The bar numbers at the left and right edge of a view; halves are fine."""

    left: float
    right: float

    @classmethod
    def last(cls, count: int, first_row: int) -> Window:
        """Return the view from `first_row` to the last of `count` bars, with air."""
        first_row = max(0, min(first_row, count - FEWEST_BARS))
        return cls(first_row - 0.6, count - 0.4 + (count - first_row) * 0.012)

    def within(self, count: int) -> Window:
        """Return the nearest view that shows FEWEST_BARS or more of `count` bars."""
        width = min(max(self.right - self.left, FEWEST_BARS), count * 1.1 + 2)
        left = min(max(self.left, FEWEST_BARS - width), count - FEWEST_BARS)
        return Window(left, left + width)

    def rows(self, count: int, margin: float = 0.0) -> tuple[int, int]:
        """Return the first and last row inside, `margin` of the width beyond."""
        beyond = (self.right - self.left) * margin
        first = int(np.ceil(self.left - beyond))
        last = int(np.floor(self.right + beyond))
        return max(0, min(first, count - 1)), max(0, min(last, count - 1))


def with_averages(bars: pd.DataFrame, averages: tuple[int, ...]) -> pd.DataFrame:
    """Return the bars with a column sma_<n> for each average of n closes."""
    close = bars["close"]
    return bars.assign(**{f"sma_{n}": close.rolling(n).mean() for n in averages})


def price_figure(
    bars: pd.DataFrame,
    window: Window,
    *,
    kind: str,
    averages: tuple[int, ...],
    theme: Theme,
) -> dict:
    """Return the figure of the part of `bars` that `window` shows.

    bars: at least one daily bar, columns open high low close volume.
    kind: candles, ohlc or line. averages: windows of the moving averages in bars.
    """
    count = len(bars)
    window = window.within(count)
    first, last = window.rows(count)
    wide_first, wide_last = window.rows(count, MARGIN)
    size = bucket_size(wide_last - wide_first + 1)
    drawn = bucketed(with_averages(bars, averages), wide_first, wide_last, size)
    seen = drawn[(drawn["until"] >= first) & (drawn["row"] <= last)]
    traces = [
        *_volume(drawn, size, theme),
        _price(drawn, bars.index, size, kind, theme),
        *[_average(drawn, n, theme) for n in averages],
    ]
    layout = _layout(theme)
    ticks, labels = date_ticks(bars.index, (first, last), (wide_first, wide_last))
    layout["xaxis"] |= {
        "range": [window.left, window.right],
        "tickvals": ticks,
        "ticktext": labels,
    }
    layout["yaxis"]["range"] = _price_range(seen, averages)
    layout["yaxis2"]["range"] = [0, float(seen["volume"].max() or 1) * VOLUME_SHARE]
    layout["annotations"] = [_last_price(bars, theme)]
    layout["shapes"] = [_last_price_line(bars, theme)]
    return {"data": traces, "layout": layout}


def _price(drawn, index, size, kind, theme) -> dict:
    x = packed(drawn["row"])
    dates = _date_labels(drawn, index, size)
    if kind == "line":
        return {
            "type": "scatter",
            "mode": "lines",
            "name": "Close",
            "x": x,
            "y": packed(drawn["close"]),
            "customdata": dates,
            "line": {"color": theme.accent, "width": 1.6},
            "hoverinfo": "none",
        }
    trace = {
        "type": "candlestick" if kind == "candles" else "ohlc",
        "name": "Price",
        "x": x,
        **{name: packed(drawn[name]) for name in ("open", "high", "low", "close")},
        "customdata": dates,
        "increasing": {"line": {"color": theme.up, "width": 1}},
        "decreasing": {"line": {"color": theme.down, "width": 1}},
        "hoverinfo": "none",
    }
    if kind == "candles":
        trace["increasing"]["fillcolor"] = theme.up
        trace["decreasing"]["fillcolor"] = theme.panel
    return trace


def _date_labels(drawn, index, size) -> list[str]:
    if size == 1:
        return list(drawn.index.strftime("%a %d %b %Y"))
    ends = index[drawn["until"].to_numpy(dtype=int)]
    starts = drawn.index.strftime("%d %b %Y")
    return [f"{a} – {b}" for a, b in zip(starts, ends.strftime("%d %b %Y"))]


def _volume(drawn, size, theme) -> list[dict]:
    # Two traces, because plotly.js takes no packed array of colours.
    rose = drawn["close"].to_numpy() >= drawn["open"].to_numpy()
    return [
        {
            "type": "bar",
            "name": f"Volume {name}",
            "x": packed(drawn["row"][mask]),
            "y": packed(drawn["volume"][mask]),
            "yaxis": "y2",
            "width": 0.68 * size,
            "marker": {"color": faded(colour, 0.38), "line": {"width": 0}},
            "hoverinfo": "none",
        }
        for name, mask, colour in (("up", rose, theme.up), ("down", ~rose, theme.down))
    ]


def _average(drawn, bars: int, theme) -> dict:
    column = drawn[f"sma_{bars}"]
    known = column.notna()
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"SMA {bars}",
        "x": packed(drawn["row"][known]),
        "y": packed(column[known]),
        "line": {"color": average_colour(bars, theme), "width": 1.4},
        "hoverinfo": "none",
    }


def average_colour(bars: int, theme: Theme) -> str:
    """Return the colour of a moving average."""
    return {20: theme.average_20, 50: theme.average_50}[bars]


def _price_range(seen: pd.DataFrame, averages: tuple[int, ...]) -> list[float]:
    columns = ["low", "high"] + [f"sma_{n}" for n in averages]
    low, high = np.nanmin(seen[columns]), np.nanmax(seen[columns])
    height = float(high - low) or abs(float(high)) or 1.0
    return [float(low) - 0.2 * height, float(high) + 0.06 * height]


def _last_price(bars, theme) -> dict:
    last = float(bars["close"].iloc[-1])
    return {
        "xref": "paper",
        "x": 1,
        "xanchor": "left",
        "y": last,
        "text": f"{last:,.2f}",
        "showarrow": False,
        "font": {"size": 11, "color": theme.panel},
        "bgcolor": theme.down if _fell(bars) else theme.up,
        "borderpad": 3,
    }


def _last_price_line(bars, theme) -> dict:
    last = float(bars["close"].iloc[-1])
    colour = theme.down if _fell(bars) else theme.up
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": last,
        "y1": last,
        "line": {"color": faded(colour, 0.55), "width": 1, "dash": "dot"},
    }


def _fell(bars) -> bool:
    return len(bars) > 1 and bars["close"].iloc[-1] < bars["close"].iloc[-2]


def _layout(theme) -> dict:
    axis = {
        "gridcolor": theme.grid,
        "zeroline": False,
        "showline": False,
        "tickfont": {"size": 11, "color": theme.muted},
    }
    spike = {
        "showspikes": True,
        "spikemode": "across",
        "spikesnap": "cursor",
        "spikethickness": 1,
        "spikedash": "dot",
        "spikecolor": theme.muted,
    }
    return {
        "font": {"family": FONT, "color": theme.text, "size": 12},
        "paper_bgcolor": TRANSPARENT,
        "plot_bgcolor": TRANSPARENT,
        "margin": {"l": 8, "r": 62, "t": 8, "b": 28},
        "showlegend": False,
        "dragmode": "pan",
        "hovermode": "x",
        "bargap": 0,
        "barmode": "overlay",
        "xaxis": {**axis, **spike, "rangeslider": {"visible": False}, "tickangle": 0},
        "yaxis": {**axis, **spike, "side": "right", "fixedrange": True, "nticks": 9}
        | {"tickformat": ",.2f"},
        "yaxis2": {
            "overlaying": "y",
            "side": "left",
            "fixedrange": True,
            "visible": False,
        },
    }
