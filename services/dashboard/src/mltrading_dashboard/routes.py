"""Which page answers which view, under which HTTP status and title."""

from __future__ import annotations

from dataclasses import dataclass

from mltrading_dashboard import notices, shell
from mltrading_dashboard.data import Data
from mltrading_dashboard.pages import charts, missing, overview
from mltrading_dashboard.state import ViewState
from mltrading_marketdata import StoreError

PAGES = {"overview": overview, "charts": charts, "missing": missing}
REGISTERED = (overview, charts)


@dataclass(frozen=True)
class Rendered:
    """A page that is ready to be sent."""

    title: str
    children: list


def render(view: ViewState, data: Data, scheme: str) -> Rendered:
    """Return the page of a view; a store that fails gives a page that says so."""
    try:
        return data.page((view, scheme), lambda: _drawn(view, data, scheme))
    except StoreError:
        content = [notices.unavailable()]
        return Rendered(title(view), shell.shell(view, scheme, None, content))


def _drawn(view: ViewState, data: Data, scheme: str) -> Rendered:
    """Return the page of a view, drawn from the store's answers."""
    content = PAGES[view.page].layout(view, data, scheme)
    children = shell.shell(view, scheme, data.provenance(), content)
    return Rendered(title(view), children)


def status(view: ViewState, data: Data) -> int:
    """Return the HTTP status that a direct load of a view deserves."""
    if view.page == "missing":
        return 404
    try:
        known = data.symbols().index
    except StoreError:
        return 503
    named = view.page == "charts" and view.symbol is not None
    return 404 if named and view.symbol not in known else 200


def title(view: ViewState) -> str:
    """Return the title of the browser's tab."""
    name = {"overview": "Overview", "charts": "Charts", "missing": "Not found"}
    parts = [view.symbol, name[view.page], shell.BRAND]
    return " · ".join(part for part in parts if part)
