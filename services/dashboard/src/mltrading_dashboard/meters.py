"""A list of names, each with a bar as long as its share of the largest value."""

from __future__ import annotations

from collections.abc import Iterable

from dash import html

from mltrading_dashboard import wording


def meters(rows: Iterable[tuple[str, float, str]]):
    """Return a list of (name, number of shares, CSS colour), in the order given."""
    rows = list(rows)
    most = max((value for _, value, _ in rows), default=0.0)
    return html.Ol([_meter(*row, most) for row in rows], className="bars")


def _meter(name: str, value: float, colour: str, most: float):
    share = value / most if most else 0.0
    return html.Li(
        [
            html.Span(name),
            html.Span(
                html.I(style={"width": f"{share:.1%}", "background": colour}),
                className="bar",
            ),
            html.Span(wording.volume(value), className="number"),
        ]
    )
