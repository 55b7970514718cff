"""What a page says when it can not show what was asked.

Bad input, no data and failed data look different, because the reader does something
different about each.
"""

from __future__ import annotations

from dash import html

from mltrading_dashboard.data import Provenance
from mltrading_dashboard.state import ViewState
from mltrading_marketdata import MARK


def notice(kind: str, title: str, *children):
    """Return a notice; kind is `hint`, `empty`, `invented` or `failed`."""
    role = "alert" if kind == "failed" else "status"
    return html.Div(
        [html.Strong(title), *(html.P(child) for child in children if child)],
        className=f"notice {kind}",
        role=role,
    )


def problems(view: ViewState) -> list:
    """Return a notice for each query value that was not usable."""
    return [
        notice(
            "hint",
            f"“{problem.value}” is not a value of {problem.name}.",
            f"Showing {problem.shown}. Allowed: {', '.join(problem.allowed)}.",
        )
        for problem in view.problems
    ]


def unavailable():
    """Return the notice for a store that does not answer."""
    return notice(
        "failed",
        "Market data is unavailable.",
        "The database did not answer, so nothing is shown rather than something old. "
        "Reload the page in a moment.",
    )


def no_symbols():
    """Return the notice for a store that holds nothing."""
    return notice(
        "empty",
        "No symbols yet.",
        "The database answers and is empty. Ingest bars, then reload the page.",
    )


def invented(provenance: Provenance) -> list:
    """Return the notice for bars that nobody traded, on every page where there are."""
    if not provenance.invented:
        return []
    whole = len(provenance.invented) == len(provenance.sources)
    made = f"nobody traded at them: {'; '.join(provenance.invented)}."
    return [
        notice(
            "invented",
            f"{'These' if whole else 'Some of these'} prices are {MARK}.",
            f"A generator made them, {made}",
            "" if whole else "Symbols that have them say so in their names.",
        )
    ]


def fault(reference: str):
    """Return the notice for an error that nobody foresaw."""
    return notice(
        "failed",
        "This view could not be drawn.",
        f"The error is in the log under reference {reference}.",
    )
