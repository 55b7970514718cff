"""A snapshot is what all workers have counted; people read its figures as JSON."""

import json
import os
import subprocess
import sys

import pytest

from mltrading_health import Health, Metrics
from mltrading_health.snapshot import Snapshot, quantile


@pytest.fixture
def metrics(tmp_path):
    times = iter([100.0, 160.0])
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 8 kB\nMemAvailable: 6 kB\n")
    return Metrics(environ={}, now=lambda: next(times), root=tmp_path)


def test_samples_are_found_by_name_and_labels(metrics):
    metrics.answered("GET", "/", "2xx", 0.1)
    samples = metrics.snapshot(Health("x", version="1")).samples
    labels = frozenset({("method", "GET"), ("route", "/"), ("status", "2xx")})
    assert samples["http_requests_total"][labels] == 1.0
    bucket = frozenset({("method", "GET"), ("route", "/"), ("le", "+Inf")})
    assert samples["http_request_duration_seconds_bucket"][bucket] == 1.0
    assert samples["http_requests_in_progress"] == {frozenset(): 0.0}
    assert "release_info" in samples


def test_the_figures_of_a_service(metrics):
    for number in range(100):
        status = "5xx" if number < 5 else "2xx"
        metrics.answered("GET", "/", status, 4.0 if number < 10 else 0.2)
    metrics.in_progress.inc(3)
    said = metrics.snapshot().to_json()
    assert said == {
        "request_count": 100,
        "error_rate": 0.05,
        "response_time_avg": pytest.approx(0.58),
        "response_time_p50": pytest.approx(0.1 + 0.15 * 50 / 90),
        "response_time_p95": pytest.approx(4.0),
        "response_time_p99": pytest.approx(4.8),
        "throughput": pytest.approx(100 / 60),
        "period_seconds": 60.0,
        "memory_usage": 0.25,
        "memory_used_bytes": 2048,
        "memory_limit_bytes": 8192,
        "active_connections": 3,
    }
    assert json.loads(json.dumps(said)) == said


def test_before_the_first_request_there_is_no_time_and_no_error(metrics):
    said = metrics.snapshot().to_json()
    assert said["response_time_avg"] is said["response_time_p99"] is None
    assert said["request_count"] == said["error_rate"] == said["throughput"] == 0


def test_what_was_counted_since_an_earlier_one():
    labels, other = frozenset({("a", "b")}), frozenset({("a", "c")})
    before = Snapshot({"n_total": {labels: 3.0}, "gauge": {labels: 3.0}}, 10.0)
    after = {"n_total": {labels: 5.0, other: 1.0}, "gauge": {labels: 2.0}}
    found = Snapshot(after, 70.0).since(before)
    assert found.samples["n_total"] == {labels: 2.0, other: 1.0}
    assert found.samples["gauge"] == {labels: 2.0} and found.period == 60.0


def test_sums_are_of_the_series_that_match():
    series = {
        frozenset({("status", "5xx"), ("route", "/")}): 1.0,
        frozenset({("status", "2xx"), ("route", "/")}): 2.0,
    }
    found = Snapshot({"n_total": series})
    assert found.total("n_total", status="5xx") == 1.0
    assert found.total("n_total") == 3.0 and found.total("gone") == 0


@pytest.mark.parametrize(
    "counts, share, expected",
    [
        ([], 0.5, None),
        ([(1.0, 0.0), (float("inf"), 0.0)], 0.5, None),
        ([(1.0, 0.0), (2.0, 10.0), (float("inf"), 10.0)], 0.5, 1.5),
        ([(1.0, 5.0), (2.0, 5.0), (float("inf"), 10.0)], 0.99, 2.0),
        ([(1.0, 1.0), (float("inf"), 1.0)], 0.0, 0.0),
    ],
)
def test_quantiles_are_interpolated_as_prometheus_does_it(counts, share, expected):
    assert quantile(counts, share) == expected


COUNTED = """
import json
from mltrading_health import Metrics, slot
metrics = Metrics()
for name in ("0", "1"):
    slot.take(name)
    metrics.answered("GET", "/", "2xx", 0.1)
    metrics.in_progress.inc()
print(json.dumps(metrics.snapshot().to_json()))
"""


@pytest.mark.integration
def test_a_snapshot_is_of_all_workers(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", COUNTED],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(run.stdout)
    assert said["request_count"] == 2 and said["active_connections"] == 2
    assert said["response_time_avg"] == pytest.approx(0.1)
