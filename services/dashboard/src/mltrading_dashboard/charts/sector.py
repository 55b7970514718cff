"""How many symbols each sector has."""

from __future__ import annotations

import pandas as pd

from mltrading_dashboard.charts.theme import FONT, Theme, faded


def sector_figure(sectors: pd.Series, chosen: str | None, theme: Theme) -> dict:
    """Return bars of the number of symbols per sector; the chosen one stands out.

    sectors: the name of the sector of each symbol.
    """
    counts = sectors.value_counts().sort_values(kind="stable")
    names = [str(name) for name in counts.index]
    strong = [chosen in (None, name) for name in names]
    plural = ["symbol" if n == 1 else "symbols" for n in counts]
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "x": [int(n) for n in counts],
                "y": names,
                "customdata": names,
                "text": [f"  {name}  <b>{n}</b>" for name, n in zip(names, counts)],
                "textposition": "inside",
                "insidetextanchor": "start",
                "textangle": 0,
                "constraintext": "none",
                "textfont": {"size": 12, "color": theme.text},
                "marker": {
                    "color": [faded(theme.accent, 0.42 if s else 0.14) for s in strong],
                    "line": {
                        "width": 1,
                        "color": [
                            theme.accent if name == chosen else "rgba(0,0,0,0)"
                            for name in names
                        ],
                    },
                },
                "hovertemplate": [
                    f"{name}: {n} {word}<extra></extra>"
                    for name, n, word in zip(names, counts, plural)
                ],
            }
        ],
        "layout": {
            "font": {"family": FONT, "color": theme.text, "size": 12},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
            "showlegend": False,
            "bargap": 0.2,
            "hoverlabel": {
                "bgcolor": theme.panel,
                "bordercolor": theme.line,
                "font": {"family": FONT, "color": theme.text, "size": 12},
            },
            "xaxis": {"visible": False, "fixedrange": True, "rangemode": "tozero"},
            "yaxis": {"visible": False, "fixedrange": True},
        },
    }
