"""A line of closes as a small picture."""

from __future__ import annotations

from urllib.parse import quote

import numpy as np

from mltrading_dashboard.charts.theme import Theme, faded

WIDTH, HEIGHT, MOST_POINTS = 120, 32, 90


def sparkline(closes, theme: Theme, *, area: bool = False) -> str:
    """Return an SVG data URI of the closes; its colour says whether they rose."""
    closes = np.asarray(closes, dtype=float)
    if len(closes) > MOST_POINTS:
        rows = np.linspace(0, len(closes) - 1, MOST_POINTS).round().astype(int)
        closes = closes[rows]
    low, width = closes.min(), np.ptp(closes) or 1.0
    x = np.linspace(1, WIDTH - 1, max(len(closes), 2))
    y = HEIGHT - 2 - (np.resize(closes, len(x)) - low) / width * (HEIGHT - 4)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    colour = theme.up if closes[-1] >= closes[0] else theme.down
    fill = faded(colour, 0.13)
    below = (
        f"<polygon fill='{fill}' points='1,{HEIGHT} {points} {WIDTH - 1},{HEIGHT}'/>"
        if area
        else ""
    )
    svg = (
        "<svg xmlns='http://www.w3.org/2000/svg' preserveAspectRatio='none' "
        f"viewBox='0 0 {WIDTH} {HEIGHT}'>{below}<polyline fill='none' "
        f"stroke='{colour}' stroke-width='1.5' stroke-linejoin='round' "
        f"vector-effect='non-scaling-stroke' points='{points}'/></svg>"
    )
    return "data:image/svg+xml," + quote(svg, safe=" ='/:,.()")
