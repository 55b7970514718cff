"""Controls that choose among values: links, because a link is an address.

A link can be copied, opened in a new tab and reached by keyboard, and it can not fire
by itself when the page is redrawn. `assets/app.js` follows `data-nav` links without a
reload.
"""

from __future__ import annotations

from dataclasses import replace

from dash import html

from mltrading_dashboard.state import ViewState, to_url


def link(children, view: ViewState, *, current: str | None = None, label=None, **more):
    """Return a link to `view`; `current` is its aria-current value."""
    aria = {"data-nav": ""}
    if current:
        aria["aria-current"] = current
    if label:
        aria["aria-label"] = label
    return html.A(children, href=to_url(view), **aria, **more)


def segmented(label: str, options, name: str, view: ViewState):
    """Return a row of links that set field `name` of `view` to one of `options`.

    `options` are (text, value) pairs; the one in force is marked.
    """
    now = getattr(view, name)
    return html.Nav(
        [
            link(
                text,
                replace(view, **{name: value}),
                current="true" if value == now else None,
            )
            for text, value in options
        ],
        className="segmented",
        **{"aria-label": label},
    )


def toggles(label: str, options, name: str, view: ViewState):
    """Return a row of links that put a value into tuple field `name` or take it out."""
    now = getattr(view, name)
    items = []
    for text, value in options:
        on = value in now
        after = tuple(sorted(set(now) ^ {value}))
        items.append(
            link(
                text,
                replace(view, **{name: after}),
                current="true" if on else None,
                label=f"{'Hide' if on else 'Show'} {text}",
            )
        )
    return html.Nav(items, className="segmented", **{"aria-label": label})
