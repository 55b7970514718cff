"""The page for a path that names no page."""

from __future__ import annotations

from dash import html

from mltrading_dashboard.links import link
from mltrading_dashboard.notices import notice
from mltrading_dashboard.shell import menu, page_view
from mltrading_dashboard.state import ViewState


def layout(view: ViewState, data, scheme: str) -> list:
    """Return a notice with the pages that exist."""
    pages = [link(text, page_view(page, view)) for text, page in menu(data.flags)]
    return [
        html.H1("Page not found"),
        notice("hint", "No page has this address."),
        html.P(pages, className="choices"),
    ]
