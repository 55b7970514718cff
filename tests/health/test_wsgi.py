"""What the app answers is signed, named and measured; probes never reach it."""

import re
import sys
from datetime import datetime, timezone
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest

from mltrading_health import Health, Metrics, wsgi
from mltrading_health.logs import request_id


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
    assert answer["headers"]["Content-Type"] == "text/plain"
    assert answer["headers"]["X-Release"] == "r7"


def test_without_a_release_there_is_no_signature(ask, health):
    health.release = ""
    assert "X-Release" not in ask("/")["headers"]


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


@pytest.mark.parametrize(("slow", "lines"), [(0.0, 1), (60.0, 0)])
def test_a_slow_request_is_logged_with_its_id(ask, caplog, monkeypatch, slow, lines):
    # The function of this name hides the module.
    monkeypatch.setattr(sys.modules["mltrading_health.wsgi"], "SLOW_S", slow)
    ids = []
    caplog.handler.addFilter(lambda record: ids.append(request_id.get()) or True)
    ask("/", route=lambda environ: "/", HTTP_X_REQUEST_ID="abc")
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == lines and ids == ["abc"] * lines
    assert all(re.fullmatch(r"slow request: GET / took \S+ s \(200\)", s) for s in said)


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
    assert [(given[0], given[2]) for given in seen] == [("500 No", ("a", "b", "c"))]


def test_a_request_gets_an_id_which_the_app_and_the_asker_see(ask):
    seen = []

    def app(environ, start_response):
        seen.append((environ["mltrading.request_id"], request_id.get()))
        return hello(environ, start_response)

    name = ask("/", app=app)["headers"]["X-Request-Id"]
    assert re.fullmatch("[0-9a-f]{16}", name) and seen == [(name, name)]
    assert ask("/")["headers"]["X-Request-Id"] != name
    assert request_id.get() == ""


def test_an_id_that_is_sane_is_kept(ask):
    answer = ask("/", HTTP_X_REQUEST_ID="01890b6e-7a5c:4/2=")
    assert answer["headers"]["X-Request-Id"] == "01890b6e-7a5c:4/2="


@pytest.mark.parametrize(
    "name", ["", "a b", "a\r\nSet-Cookie: x", "\x1b[2J", "x" * 129, "é", "a\n", '"']
)
def test_an_id_that_is_not_is_replaced(ask, name):
    answer = ask("/", HTTP_X_REQUEST_ID=name)
    assert re.fullmatch("[0-9a-f]{16}", answer["headers"]["X-Request-Id"])
