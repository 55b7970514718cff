"""Probes answer before the app; what the app answers is signed and measured."""

import json
from datetime import datetime, timezone
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest

from mltrading_health import Health, Metrics, Result, Status, wsgi


@pytest.fixture
def health(tmp_path):
    return Health(
        "dashboard",
        version="1.2.3",
        release="r7",
        artefact="sha256:aa",
        commit="c0ffee",
        runtime_dir=tmp_path,
        now=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
    )


@pytest.fixture
def metrics():
    return Metrics(environ={})


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


@pytest.fixture
def ask(health, metrics):
    def ask(path, method="GET", app=hello, route=lambda environ: None, **environ):
        answer = {}

        def start_response(status, headers, exc_info=None):
            answer.update(status=int(status[:3]), headers=dict(headers))

        environ = {"PATH_INFO": path, "REQUEST_METHOD": method, **environ}
        setup_testing_defaults(environ)
        parts = wsgi(app, health, metrics, route=route)(environ, start_response)
        answer["body"] = b"".join(parts)
        if hasattr(parts, "close"):
            parts.close()
        return answer

    return ask


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def test_the_app_is_answered_through_and_signed(ask):
    answer = ask("/")
    assert answer["body"] == b"hello"
    assert answer["headers"] == {"Content-Type": "text/plain", "X-Release": "r7"}


def test_without_a_release_there_is_no_signature(ask, health):
    health.release = ""
    assert "X-Release" not in ask("/")["headers"]


def test_health_is_healthy_when_all_checks_pass(ask, health):
    health.check("database", lambda: True)
    health.check("disk_space", lambda: Result(Status.WARN))
    answer = ask("/health")
    assert answer["status"] == 200
    assert json.loads(answer["body"]) == {
        "status": "healthy",
        "timestamp": "2026-01-02T03:04:05.000Z",
        "version": "1.2.3",
        "checks": {"database": True, "disk_space": True},
    }


def test_health_is_degraded_when_any_check_fails(ask, health):
    health.check("external_apis", lambda: False, critical=False)
    answer = ask("/health")
    body = json.loads(answer["body"])
    assert (answer["status"], body["status"]) == (503, "degraded")
    assert body["checks"] == {"external_apis": False}


def test_health_never_shows_what_an_error_says(ask, health):
    health.check("database", lambda: int("password"))
    assert b"password" not in ask("/health")["body"]


def test_health_is_unhealthy_when_it_cannot_be_asked(ask, health, monkeypatch, caplog):
    monkeypatch.setattr(health, "report", lambda: 1 / 0)
    answer = ask("/health")
    body = json.loads(answer["body"])
    assert (answer["status"], body["status"]) == (500, "unhealthy")
    assert body["error_id"] in caplog.text
    assert b"division" not in answer["body"]


def test_livez_runs_no_check(ask, health):
    calls = []
    health.check("c", lambda: calls.append(1))
    assert (ask("/livez")["status"], calls) == (200, [])


def test_readyz_asks_the_critical_checks_of_its_group_only(ask, health):
    health.check("api", lambda: False, critical=False)
    health.check("nightly", lambda: False, groups=())
    assert ask("/readyz")["status"] == 200
    health.check("database", lambda: False)
    answer = ask("/readyz")
    assert answer["status"] == 503
    assert json.loads(answer["body"])["failed"] == ["database"]


def test_readyz_says_no_while_draining(ask, health):
    health.drain()
    answer = ask("/readyz")
    assert answer["status"] == 503
    assert json.loads(answer["body"]) == {"status": "draining"}
    assert ask("/livez")["status"] == 200


def test_version_says_what_runs(ask):
    assert json.loads(ask("/version")["body"]) == {
        "service": "dashboard",
        "version": "1.2.3",
        "release": "r7",
        "artefact": "sha256:aa",
        "commit": "c0ffee",
        "started_at": "2026-01-02T03:04:05.000Z",
    }


PROBES = ["/health", "/livez", "/readyz", "/version", "/metrics"]


@pytest.mark.parametrize("path", PROBES)
def test_a_probe_is_not_stored_and_signed(ask, path):
    headers = ask(path)["headers"]
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Release"] == "r7"


