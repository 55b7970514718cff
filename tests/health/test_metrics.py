"""Metrics have bounded labels and say what runs and how much memory it takes."""

import os
import re
import subprocess
import sys

import pytest

from mltrading_health import Health, Metrics, Result, Status
from mltrading_health.metrics import BUCKETS, _began


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
    assert not metrics._answers
    assert 'http_requests_total{method="other",route="/"' in render(metrics)


def test_failures_of_a_route_begin_at_zero_so_that_the_first_show_in_a_rate(metrics):
    metrics.answered("GET", "/", "2xx", 0.1)
    line = 'http_requests_total{method="GET",route="/",status="5xx"} 0.0'
    assert line in render(metrics)


def test_the_release_is_a_metric(metrics):
    health = Health("dashboard", version="1", release="r7", commit="c0")
    line = 'release_info{commit="c0",release="r7",service="dashboard",version="1"} 1.0'
    assert line in render(metrics, health)


def test_counts_say_of_which_release_they_are_and_levels_do_not(metrics):
    metrics.answered("GET", "/", "2xx", 0.1)
    text = render(metrics, Health("dashboard", release="r7"))
    counted = 'total{method="GET",release="r7",route="/",status="2xx"} 1.0'
    assert counted in text
    assert 'bucket{le="+Inf",method="GET",release="r7",route="/"} 1.0' in text
    assert "http_requests_in_progress 0.0" in text
    assert 'release="' not in render(metrics).replace('release=""', "")


def test_the_memory_of_this_process_is_a_metric(metrics):
    line = next(
        line
        for line in render(metrics).splitlines()
        if line.startswith("worker_memory_bytes")
    )
    assert line.startswith('worker_memory_bytes{worker="0"}')
    assert float(line.split()[1]) > 1_000_000


def test_what_each_worker_uses_is_a_metric(metrics):
    text = render(metrics)
    assert float(re.search(r'worker_cpu_seconds_total{worker="0"} (\S+)', text)[1]) > 0


def test_memory_is_shown_next_to_its_limit(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 8 kB\nMemAvailable: 6 kB\n")
    text = render(Metrics(environ={}, root=tmp_path))
    assert "service_memory_used_bytes 2048.0" in text
    assert "service_memory_limit_bytes 8192.0" in text


def test_disks_are_shown_by_their_short_names(metrics, tmp_path):
    metrics.disk("data", tmp_path)
    metrics.disk("gone", tmp_path / "gone")
    text = render(metrics)
    free, size = (
        float(re.search(rf'disk_{what}_bytes{{disk="data"}} (\S+)', text)[1])
        for what in ("free", "size")
    )
    assert 0 < free <= size and 'disk="gone"' not in text


@pytest.fixture
def followed(metrics):
    health = Health("desk", clock=lambda: 0.0)
    metrics.follow(health)
    metrics.follow(health)
    health.check("database", lambda: False)
    health.check("quotes", lambda: Result(Status.WARN), critical=False)
    health.check("news", lambda: True, critical=False)
    return health


def test_a_scrape_tells_the_results_at_hand_and_runs_no_check(metrics, followed):
    assert "health_check_status{" not in render(metrics, followed)
    assert "service_ready 1.0" in render(metrics, followed)
    followed.report()
    text = render(metrics, followed)
    for line in (
        '{check="database"} 2.0',
        '{check="quotes"} 1.0',
        '{check="news"} 0.0',
    ):
        assert f"health_check_status{line}" in text
    assert "service_ready 0.0" in text


def test_only_critical_checks_start_and_drain_make_a_service_not_ready(
    metrics, tmp_path
):
    health = Health("desk", runtime_dir=tmp_path, starting=True)
    metrics.follow(health)
    health.check("quotes", lambda: False, critical=False)
    health.report()
    ready = []
    for change in (health.started, health.drain, lambda: health.drain(False)):
        ready.append(metrics.snapshot().total("service_ready"))
        change()
    ready.append(metrics.snapshot().total("service_ready"))
    assert ready == [0, 1, 0, 1]


def test_the_same_metric_is_had_twice_and_another_of_its_name_refused(metrics):
    first = metrics.counter("orders", "Orders placed", {"side": ("buy", "sell")})
    again = metrics.counter("orders", "Orders placed", {"side": ("buy", "sell")})
    assert again is first
    with pytest.raises(ValueError, match="'orders'"):
        metrics.gauge("orders", "Orders waiting")


def test_a_metric_without_labels_is_counted_directly(metrics):
    metrics.counter("orders", "Orders placed").inc(2)
    metrics.gauge("waiting", "Orders waiting", agg="max").set(3)
    text = render(metrics)
    assert "orders_total 2.0" in text and "\nwaiting 3.0" in text


def test_when_a_series_began_is_not_told(metrics):
    metrics.answered("GET", "/", "2xx", 0.1)
    assert "_created" not in render(metrics)


@pytest.mark.parametrize(
    "accept, expected",
    [
        ("", "text/plain; version=0.0.4"),
        ("text/plain;version=nonsense", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=x", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text"),
    ],
)
def test_text_is_given_as_accepted(metrics, accept, expected):
    assert metrics.render(Health("x"), accept)[1].startswith(expected)


def test_the_period_is_that_since_the_first_worker_began(tmp_path):
    assert _began(tmp_path, lambda: 100.0) == 100.0
    assert _began(tmp_path, lambda: 130.0) == 100.0
    (tmp_path / "began").write_text("")  # as it is for a moment
    assert _began(tmp_path, lambda: 140.0) == 140.0


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
