"""Which page answers which view, under which HTTP status and title."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mltrading_dashboard import notices, shell
from mltrading_dashboard.data import Data
from mltrading_dashboard.flags import Flags
from mltrading_dashboard.pages import charts, compare, missing, overview, status
from mltrading_dashboard.state import ViewState, parse
from mltrading_marketdata import StoreError

PAGES = {
    "overview": overview,
    "charts": charts,
    "compare": compare,
    "status": status,
    "missing": missing,
}
REGISTERED = (overview, charts, status)


@dataclass(frozen=True)
class Rendered:
    """A page that is ready to be sent."""

    title: str
    children: list


def view(pathname: object, search: object, flags: Flags) -> ViewState:
    """Return the view of an address; a page behind a closed flag is none."""
    found = parse(pathname, search)
    return found if flags.opens(found.page) else replace(found, page="missing")


def render(view: ViewState, data: Data, scheme: str) -> Rendered:
    """Return the page of a view; a store that fails gives a page that says so."""
    if view.page == "status":
        return _status(view, data, scheme)
    try:
        return data.page((view, scheme), lambda: _drawn(view, data, scheme))
    except StoreError:
        content = [notices.unavailable()]
        return Rendered(
            title(view), shell.shell(view, scheme, None, content, data.flags)
        )


def _drawn(view: ViewState, data: Data, scheme: str) -> Rendered:
    """Return the page of a view, drawn from the store's answers."""
    content = PAGES[view.page].layout(view, data, scheme)
    children = shell.shell(view, scheme, data.provenance(), content, data.flags)
    return Rendered(title(view), children)


def _status(view: ViewState, data: Data, scheme: str) -> Rendered:
    """Return the status as it is now, never a remembered one; an outage is shown."""
    try:
        provenance = data.provenance()
    except StoreError:
        provenance = None
    content = status.layout(view, data, scheme)
    children = shell.shell(view, scheme, provenance, content, data.flags)
    return Rendered(title(view), children)


def code(view: ViewState, data: Data) -> int:
    """Return the HTTP status that a direct load of a view deserves."""
    if view.page == "missing":
        return 404
    try:
        known = data.symbols().index
    except StoreError:
        return 503
    named = view.symbols or ((view.symbol,) if view.symbol else ())
    return 200 if all(symbol in known for symbol in named) else 404


def title(view: ViewState) -> str:
    """Return the title of the browser's tab."""
    name = dict((page, text) for text, page in shell.PAGES)
    parts = [view.symbol, ", ".join(view.symbols), name.get(view.page, "Not found")]
    parts.append(shell.BRAND)
    return " · ".join(part for part in parts if part)
