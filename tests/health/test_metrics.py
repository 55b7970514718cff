"""Metrics have bounded labels and say what runs and how much memory it takes."""

import os
import subprocess
import sys

import pytest

from mltrading_health import Health, Metrics
from mltrading_health.metrics import BUCKETS


@pytest.fixture
def metrics():
    return Metrics(environ={}, most_routes=3)


def render(metrics, health=None):
    return metrics.render(health or Health("dashboard"))[0].decode()


def test_every_alert_threshold_is_a_bucket_and_not_the_last():
    assert {3.0, 5.0, 10.0} < set(BUCKETS[:-1])


def test_routes_beyond_the_limit_are_other(metrics):
    for number in range(10):
        metrics.answered("GET", f"/{number}", "2xx", 0.1)
    text = render(metrics)
    assert 'route="/2"' in text and 'route="/3"' not in text
    other = 'http_requests_total{method="GET",route="<other>",status="2xx"} 7.0'
    assert other in text


def test_what_is_renamed_is_not_remembered(metrics):
    for number in range(100):
        metrics.answered(f"METHOD{number}", "/", "2xx", 0.1)
    assert not metrics._children
    assert 'http_requests_total{method="OTHER",route="/"' in render(metrics)


def test_the_release_is_a_metric(metrics):
    health = Health("dashboard", version="1", release="r7", commit="c0")
    line = 'release_info{commit="c0",release="r7",service="dashboard",version="1"} 1.0'
    assert line in render(metrics, health)


def test_the_memory_of_this_process_is_a_metric(metrics):
    line = next(
        line
        for line in render(metrics).splitlines()
        if line.startswith("worker_memory_bytes")
    )
    assert line.startswith('worker_memory_bytes{worker="0"}')
    assert float(line.split()[1]) > 1_000_000


def test_memory_is_not_read_again_at_each_scrape():
    times = iter([0.0, 14.0, 15.0])
    metrics = Metrics(environ={}, clock=lambda: next(times))
    calls = []
    metrics.pids = lambda: calls.append(1) or {}
    for expected in (1, 1, 2):
        metrics.worker_memory()
        assert len(calls) == expected


def test_pids_are_read_from_the_files_of_the_slots(tmp_path):
    metrics = Metrics(environ={})
    metrics.folder = tmp_path
    (tmp_path / "worker_0.pid").write_text("11\n")
    (tmp_path / "worker_1.pid").write_text("")
    assert metrics.pids() == {"0": 11}


SHARED = """
import os
from mltrading_health import Health, Metrics, slot
metrics = Metrics()
metrics.in_progress.inc()
for name in ("0", "1", "0"):
    slot.take(name)
    metrics.answered("GET", "/", "2xx", 0.1)
print(metrics.render(Health("x"))[0].decode())
"""


@pytest.mark.integration
def test_a_slot_goes_on_counting_where_it_ended(tmp_path):
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", SHARED],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    line = 'http_requests_total{method="GET",route="/",status="2xx"} 3.0'
    assert line in run.stdout
    names = sorted(path.name for path in tmp_path.glob("counter*"))
    assert names == ["counter_0.db", "counter_1.db"]


@pytest.mark.integration
def test_importing_the_package_does_not_import_prometheus_client():
    code = (
        "import sys, mltrading_health, mltrading_health.gunicorn;"
        "sys.exit('prometheus_client' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_package_has_no_other_lazy_names():
    import mltrading_health

    with pytest.raises(AttributeError, match="nothing"):
        mltrading_health.nothing
