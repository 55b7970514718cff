"""Wire a Flask server: probes before it, its requests measured by their URL rule.

::

    from mltrading_health.flask import flask
    flask(server, health, Metrics())
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any

from mltrading_health.checks import Health
from mltrading_health.wsgi import OTHER, wsgi

if TYPE_CHECKING:
    from mltrading_health.client import ClientTimings
    from mltrading_health.metrics import Metrics

log = logging.getLogger(__name__)

CALLBACKS = "/_dash-update-component"
UNKNOWN = "<unknown callback>"
#: Gives the label of a flask.Request that was answered; None is "<other>".
Label = Callable[[Any], "str | None"]


def by_rule(request: Any) -> str | None:
    """Return the URL rule that a request matched: never the path, it has no end."""
    rule = request.url_rule
    return None if rule is None else rule.rule


def by_callback(
    callback_map: Container[str], *, path: str = CALLBACKS, other: Label = by_rule
) -> Label:
    """Return a label for a Dash server, whose every chart comes through one path.

    A callback is named by its output, ``callback price.figure``; what is not in
    ``callback_map`` is "<unknown callback>": anybody can send that, and Dash answers it
    with a 500, so leave it out of error rates. ``other`` labels the rest.
    """

    def label(request: Any) -> str | None:
        from werkzeug.exceptions import HTTPException

        if request.path != path or request.method != "POST":
            return other(request)
        try:
            # Dash has parsed it already: this is what Flask remembers.
            body = request.get_json(silent=True)
        except (HTTPException, OSError):
            body = None  # larger than allowed, or cut off
        output = body.get("output") if isinstance(body, dict) else None
        if isinstance(output, str) and output in callback_map:
            return f"callback {output}"
        return UNKNOWN

    return label


def flask(
    server: Any,
    health: Health,
    metrics: Metrics,
    *,
    label: Label = by_rule,
    client: ClientTimings | None = None,
) -> None:
    """Put the probes before a flask.Flask and measure what it answers.

    ``client`` takes what browsers post to /metrics/client.
    Call it last: what wraps ``server.wsgi_app`` later stands before the probes. A label
    that can't be found is "<other>"; the request is answered all the same.
    """

    def route(environ: dict[str, Any]) -> str | None:
        # Werkzeug leaves it there. Flask's hooks would find it at five times the cost;
        # when the answer begins the request is still the current one, as in a hook.
        asked = environ.get("werkzeug.request")
        try:
            return None if asked is None else label(asked) or OTHER
        except Exception:
            # The answer is on its way: it must not be lost for its name.
            log.exception("a request could not be labelled")
            return OTHER

    server.wsgi_app = wsgi(
        server.wsgi_app,
        health,
        metrics,
        route=route,
        client=client,
    )
