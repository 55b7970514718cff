"""Count and time the questions that a service asks its database."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mltrading_health.families import Names

if TYPE_CHECKING:
    from mltrading_health.metrics import Metrics

log = logging.getLogger(__name__)

#: Seconds. Most questions take a few milliseconds; 0.5 is what we allow on average.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10)
SLOW_S = 0.5


class Queries:
    """Take in what happens between a service and its database.

    Each method is one event, told in the thread in which it happens; times are seconds.
    A question that took longer than ``slow_s`` is logged by its name, never with its
    values.
    """

    def __init__(self, metrics: Metrics, *, slow_s: float = SLOW_S) -> None:
        self.slow_s = slow_s
        name = {"name": Names(200)}
        self.took = metrics.histogram(
            "database_query_duration_seconds",
            "Time of a question to the database, tries and waits counted in",
            name,
            buckets=BUCKETS,
        )
        self.failed = metrics.counter(
            "database_query_failures",
            "Questions without an answer",
            {**name, "error": Names(50)},
        )
        self.again = metrics.counter(
            "database_query_retries",
            "Questions asked again: cut off, met with silence, or planned too early",
            {"reason": Names(20)},
        )
        self.waited = metrics.histogram(
            "database_connection_wait_seconds",
            "Time until a connection was had",
            buckets=BUCKETS,
        )
        self.in_use = metrics.gauge(
            "database_connections_in_use", "Connections that somebody holds now"
        )
        self.most = metrics.gauge(
            "database_connections_limit", "Connections that all workers may hold"
        )
        self.lock_wait = metrics.histogram(
            "database_lock_wait_seconds",
            "Time that a writer waited for others",
            buckets=BUCKETS,
        )
        cache = metrics.counter(
            "database_cache_requests",
            "Series asked of the cache",
            {"result": ("hit", "miss")},
        )
        self._cache = {True: cache.labels("hit"), False: cache.labels("miss")}

    def asked(self, name: str, seconds: float, outcome: str) -> None:
        """Say that a question has ended: "ok", or the name of the error."""
        self.took.labels(name).observe(seconds)
        if outcome != "ok":
            self.failed.labels(name, outcome).inc()
        if seconds > self.slow_s:
            log.warning("slow query: %s took %.3f s (%s)", name, seconds, outcome)

    def retried(self, name: str, reason: str) -> None:
        """Say by a fixed word why a question is asked again."""
        self.again.labels(reason).inc()

    def connected(self, seconds: float) -> None:
        """Say that a connection was had after so long."""
        self.waited.observe(seconds)

    def pool(self, used: int, size: int) -> None:
        """Say how many connections this process holds, and may hold."""
        self.in_use.set(used)
        self.most.set(size)

    def locked(self, seconds: float) -> None:
        """Say that a writer has waited so long for others."""
        self.lock_wait.observe(seconds)

    def cached(self, hit: bool) -> None:
        """Say whether a series was found in the cache."""
        self._cache[hit].inc()
