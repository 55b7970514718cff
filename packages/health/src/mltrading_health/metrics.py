"""Count requests and time them, summed over all workers of a service."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from mltrading_health import slot
from mltrading_health.checks import Health
from mltrading_health.memory import worker_memory

#: Seconds. Contains every latency threshold we alert on, and bounds beyond them: a
#: quantile can never be above the last one.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 3.0, 5.0, 10.0, 30.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "<other>"


@functools.cache
def _slot_values() -> type:
    """Return the one class whose values live in files that are named by slot.

    prometheus-client names them by pid; see slot.py for why we do not.
    """
    return values.MultiProcessValue(slot.current)


class Metrics:
    """Hold the request metrics of a service.

    With ``PROMETHEUS_MULTIPROC_DIR`` in the environment the numbers live in files which
    all workers share; without it, in this process. At most ``most_routes`` routes are
    told apart, the rest is one label: whoever scans for addresses makes no new series.
    """

    def __init__(
        self,
        *,
        buckets: Sequence[float] = BUCKETS,
        most_routes: int = 200,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        folder = environ.get("PROMETHEUS_MULTIPROC_DIR")
        self.folder = Path(folder) if folder else None
        self.registry = CollectorRegistry()
        self.most_routes = most_routes
        self.clock = clock
        if self.folder is not None:
            values.ValueClass = _slot_values()
        self.requests = Counter(
            "http_requests",
            "Requests answered",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "http_request_duration_seconds",
            "Time from the request to the end of its answer",
            ["method", "route"],
            buckets=buckets,
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "http_requests_in_progress",
            "Requests being answered now",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self._children: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
        self._routes = {OTHER}
        self._memory: dict[str, float] = {}
        self._memory_at = float("-inf")

    def answered(self, method: str, route: str, status: str, seconds: float) -> None:
        """Count one answer; ``status`` is its class, like "2xx"."""
        children = self._children.get((method, route, status))
        if children is None:
            children = self._adopt(method, route, status)
        children[0].inc()
        children[1].observe(seconds)

    def _adopt(self, method: str, route: str, status: str) -> tuple[Counter, Histogram]:
        """Return the series of new labels, within the bounds."""
        key = (method, route, status)
        method = method if method in METHODS else "OTHER"
        if route not in self._routes:
            if len(self._routes) > self.most_routes:
                route = OTHER
            self._routes.add(route)
        children = (
            self.requests.labels(method, route, status),
            self.seconds.labels(method, route),
        )
        if key == (method, route, status):
            # What was renamed is not remembered: there is no end to what it can be.
            self._children[key] = children
        return children

    def render(self, health: Health, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics as text and its content type, as ``accept`` wants it."""
        registry = self.registry
        if self.folder is not None:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, str(self.folder))
        encoder, content_type = choose_encoder(accept)
        return encoder(Scrape(registry, self.facts(health))), content_type

    def facts(self, health: Health) -> Iterator[GaugeMetricFamily]:
        """Yield what is read when asked: the release and the memory of each worker."""
        release = GaugeMetricFamily(
            "release_info",
            "What runs here",
            labels=["service", "version", "release", "commit"],
        )
        labels = [health.service, health.version, health.release, health.commit]
        release.add_metric(labels, 1.0)
        yield release
        memory = GaugeMetricFamily(
            "worker_memory_bytes", "Proportional share of memory", labels=["worker"]
        )
        for name, used in self.worker_memory().items():
            memory.add_metric([name], used)
        yield memory

    def worker_memory(self, ttl: float = 15.0) -> dict[str, float]:
        """Return bytes by slot; kept for a while, as reading them takes 10 ms each."""
        now = self.clock()
        if now - self._memory_at >= ttl:
            pids = self.pids()
            found = {name: worker_memory(pid) for name, pid in pids.items()}
            self._memory = {name: used for name, used in found.items() if used}
            self._memory_at = now
        return self._memory

    def pids(self) -> dict[str, int]:
        """Return the pid in each slot; this process alone if there are no slots."""
        if self.folder is None:
            return {"0": os.getpid()}
        found = {}
        for path in sorted(self.folder.glob("worker_*.pid")):
            try:
                found[path.stem.removeprefix("worker_")] = int(path.read_text())
            except (OSError, ValueError):
                continue  # its worker is ending or starting
        return found


class Scrape:
    """Put what was counted and what is read now into one exposition."""

    def __init__(
        self, registry: CollectorRegistry, facts: Iterator[GaugeMetricFamily]
    ) -> None:
        self.registry, self.facts = registry, facts

    def collect(self) -> Iterator[object]:
        """Yield all metric families."""
        yield from self.registry.collect()
        yield from self.facts
