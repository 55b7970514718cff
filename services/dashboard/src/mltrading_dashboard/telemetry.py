"""The names under which requests are counted, and what the database is measured by."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, request

from mltrading_dashboard.security import CALLBACKS
from mltrading_dashboard.state import parse
from mltrading_marketdata import Hooks

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

log = logging.getLogger(__name__)

LABEL = "mltrading.route"
#: Seconds. Most questions take a few milliseconds; 0.5 is what we allow on average.
QUERY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10)
SLOW_S = 0.5


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


def hooks(registry: CollectorRegistry) -> Hooks:
    """Return what counts and times the questions to the database in `registry`.

    One that took longer than SLOW_S is logged by its name, never with its values.
    """
    # prometheus-client decides on import where it counts: not before it is needed.
    from prometheus_client import Counter, Gauge, Histogram

    took = Histogram(
        "database_query_duration_seconds",
        "Time of a question to the database, tries and waits counted in",
        ["name"],
        buckets=QUERY_BUCKETS,
        registry=registry,
    )
    failed = Counter(
        "database_query_failures",
        "Questions without an answer",
        ["name", "error"],
        registry=registry,
    )
    again = Counter(
        "database_query_retries",
        "Questions asked again: cut off, met with silence, or planned too early",
        ["reason"],
        registry=registry,
    )
    waited = Histogram(
        "database_connection_wait_seconds",
        "Time until a connection was had",
        buckets=QUERY_BUCKETS,
        registry=registry,
    )
    in_use = Gauge(
        "database_connections_in_use",
        "Connections that somebody holds now",
        multiprocess_mode="livesum",
        registry=registry,
    )
    most = Gauge(
        "database_connections_limit",
        "Connections that all workers may hold",
        multiprocess_mode="livesum",
        registry=registry,
    )
    locked = Histogram(
        "database_lock_wait_seconds",
        "Time that a writer waited for others",
        buckets=QUERY_BUCKETS,
        registry=registry,
    )
    cache = Counter(
        "database_cache_requests",
        "Series asked of the cache",
        ["result"],
        registry=registry,
    )
    # A lookup by label costs more than the count itself.
    of = functools.cache(took.labels)
    results: dict[bool, Callable[[], None]] = {
        True: cache.labels("hit").inc,
        False: cache.labels("miss").inc,
    }

    def asked(name: str, seconds: float, outcome: str) -> None:
        of(name).observe(seconds)
        if outcome != "ok":
            failed.labels(name, outcome).inc()
        if seconds > SLOW_S:
            log.warning("slow query: %s took %.3f s (%s)", name, seconds, outcome)

    def pool(used: int, size: int) -> None:
        in_use.set(used)
        most.set(size)

    return Hooks(
        asked=asked,
        retried=lambda name, reason: again.labels(reason).inc(),
        connected=waited.observe,
        pool=pool,
        locked=locked.observe,
        cached=lambda hit: results[hit](),
    )
