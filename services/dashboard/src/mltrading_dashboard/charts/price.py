"""The price chart: candles, OHLC bars or a line, with volume and indicators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mltrading_dashboard.charts.arrays import packed
from mltrading_dashboard.charts.axis import date_ticks
from mltrading_dashboard.charts.bucket import bucket_size, bucketed
from mltrading_dashboard.charts.study import Study, with_studies
from mltrading_dashboard.charts.theme import FONT, Theme, faded

FEWEST_BARS = 10
MARGIN = 0.1  # of the view, drawn beyond each edge so that a short pan finds bars
VOLUME_SHARE = 5.0  # the highest volume bar takes one part in five of the height
PANEL_SHARE = 0.17  # of the height of the plot, for a panel below the prices
PANELS_SHARE = 0.5  # for all of them
PANEL_GAP = 0.025
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


def price_figure(
    bars: pd.DataFrame,
    window: Window,
    *,
    kind: str,
    studies: tuple[Study, ...],
    theme: Theme,
) -> dict:
    """Return the figure of the part of `bars` that `window` shows.

    bars: at least one daily bar, columns open high low close volume.
    kind: candles, ohlc or line. studies: indicators, drawn over the prices or each in
    a panel of its own below them, worked out on the bars and joined as these are.
    """
    count = len(bars)
    window = window.within(count)
    first, last = window.rows(count)
    wide_first, wide_last = window.rows(count, MARGIN)
    size = bucket_size(wide_last - wide_first + 1)
    drawn = bucketed(bars, wide_first, wide_last, size)
    drawn = with_studies(bars, studies, drawn)
    seen = drawn[(drawn["until"] >= first) & (drawn["row"] <= last)]
    over = [one for one in studies if not one.kind.panel]
    below = [one for one in studies if one.kind.panel]
    traces = [
        *_volume(drawn, size, theme),
        _price(drawn, bars.index, size, kind, theme),
        *_over(drawn, over, theme),
        *_below(drawn, below, size, theme),
    ]
    layout = _layout(theme)
    _stack(layout, seen, below, theme)
    ticks, labels = date_ticks(bars.index, (first, last), (wide_first, wide_last))
    layout["xaxis"] |= {
        "range": [window.left, window.right],
        "tickvals": ticks,
        "ticktext": labels,
    }
    layout["yaxis"]["range"] = _price_range(seen, over)
    layout["yaxis2"]["range"] = [0, float(seen["volume"].max() or 1) * VOLUME_SHARE]
    layout["annotations"] = [
        _last_price(bars, theme),
        *(_name(one, place, seen, theme) for place, one in enumerate(below)),
    ]
    layout["shapes"] = [
        _last_price_line(bars, theme),
        *(
            _guide(place, level, theme)
            for place, one in enumerate(below)
            for level in one.kind.guides
        ),
    ]
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


def _over(drawn, over: list[Study], theme) -> list[dict]:
    traces = []
    for one in over:
        colour = study_colour(one, over, theme)
        band = len(one.columns) == 3
        for place, column in enumerate(one.columns):
            line = _line(drawn, column, one, colour)
            if band:
                line["line"] |= {"width": 1, "dash": "dot" if place == 1 else "solid"}
            if band and place == 2:
                # Between the two edges: the middle lies there too.
                line |= {"fill": "tonexty", "fillcolor": faded(colour, 0.06)}
            traces.append(line)
        if band:
            # tonexty fills to the trace before.
            traces[-3:] = [traces[-2], traces[-3], traces[-1]]
    return traces


def _below(drawn, below: list[Study], size: int, theme) -> list[dict]:
    traces = []
    for place, one in enumerate(below):
        lines = [column for column in one.columns if not column.endswith("histogram")]
        for column in one.columns:
            if column in lines:
                colour = theme.series[lines.index(column)]
                found = [_line(drawn, column, one, colour)]
            else:
                found = _histogram(drawn, column, one, size, theme)
            traces += [trace | {"yaxis": f"y{place + 3}"} for trace in found]
    return traces


def _line(drawn, column: str, one: Study, colour: str) -> dict:
    values = drawn[column]
    known = values.notna()
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"{one.title} {column[len(one.text) + 1:]}".strip(),
        "x": packed(drawn["row"][known]),
        "y": packed(values[known]),
        "line": {"color": colour, "width": 1.4},
        "hoverinfo": "none",
    }


def _histogram(drawn, column: str, one: Study, size: int, theme) -> list[dict]:
    values = drawn[column]
    return [
        {
            "type": "bar",
            "name": f"{one.title} histogram {name}",
            "x": packed(drawn["row"][mask]),
            "y": packed(values[mask]),
            "width": 0.68 * size,
            "marker": {"color": faded(colour, 0.5), "line": {"width": 0}},
            "hoverinfo": "none",
        }
        for name, mask, colour in (
            ("up", values >= 0, theme.up),
            ("down", values < 0, theme.down),
        )
    ]


def study_colour(one: Study, studies, theme: Theme) -> str:
    """Return the colour of a study among those that are drawn over the prices."""
    over = [other for other in studies if not other.kind.panel]
    return theme.series[over.index(one) % len(theme.series)]


def _price_range(seen: pd.DataFrame, over: list[Study]) -> list[float]:
    columns = ["low", "high"] + [name for one in over for name in one.columns]
    low, high = np.nanmin(seen[columns]), np.nanmax(seen[columns])
    height = float(high - low) or abs(float(high)) or 1.0
    return [float(low) - 0.2 * height, float(high) + 0.06 * height]


def _stack(layout: dict, seen: pd.DataFrame, below: list[Study], theme) -> None:
    """Give each study below the prices an axis of its own, under the one before."""
    if not below:
        return
    share = min(PANEL_SHARE, PANELS_SHARE / len(below))
    top = share * len(below)
    layout["yaxis"]["domain"] = [top, 1]
    for place, one in enumerate(below):
        edge = top - place * share
        layout[f"yaxis{place + 3}"] = {
            **layout["yaxis"],
            "domain": [max(0.0, edge - share), edge - PANEL_GAP],
            "range": _panel_range(seen, one),
            "nticks": 4,
            "tickformat": ",.4~g",
        }
    layout["xaxis"]["anchor"] = f"y{len(below) + 2}"
    # A pointer in one panel reads out the bars of all.
    layout["hoversubplots"] = "axis"


def _panel_range(seen: pd.DataFrame, one: Study) -> list[float]:
    if one.kind.low is not None and one.kind.high is not None:
        return [one.kind.low, one.kind.high]
    values = seen[list(one.columns)].to_numpy()
    values = values[~np.isnan(values)]
    if not len(values):
        return [0.0, 1.0]
    low, high = float(values.min()), float(values.max())
    air = 0.08 * ((high - low) or abs(high) or 1.0)
    return [low - air, high + air]


def _name(one: Study, place: int, seen: pd.DataFrame, theme) -> dict:
    column = one.columns[1 if one.kind.name == "macd" else 0]
    last = float(seen[column].iloc[-1])
    value = "needs more bars" if np.isnan(last) else _signed(last)
    return {
        "xref": "paper",
        "x": 0,
        "xanchor": "left",
        "yref": f"y{place + 3} domain",
        "y": 1,
        "yanchor": "top",
        "text": f"{one.title}  <b>{value}</b>",
        "showarrow": False,
        "font": {"size": 11, "color": theme.muted},
        "bgcolor": faded(theme.panel, 0.7),
    }


def _signed(value: float) -> str:
    return f"{value:,.2f}".replace("-", "\N{MINUS SIGN}")


def _guide(place: int, level: float, theme) -> dict:
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "yref": f"y{place + 3}",
        "y0": level,
        "y1": level,
        "line": {"color": theme.line, "width": 1, "dash": "dot"},
    }


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