@pytest.mark.parametrize("path", PROBES)
def test_head_gives_the_head_only(ask, path):
    answer = ask(path, "HEAD")
    assert (answer["status"], answer["body"]) == (200, b"")
    assert int(answer["headers"]["Content-Length"]) > 0


@pytest.mark.parametrize("path", PROBES)
def test_other_methods_are_refused(ask, path):
    answer = ask(path, "POST")
    assert answer["status"] == 405
    assert answer["headers"]["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/health/", "/healthz", "/LIVEZ", ""])
def test_other_paths_belong_to_the_app(ask, path):
    assert ask(path)["body"] == b"hello"


def test_probes_are_not_counted(ask, metrics):
    ask("/livez")
    ask("/metrics")
    assert not metrics.snapshot().samples.get("http_requests_total")


def test_requests_are_counted_by_method_route_and_class(ask, metrics):
    for _ in range(3):
        ask("/charts", route=lambda environ: "/charts")
    labels = {"method": "GET", "route": "/charts"}
    assert value(metrics, "http_requests_total", status="2xx", **labels) == 3
    assert value(metrics, "http_request_duration_seconds_count", **labels) == 3


def test_a_request_without_a_route_is_other(ask, metrics):
    ask("/wp-admin.php")
    labels = {"method": "GET", "route": "<other>", "status": "2xx"}
    assert value(metrics, "http_requests_total", **labels) == 1


def test_the_app_may_leave_its_label_in_the_environ(ask, metrics):
    def app(environ, start_response):
        environ["label"] = "figure.figure"
        return hello(environ, start_response)

    ask("/", "POST", app=app, route=lambda environ: environ["label"])
    labels = {"method": "POST", "route": "figure.figure", "status": "2xx"}
    assert value(metrics, "http_requests_total", **labels) == 1


def test_an_app_that_raises_is_counted_as_an_error(ask, metrics):
    def broken(environ, start_response):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        ask("/", app=broken)
    labels = {"method": "GET", "route": "<other>", "status": "5xx"}
    assert value(metrics, "http_requests_total", **labels) == 1
    assert value(metrics, "http_requests_in_progress") == 0


def test_a_request_is_in_progress_until_its_answer_is_closed(health, metrics):
    closed = []

    class Parts(list):
        def close(self):
            closed.append(True)

    app = wsgi(lambda environ, start: Parts([b"x"]), health, metrics)
    environ = {}
    setup_testing_defaults(environ)
    parts = app(environ, lambda *_: None)
    assert value(metrics, "http_requests_in_progress") == 1
    parts.close()
    parts.close()
    assert value(metrics, "http_requests_in_progress") == 0
    assert closed


def test_a_file_stays_a_file_for_the_server(health, metrics, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x")

    def app(environ, start_response):
        return environ["wsgi.file_wrapper"](path.open("rb"))

    environ = {"wsgi.file_wrapper": FileWrapper}
    setup_testing_defaults(environ)
    parts = wsgi(app, health, metrics)(environ, lambda *_: None)
    assert isinstance(parts, FileWrapper)
    parts.close()
    assert value(metrics, "http_requests_in_progress") == 0


def test_exception_information_reaches_the_server(health, metrics):
    seen = []

    def app(environ, start_response):
        start_response("500 No", [], ("a", "b", "c"))
        return []

    environ = {}
    setup_testing_defaults(environ)
    wsgi(app, health, metrics)(environ, lambda *given: seen.append(given)).close()
    assert seen == [("500 No", [("X-Release", "r7")], ("a", "b", "c"))]


def test_metrics_are_prometheus_text_unless_open_metrics_is_accepted(ask):
    text = ask("/metrics", HTTP_ACCEPT="*/*")
    assert text["headers"]["Content-Type"].startswith("text/plain; version=0.0.4")
    accept = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;q=0.5"
    opened = ask("/metrics", HTTP_ACCEPT=accept)
    assert opened["headers"]["Content-Type"].startswith("application/openmetrics-text")
    assert opened["body"].endswith(b"# EOF\n")
