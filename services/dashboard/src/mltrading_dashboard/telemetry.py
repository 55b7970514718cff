"""The names under which requests are counted, and what the database is measured by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, request

from mltrading_dashboard.security import CALLBACKS
from mltrading_dashboard.state import parse
from mltrading_health.queries import Queries
from mltrading_marketdata import Hooks

if TYPE_CHECKING:
    from mltrading_health import Metrics

LABEL = "mltrading.route"


def label(server: Flask) -> None:
    """Leave a label in the environ of each request that reached a view.

    A page is named by its kind, a callback by its output: never by what the visitor
    typed, or each address somebody tries would become a series of its own.
    """

    @server.after_request
    def name(response: Response) -> Response:
        rule = request.url_rule.rule if request.url_rule else None
        if rule in ("/", "/<path:path>"):
            rule = f"page {parse(request.path, '').page}"
        elif rule == CALLBACKS and response.status_code < 400:
            rule = f"callback {request.get_json()['output']}"
        request.environ[LABEL] = rule
        return response


def route(environ: Mapping[str, Any]) -> str | None:
    """Return the label that `label` left."""
    return environ.get(LABEL)


def hooks(metrics: Metrics) -> Hooks:
    """Return what counts and times the questions to the database in `metrics`."""
    queries = Queries(metrics)
    return Hooks(
        asked=queries.asked,
        retried=queries.retried,
        connected=queries.connected,
        pool=queries.pool,
        locked=queries.locked,
        cached=queries.cached,
    )
