"""What surrounds every page: skip link, top bar, main landmark."""

from __future__ import annotations

from dataclasses import replace

from dash import html

from mltrading_dashboard import notices, wording
from mltrading_dashboard.data import Provenance
from mltrading_dashboard.flags import Flags
from mltrading_dashboard.links import link
from mltrading_dashboard.state import DEFAULT_RANGE, ViewState
from mltrading_marketdata import MARK

PAGES = (
    ("Overview", "overview"),
    ("Charts", "charts"),
    ("Compare", "compare"),
    ("Status", "status"),
)
BRAND = "ML Trading"


def menu(flags: Flags) -> list[tuple[str, str]]:
    """Return name and page of what the menu leads to."""
    return [(text, page) for text, page in PAGES if flags.opens(page)]


def shell(
    view: ViewState,
    scheme: str,
    provenance: Provenance | None,
    content,
    flags: Flags,
) -> list:
    """Return the whole visible page around `content`."""
    other = "light" if scheme == "dark" else "dark"
    bar = html.Header(
        [
            link(BRAND, page_view("overview", view), className="brand"),
            html.Nav(
                [
                    link(
                        text,
                        page_view(page, view),
                        current="page" if page == view.page else None,
                    )
                    for text, page in menu(flags)
                ],
                className="pages",
                **{"aria-label": "Pages"},
            ),
            html.Span(
                [html.Span(className="dot"), provenance_text(provenance)],
                className=f"pill {_mood(provenance)}".strip(),
                id="provenance",
            ),
            link(
                other.capitalize(),
                replace(view, theme=other),
                label=f"Switch to the {other} theme",
                className="theme",
            ),
        ],
        className="topbar",
    )
    skip = html.A("Skip to content", href="#main", className="skip")
    main = html.Main(content, id="main", className=f"page {view.page}", tabIndex="-1")
    said = notices.invented(provenance) if provenance else []
    return [skip, bar, *said, main]


def _mood(provenance: Provenance | None) -> str:
    if provenance is None:
        return "failed"
    return "invented" if provenance.invented else ""


def page_view(page: str, view: ViewState) -> ViewState:
    """Return the plain view of a page, in the theme of `view`."""
    return ViewState(page=page, range=DEFAULT_RANGE[page], theme=view.theme)


def provenance_text(provenance: Provenance | None) -> str:
    """Return the pill's sentence: what the data is and where it ends."""
    if provenance is None:
        return "Data unavailable"
    name = "Sample data" if provenance.sample else "Market data"
    if provenance.invented:
        whole = len(provenance.invented) == len(provenance.sources)
        name = f"{MARK} data" if whole else f"Partly {MARK} data"
    if provenance.last_bar is None:
        return f"{name} · no bars"
    return f"{name} · ends {wording.day(provenance.last_bar)}"
