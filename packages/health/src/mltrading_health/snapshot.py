"""What all workers have counted, at one moment."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

Series = frozenset[tuple[str, str]]
REQUESTS = "http_requests_total"
SECONDS = "http_request_duration_seconds"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Hold the values of all series, merged over workers.

    ``samples`` goes from the full name of a sample (``http_requests_total``,
    ``…_bucket`` with the label ``le``) to its labels to its value. Counts are those of
    ``period`` seconds: since the service began, or since an ``earlier`` snapshot.
    """

    samples: Mapping[str, Mapping[Series, float]]
    period: float = 0.0

    def total(self, sample: str, /, **match: str) -> float:
        """Return the sum of a sample over all series that have these labels."""
        asked = match.items()
        series = self.samples.get(sample, {})
        return sum(value for labels, value in series.items() if asked <= labels)

    def quantile(self, histogram: str, share: float, /, **match: str) -> float | None:
        """Return what ``share`` (0 to 1) of the observations of a histogram stay below.

        Interpolated within a bucket as Prometheus does it; never above the last finite
        bound. None if nothing was observed.
        """
        counts: dict[float, float] = {}
        asked = match.items()
        for labels, value in self.samples.get(f"{histogram}_bucket", {}).items():
            if asked <= labels:
                bound = float(dict(labels)["le"])
                counts[bound] = counts.get(bound, 0.0) + value
        return quantile(sorted(counts.items()), share)

    def since(self, earlier: Snapshot) -> Snapshot:
        """Return what was counted after an earlier snapshot of the same service.

        Only counts are less; gauges stay what they are now.
        """
        samples = {
            name: (
                {
                    labels: max(0.0, value - before.get(labels, 0.0))
                    for labels, value in series.items()
                }
                if name.endswith(("_total", "_bucket", "_count", "_sum"))
                else series
            )
            for name, series in self.samples.items()
            for before in (earlier.samples.get(name, {}),)
        }
        return Snapshot(samples, max(0.0, self.period - earlier.period))

    def to_json(self) -> dict[str, Any]:
        """Return the figures that people ask for, by name.

        Times in seconds, shares 0 to 1, None where there is nothing to measure; each
        is explained in docs/reference/health.md.
        """
        count = self.total(REQUESTS)
        errors = self.total(REQUESTS, status="5xx")
        used = self.total("service_memory_used_bytes")
        limit = self.total("service_memory_limit_bytes")
        seconds = self.total(f"{SECONDS}_sum")
        return {
            "request_count": int(count),
            "error_rate": errors / count if count else 0.0,
            "response_time_avg": seconds / count if count else None,
            "response_time_p50": self.quantile(SECONDS, 0.50),
            "response_time_p95": self.quantile(SECONDS, 0.95),
            "response_time_p99": self.quantile(SECONDS, 0.99),
            "throughput": count / self.period if self.period else None,
            "period_seconds": self.period,
            "memory_usage": used / limit if limit else None,
            "memory_used_bytes": int(used) or None,
            "memory_limit_bytes": int(limit) or None,
            "active_connections": int(self.total("http_requests_in_progress")),
        }


def quantile(counts: list[tuple[float, float]], share: float) -> float | None:
    """Return a quantile of cumulative counts by bound, the last bound infinite."""
    if not counts or counts[-1][1] <= 0:
        return None
    rank = share * counts[-1][1]
    below, low = 0.0, 0.0
    for bound, count in counts:
        if count >= rank and count > below:
            if math.isinf(bound):
                return low
            return low + (bound - low) * (rank - below) / (count - below)
        below, low = count, bound
    return low


def taken(families: Iterable[Metric], period: float) -> Snapshot:
    """Return a snapshot of metric families."""
    samples: dict[str, dict[Series, float]] = {}
    for family in families:
        for name, labels, value, *_ in family.samples:
            samples.setdefault(name, {})[frozenset(labels.items())] = value
    return Snapshot(samples, period)
