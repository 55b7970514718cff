"""A Flask server is wired in one call; its requests are named by rule or callback."""

import flask as framework
import pytest
from werkzeug.test import Client

from mltrading_health import Health, Metrics
from mltrading_health.client import ClientTimings
from mltrading_health.flask import CALLBACKS, UNKNOWN, by_callback, flask

CALLBACK_MAP = {"price.figure": {}}


class Closing(Client):
    """A client that closes each answer, as servers do: then it is counted."""

    def open(self, *args, **kwargs):
        return super().open(*args, buffered=True, **kwargs)


@pytest.fixture
def metrics():
    return Metrics(environ={})


@pytest.fixture
def serve(metrics):
    """Return a client of a server with some views, wired with a label."""

    def serve(**settings):
        server = framework.Flask("served")
        server.config["MAX_CONTENT_LENGTH"] = 200

        @server.get("/charts/<symbol>")
        def chart(symbol):
            return symbol if symbol != "BAD" else 1 / 0

        @server.post(CALLBACKS)
        def callback():
            output = framework.request.get_json()["output"]
            return {} if output in CALLBACK_MAP else (f"no {output}", 500)

        @server.before_request
        def session():
            framework.session["anything"] = 1  # without a key: raises, were it asked

        if settings.pop("open", True):
            server.secret_key = "of the test"
        flask(server, Health("dashboard", release="r7"), metrics, **settings)
        return Closing(server.wsgi_app)

    return serve


def counted(metrics):
    """Return how often each (route, status) was answered."""
    found = metrics.snapshot().samples["http_requests_total"]
    return {
        (dict(labels)["route"], dict(labels)["status"]): value
        for labels, value in found.items()
        if value
    }


def test_a_request_is_named_by_its_rule(serve, metrics):
    client = serve()
    for path in ("/charts/AAPL", "/charts/IBM", "/charts/BAD", "/wp-admin", "/x/y"):
        client.get(path)
    assert counted(metrics) == {
        ("/charts/<symbol>", "2xx"): 2,
        ("/charts/<symbol>", "5xx"): 1,
        ("<other>", "4xx"): 2,
    }


def test_probes_stand_before_whatever_the_server_does(serve):
    client = serve(open=False)
    assert client.get("/charts/AAPL").status_code == 500
    assert client.get("/livez").status_code == 200


def test_answers_are_signed(serve):
    headers = serve().get("/charts/AAPL").headers
    assert headers["X-Release"] == "r7" and headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("body", "route"),
    [
        ({"output": "price.figure"}, "callback price.figure"),
        ({"output": "forged.figure"}, UNKNOWN),
        ({"output": ["price.figure"]}, UNKNOWN),
        ({"output": "price.figure", "more": "x" * 300}, UNKNOWN),
        ([], UNKNOWN),
        ("price.figure", UNKNOWN),
    ],
)
def test_a_callback_is_named_by_its_output_if_there_is_such(
    serve, metrics, body, route
):
    serve(label=by_callback(CALLBACK_MAP)).post(CALLBACKS, json=body)
    assert [name for name, _ in counted(metrics)] == [route]


def test_a_body_that_is_no_json_is_an_unknown_callback(serve, metrics):
    serve(label=by_callback(CALLBACK_MAP)).post(CALLBACKS, data=b"{")
    assert list(counted(metrics)) == [(UNKNOWN, "4xx")]


def test_what_is_no_callback_is_named_by_the_other_label(serve, metrics):
    client = serve(label=by_callback(CALLBACK_MAP, other=lambda request: "a page"))
    client.get("/charts/AAPL")
    assert list(counted(metrics)) == [("a page", "2xx")]


def test_a_label_that_fails_costs_its_name_and_not_the_answer(serve, metrics, caplog):
    answer = serve(label=lambda request: 1 / 0).get("/charts/AAPL")
    assert answer.status_code == 200
    assert list(counted(metrics)) == [("<other>", "2xx")]
    assert "could not be labelled" in caplog.text


def test_what_browsers_report_is_taken_before_the_server(serve, metrics):
    client = serve(open=False, client=ClientTimings(metrics, ["charts"]))
    report = {"page": "charts", "load_time": 500}
    assert client.post("/metrics/client", json=report).status_code == 204
