"""Several symbols from one common start, as change in percent."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mltrading_dashboard.charts.arrays import packed
from mltrading_dashboard.charts.theme import FONT, Theme

MOST_POINTS = 260
LABEL_GAP = 0.065  # of the height of the plot


def performance_figure(
    closes: Mapping[str, pd.Series], colours: Mapping[str, str], theme: Theme
) -> dict:
    """Return one line per symbol: 100 * (close / first close - 1).

    closes: per symbol a non-empty series with a date index.
    colours: per symbol a CSS colour.
    """
    traces, ends = [], {}
    for symbol, series in closes.items():
        rows = _spread(len(series))
        change = (series.to_numpy() / series.iloc[0] - 1) * 100
        ends[symbol] = float(change[-1])
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": symbol,
                "x": packed(_milliseconds(series.index)[rows], "f8"),
                "y": packed(change[rows]),
                "line": {"color": colours[symbol], "width": 1.6},
                "hovertemplate": "%{y:+.1f}%<extra>" + symbol + "</extra>",
            }
        )
    low, high = _range(closes)
    layout = _layout(theme)
    layout["yaxis"]["range"] = [low, high]
    layout["annotations"] = _labels(ends, low, high, colours)
    return {"data": traces, "layout": layout}


def _milliseconds(index: pd.DatetimeIndex) -> np.ndarray:
    return index.as_unit("ms").asi8.astype(float)


def _spread(count: int) -> np.ndarray:
    if count <= MOST_POINTS:
        return np.arange(count)
    return np.linspace(0, count - 1, MOST_POINTS).round().astype(int)


def _range(closes: Mapping[str, pd.Series]) -> tuple[float, float]:
    ratios = [series / series.iloc[0] - 1 for series in closes.values()]
    low = min((float(r.min()) for r in ratios), default=0.0) * 100
    high = max((float(r.max()) for r in ratios), default=0.0) * 100
    air = (high - low or 1.0) * 0.06
    return low - air, high + air


def _labels(ends, low, high, colours) -> list[dict]:
    gap = (high - low) * LABEL_GAP
    labels, above = [], -np.inf
    for symbol in sorted(ends, key=ends.get):
        place = max(ends[symbol], above + gap)
        above = place
        labels.append(
            {
                "xref": "paper",
                "x": 1,
                "xanchor": "left",
                "xshift": 6,
                "y": place,
                "text": f"{symbol} {ends[symbol]:+,.0f}%",
                "showarrow": False,
                "font": {"size": 11, "color": colours[symbol]},
            }
        )
    return labels


def _layout(theme) -> dict:
    axis = {
        "gridcolor": theme.grid,
        "zeroline": False,
        "fixedrange": True,
        "tickfont": {"size": 11, "color": theme.muted},
    }
    return {
        "font": {"family": FONT, "color": theme.text, "size": 12},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 44, "r": 92, "t": 8, "b": 26},
        "showlegend": False,
        "hovermode": "x unified",
        "hoverlabel": {
            "bgcolor": theme.panel,
            "bordercolor": theme.line,
            "font": {"family": FONT, "color": theme.text, "size": 12},
        },
        # On a phone the style sheet leaves labels out; turned ones would be cut off.
        "xaxis": {**axis, "type": "date", "nticks": 8, "tickangle": 0},
        "yaxis": {
            **axis,
            "nticks": 6,
            "ticksuffix": "%",
            "zeroline": True,
            "zerolinecolor": theme.line,
            "zerolinewidth": 1,
        },
    }
