"""Count requests and time them, summed over all workers of a service."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from mltrading_health.checks import Health, Result, Status
from mltrading_health.disk import room
from mltrading_health.families import Family, Names, Values
from mltrading_health.merge import merged
from mltrading_health.snapshot import Snapshot, taken
from mltrading_health.values import stored
from mltrading_health.workers import Workers

#: Seconds. Contains every latency threshold we alert on, and bounds beyond them: a
#: quantile can never be above the last one.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 3.0, 5.0, 10.0, 30.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
STATUSES = frozenset({"1xx", "2xx", "3xx", "4xx", "5xx"})
OTHER = "<other>"
#: The values of one kind of answer: their count, seconds in all, bounds and buckets.
Series = tuple[Any, Any, Sequence[float], Sequence[Any]]
STATUS = "health_check_status"
FAILED = "5xx"
#: How the values of several workers become one. There is no "min": a worker that has
#: not set its value yet would say 0.
MODES = {"sum": "livesum", "max": "livemax", "recent": "livemostrecent"}


class Metrics:
    """Hold the metrics of a service.

    With ``PROMETHEUS_MULTIPROC_DIR`` in the environment the numbers live in files which
    all workers share; without it, in this process. At most ``most_routes`` routes are
    told apart, the rest is one label: whoever scans for addresses makes no new series.
    ``memory_limit`` in bytes is for where nothing enforces one, as for `memory_check`.
    """

    def __init__(
        self,
        *,
        buckets: Sequence[float] = BUCKETS,
        most_routes: int = 200,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        root: Path = Path("/"),
        memory_limit: int | None = None,
    ) -> None:
        folder = environ.get("PROMETHEUS_MULTIPROC_DIR")
        self.folder = Path(folder) if folder else None
        self.registry = CollectorRegistry()
        self.now, self.memory_limit = now, memory_limit
        self.workers = Workers(self.folder, root=root, clock=clock)
        self._made: dict[str, tuple[object, Any]] = {}
        self._disks: dict[str, str | os.PathLike[str]] = {}
        self._health: Health | None = None
        self._began = _began(self.folder, now)
        if self.folder is not None:
            values.ValueClass = stored(self.folder)
        routes = Names(most_routes, OTHER)
        self.requests = self.counter(
            "http_requests",
            "Requests answered",
            {"method": METHODS, "route": routes, "status": STATUSES},
        )
        self.seconds = self.histogram(
            "http_request_duration_seconds",
            "Time from the request to the end of its answer",
            {"method": METHODS, "route": routes},
            buckets=buckets,
        )
        self.in_progress = self.gauge(
            "http_requests_in_progress", "Requests being answered now"
        )
        self._answers: dict[tuple[str, str, str], Series] = {}
        #: To be told that a request has come.
        self.begin: Callable[[], None] = partial(self.in_progress._value.inc, 1.0)
        #: To be told of its answer: method, route, "2xx" or the like, seconds.
        self.end = self._ending()

    def counter(
        self, name: str, help: str, labels: Mapping[str, Values] | None = None
    ) -> Any:
        """Return prometheus-client's Counter, or the Family of them if it has labels.

        The same arguments again give the same counter.

        Raises:
            ValueError: there is another metric of this name.
        """
        return self._make(Counter, name, help, labels or {})

    def gauge(
        self,
        name: str,
        help: str,
        labels: Mapping[str, Values] | None = None,
        *,
        agg: Literal["sum", "max", "recent"] = "sum",
    ) -> Any:
        """Return a Gauge or the Family of them.

        ``agg`` says what several workers' values are together; a worker that has ended
        counts no more.
        """
        return self._make(Gauge, name, help, labels or {}, multiprocess_mode=MODES[agg])

    def histogram(
        self,
        name: str,
        help: str,
        labels: Mapping[str, Values] | None = None,
        *,
        buckets: Sequence[float] = BUCKETS,
    ) -> Any:
        """Return a Histogram or the Family of them; the bounds in the metric's unit."""
        return self._make(Histogram, name, help, labels or {}, buckets=tuple(buckets))

    def _make(
        self,
        kind: type,
        name: str,
        help_text: str,
        labels: Mapping[str, Values],
        **more: Any,
    ) -> Any:
        asked = (kind, help_text, tuple(labels), tuple(more.items()))
        if name in self._made:
            known, metric = self._made[name]
            if known != asked:
                raise ValueError(f"there is another metric named {name!r} already")
            return metric
        metric = kind(name, help_text, list(labels), registry=self.registry, **more)
        if labels:
            metric = Family(metric.labels, labels)
        self._made[name] = asked, metric
        return metric

    def answered(self, method: str, route: str, status: str, seconds: float) -> None:
        """Count a request and its answer; ``status`` is its class, like "2xx"."""
        self.begin()
        self.end(method, route, status, seconds)

    def _ending(self) -> Callable[[str, str, str, float], None]:
        """Return what counts an answer, with all at hand that it needs."""
        find, adopt, gauge = self._answers.get, self._adopt, self.in_progress._value
        write = gauge.of.answered if self.folder is not None else _answered

        def end(method: str, route: str, status: str, seconds: float) -> None:
            series = find((method, route, status))
            if series is None:
                series = adopt(method, route, status)
            count, total, bounds, buckets = series
            bucket = buckets[bisect_left(bounds, seconds)]
            write(count, total, bucket, gauge, seconds)

        return end

    def _adopt(self, method: str, route: str, status: str) -> Series:
        """Return the series of an answer; keep them at hand if they bear its labels.

        They are what prometheus-client's metrics are made of: through its own methods
        the same costs three times as much.
        """
        count = self.requests.labels(method, route, status)
        took = self.seconds.labels(method, route)
        series = (count._value, took._sum, took._upper_bounds, took._buckets)
        if self.requests.knows(method, route, status):
            self._answers[method, route, status] = series
            # A rate needs two values: with a zero here the first failures show at once.
            self.requests.labels(method, route, FAILED)
        return series

    def follow(self, health: Health) -> None:
        """Keep the last result of each check, of whichever worker has asked it last.

        From now on it is this service that the metrics are of.
        """
        if health is self._health:
            return
        self._health = health
        status = self.gauge(
            STATUS,
            "Last result of a check: 0 pass, 1 warning, 2 failure",
            {"check": Names(100)},
            agg="recent",
        )
        store = self.in_progress._value.of if self.folder is not None else None

        def found(name: str, result: Result) -> None:
            status.labels(name).set(result.status)
            if store is not None:
                store.settle()  # every worker comes by here every few seconds

        health.listeners.append(found)

    def disk(self, name: str, path: str | os.PathLike[str]) -> None:
        """Show the room on the disk below ``path``, under a short name."""
        self._disks[name] = path

    def render(self, health: Health, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics as text and its content type, as ``accept`` wants it.

        Counts say of which release they are: behind one address the release that was
        there before may answer again, with all that it had counted until then, which
        without its name would look as if it had been counted at this moment.
        """
        try:
            encoder, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that is no number
            encoder, content_type = choose_encoder("")
        families: Iterable[Metric] = self.families(health)
        if health.release:
            families = (_of_release(metric, health.release) for metric in families)
        return encoder(_Scrape(families)), content_type

    def snapshot(self, health: Health | None = None) -> Snapshot:
        """Return all values, merged over workers."""
        period = max(0.0, self.now() - self._began)
        return taken(self.families(health), period)

    def families(self, health: Health | None = None) -> Iterator[Metric]:
        """Yield what was counted and what is read now; no check is run for it."""
        health = health or self._health
        failed: set[str] = set()
        for family in self._counted():
            if family.name == STATUS:
                failed.update(
                    sample.labels["check"]
                    for sample in family.samples
                    if sample.value == Status.FAIL
                )
            yield family
        if health is not None:
            yield _release(health)
            yield _ready(health, failed)
        yield from self._resources()

    def _counted(self) -> Iterable[Metric]:
        if self.folder is not None:
            return merged(self.folder)
        return map(_without_created, self.registry.collect())

    def _resources(self) -> Iterator[Metric]:
        """Yield memory, processors and disks."""
        found = self.workers.service(self.memory_limit)
        if found is not None:
            yield GaugeMetricFamily(
                "service_memory_used_bytes",
                "Memory in use within the limit, without pages that can be given back",
                value=found.used,
            )
            yield GaugeMetricFamily(
                "service_memory_limit_bytes",
                "The tightest limit on memory",
                value=found.limit,
            )
        yield from _by(
            GaugeMetricFamily,
            "worker_memory_bytes",
            "Proportional share of memory",
            "worker",
            self.workers.memory(),
        )
        yield from _by(
            CounterMetricFamily,
            "worker_cpu_seconds",
            "Time on the processor of the process in this slot",
            "worker",
            self.workers.cpu(),
        )
        asked = ((name, room(path)) for name, path in self._disks.items())
        rooms = {name: found for name, found in asked if found is not None}
        for name, text, field in (
            ("disk_free_bytes", "Bytes that this service may still write", "free"),
            ("disk_size_bytes", "Bytes in all", "size"),
        ):
            bytes_of = {disk: getattr(rooms[disk], field) for disk in rooms}
            yield from _by(GaugeMetricFamily, name, text, "disk", bytes_of)


def _answered(count: Any, total: Any, bucket: Any, gauge: Any, seconds: float) -> None:
    """Count one answer and its time, and one less in progress, in this process."""
    count.inc(1.0)
    total.inc(seconds)
    bucket.inc(1.0)
    gauge.inc(-1.0)


def _began(folder: Path | None, now: Callable[[], float]) -> float:
    """Return when the service began to count; the first worker that asks says it."""
    if folder is None:
        return now()
    path = folder / "began"
    try:
        with path.open("x") as file:
            file.write(f"{now()}\n")
    except FileExistsError:
        pass
    try:
        return float(path.read_text())
    except ValueError:
        return now()  # another worker is writing it, at this moment


def _release(health: Health) -> Metric:
    labels = {
        "service": health.service,
        "version": health.version,
        "release": health.release,
        "commit": health.commit,
    }
    metric = GaugeMetricFamily("release_info", "What runs here", labels=list(labels))
    metric.add_metric(list(labels.values()), 1.0)
    return metric


def _of_release(metric: Metric, release: str) -> Metric:
    """Name the release of counts; gauges are of the moment, whoever it is that tells.

    The samples were made for this scrape, and are nobody else's.
    """
    if metric.type in ("counter", "histogram"):
        for sample in metric.samples:
            sample.labels.setdefault("release", release)
    return metric


def _ready(health: Health, failed: Collection[str]) -> Metric:
    """Return whether the service would get traffic, by the results at hand."""
    needed = {
        check.name
        for check in health.checks.values()
        if check.critical and "ready" in check.groups
    }
    ready = not (health.starting or health.draining or needed & set(failed))
    return GaugeMetricFamily(
        "service_ready", "Whether the service takes traffic", value=float(ready)
    )


def _by(
    family: Any, name: str, help_text: str, label: str, found: Mapping[str, float]
) -> Iterator[Metric]:
    metric = family(name, help_text, labels=[label])
    for value, number in found.items():
        metric.add_metric([value], number)
    if found:
        yield metric


def _without_created(metric: Metric) -> Metric:
    """Leave out when each series began, which the files of workers don't say either."""
    created = f"{metric.name}_created"
    metric.samples = [s for s in metric.samples if s.name != created]
    return metric


class _Scrape:
    """Hand families to an encoder of prometheus-client."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = families

    def collect(self) -> Iterable[Metric]:
        """Return all metric families."""
        return self.families
