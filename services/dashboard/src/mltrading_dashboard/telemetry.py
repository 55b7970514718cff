"""The names under which requests are counted, and what the database is measured by."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

from flask import Request

from mltrading_dashboard.security import CALLBACKS
from mltrading_dashboard.state import parse
from mltrading_health.flask import Label, by_callback, by_rule
from mltrading_health.queries import Queries
from mltrading_marketdata import Hooks

if TYPE_CHECKING:
    from mltrading_health import Metrics


def label(callback_map: Container[str]) -> Label:
    """Return what names a request that was answered.

    A page is named by its kind, a callback by its output: never by what the visitor
    typed, or each address somebody tries would become a series of its own.
    """

    def page(asked: Request) -> str | None:
        rule = by_rule(asked)
        if rule in ("/", "/<path:path>"):
            return f"page {parse(asked.path, '').page}"
        return rule

    return by_callback(callback_map, path=CALLBACKS, other=page)


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
