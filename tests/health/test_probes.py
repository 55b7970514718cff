"""Probes answer each asker in its own form, strangers with names and states only."""

import io
import json
from datetime import datetime, timezone
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import jsonschema
import pytest

from mltrading_health import Health, Metrics, Result, Status, tokens, wsgi
from mltrading_health.client import ClientTimings

TOKEN = "correct-horse-battery"
BEARER = f"Bearer {TOKEN}"
DRAFT = "application/health+json"
SCHEMA = Path(__file__).with_name("health-check-06.schema.json")


@pytest.fixture
def health(tmp_path):
    return Health(
        "dashboard",
        version="1.2.3",
        release="r7",
        artefact="sha256:aa",
        commit="c0ffee",
        runtime_dir=tmp_path,
        token=TOKEN,
        now=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
    )


@pytest.fixture
def metrics():
    return Metrics(environ={})


@pytest.fixture
def ask(health, metrics):

    def hello(environ, start_response):
        start_response("200 OK", [])
        return [b"hello"]

    client = ClientTimings(metrics, ["charts"])
    app = wsgi(hello, health, metrics, client=client)

    def ask(path, method="GET", **environ):
        answer = {}

        def start_response(status, headers, exc_info=None):
            answer.update(status=int(status[:3]), headers=dict(headers))

        path, _, query = path.partition("?")
        environ = {"PATH_INFO": path, "QUERY_STRING": query, **environ}
        environ["REQUEST_METHOD"] = method
        setup_testing_defaults(environ)
        parts = app(environ, start_response)
        answer["body"] = b"".join(parts)
        if hasattr(parts, "close"):
            parts.close()
        return answer

    return ask


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
    monkeypatch.setattr(health, "report", lambda *_, **__: 1 / 0)
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


PROBES = [
    *("/health", "/livez", "/readyz", "/startupz", "/version"),
    *("/metrics", "/metrics.json"),
]


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


@pytest.mark.parametrize("path", ["/healthz", "/LIVEZ", "", "//health", "/health//"])
def test_other_paths_belong_to_the_app(ask, path):
    assert ask(path)["body"] == b"hello"


@pytest.mark.parametrize("path", PROBES)
def test_a_slash_at_the_end_is_no_redirect(ask, path):
    answer = ask(path + "/")
    assert answer["status"] == 200
    assert answer["headers"]["Content-Type"] == ask(path)["headers"]["Content-Type"]


# -- forms --------------------------------------------------------------------------

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("query", "accept", "content_type"),
    [
        ("", "", "application/json"),
        ("", "*/*", "application/json"),
        ("", BROWSER, "application/json"),
        ("", "image/png", "application/json"),
        ("", DRAFT, DRAFT),
        ("", f"{DRAFT}, */*", DRAFT),
        ("", "text/plain", "text/plain; charset=utf-8"),
        ("?verbose", DRAFT, "text/plain; charset=utf-8"),
        ("?format=text", "", "text/plain; charset=utf-8"),
        ("?format=health+json", "", DRAFT),
        ("?format=health%2Bjson", "text/plain", DRAFT),
        ("?format=json", DRAFT, "application/json"),
    ],
)
def test_health_comes_in_the_form_that_is_asked_for(ask, query, accept, content_type):
    answer = ask("/health" + query, HTTP_ACCEPT=accept)
    assert answer["headers"]["Content-Type"] == content_type
    assert answer["headers"]["Vary"] == "Accept"
    assert answer["status"] == 200


@pytest.mark.parametrize("path", ["/health", "/readyz", "/metrics"])
def test_a_format_that_is_none_is_refused_with_those_there_are(ask, path):
    answer = ask(path + "?format=%3Cxml%3E")
    assert answer["status"] == 400
    assert b"text" in answer["body"] and b"xml" not in answer["body"]


def test_a_query_without_end_is_refused(ask):
    assert ask("/health?" + "a=1&" * 30)["status"] == 400


STATES = {"pass": (True, 200), "warn": (Result(Status.WARN), 200), "fail": (False, 503)}


@pytest.mark.parametrize("form", ["json", "health+json", "text"])
@pytest.mark.parametrize("state", STATES)
def test_one_state_has_one_code_in_every_form(ask, health, form, state):
    found, status = STATES[state]
    health.check("database", lambda: found)
    assert ask(f"/health?format={form}")["status"] == status
    assert ask(f"/health?format={form}", "HEAD")["status"] == status


@pytest.mark.parametrize("form", ["json", "health+json", "text"])
def test_a_broken_report_is_500_with_an_error_id_in_every_form(
    ask, health, monkeypatch, caplog, form
):
    monkeypatch.setattr(health, "report", lambda *_, **__: 1 / 0)
    answer = ask(f"/health?format={form}", HTTP_AUTHORIZATION=BEARER)
    error_id = caplog.records[-1].getMessage().split()[-1]
    assert answer["status"] == 500 and error_id.encode() in answer["body"]
    assert b"division" not in answer["body"]


def test_any_probe_that_breaks_says_so_without_its_error(ask, health, monkeypatch):
    monkeypatch.setattr(health, "report", lambda *_, **__: 1 / 0)
    answer = ask("/readyz")
    assert answer["status"] == 500
    assert answer["body"].startswith(b"internal error, error id ")


def failing(health):
    """Add checks in each state whose outputs strangers must not see."""

    def refused():
        raise ConnectionError("no route to db.internal port 5432")

    health.check("database", refused, kind="datastore")
    health.check(
        "disk_space",
        lambda: Result(Status.WARN, "7.0% free below /srv/data", 7.0, "percent"),
        kind="system",
        critical=False,
    )
    health.check("external_apis", lambda: Result(Status.PASS, "HTTP 204", 12.0, "ms"))


@pytest.mark.parametrize("bearer", ["", BEARER])
@pytest.mark.parametrize("fails", [False, True])
def test_the_draft_form_keeps_to_the_draft(ask, health, fails, bearer):
    if fails:
        failing(health)
    answer = ask("/health", HTTP_ACCEPT=DRAFT, HTTP_AUTHORIZATION=bearer)
    body = json.loads(answer["body"])
    jsonschema.validate(
        body,
        json.loads(SCHEMA.read_text()),
        format_checker=jsonschema.FormatChecker(),
    )
    assert (body["status"], answer["status"]) == (
        ("fail", 503) if fails else ("pass", 200)
    )


def test_the_schema_of_the_draft_refuses_what_the_draft_does():
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for wrong in (
        {},
        {"status": "healthy"},
        {"status": "pass", "output": "an error"},
        {"status": "pass", "checks": {"a:b:c": [{}]}},
        {"status": "pass", "checks": {"a": {"status": "pass"}}},
        {"status": "pass", "checks": {"a": [{"componentType": "thing"}]}},
        {"status": "pass", "checks": {"a": [{"observedValue": 1}]}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


FORMS = ["/health", "/health?format=health+json", "/health?verbose", "/readyz?verbose"]


@pytest.mark.parametrize("path", [*FORMS, "/readyz"])
@pytest.mark.parametrize("bearer", ["", "Bearer wrong-horse-battery"])
def test_strangers_see_names_and_states_only(ask, health, path, bearer):
    failing(health)
    body = ask(path, HTTP_AUTHORIZATION=bearer)["body"].decode()
    assert "database" in body
    for told in ("db.internal", "5432", "ConnectionError", "/srv", "7.0", "204", "12"):
        assert told not in body.replace("2026-01-02T03:04:05", "").replace("1.2.3", "")


@pytest.mark.parametrize("path", FORMS)
def test_who_knows_the_token_sees_the_reason(ask, health, path):
    failing(health)
    assert b"ConnectionError" not in ask(path)["body"]
    assert b"ConnectionError" in ask(path, HTTP_AUTHORIZATION=BEARER)["body"]
    assert b"ConnectionError" not in ask(path)["body"]


def test_the_token_of_the_runtime_folder_shows_details_too(ask, health):
    failing(health)
    tokens.write(health.runtime_dir)
    bearer = "Bearer " + tokens.read(health.runtime_dir)
    said = json.loads(ask("/health", HTTP_AUTHORIZATION=bearer)["body"])
    assert said["details"]["disk_space"] == {
        "status": "warn",
        "output": "7.0% free below /srv/data",
        "value": 7.0,
        "unit": "percent",
        "time": "2026-01-02T03:04:05.000Z",
        "kind": "system",
        "critical": False,
    }


def test_lines_have_a_sign_for_each_state(ask, health):
    failing(health)
    assert ask("/health?verbose")["body"].decode().splitlines() == [
        "[-]database failed: reason withheld",
        "[!]disk_space warning: reason withheld",
        "[+]external_apis ok",
        "health check failed",
    ]


def test_an_output_of_many_lines_stays_one(ask, health):
    health.check("c", lambda: Result(Status.FAIL, "a\n[+]database ok"))
    body = ask("/health?verbose", HTTP_AUTHORIZATION=BEARER)["body"].decode()
    assert body == "[-]c failed: a [+]database ok\nhealth check failed\n"


def test_a_body_follows_its_report(ask, health):
    found = [True]
    health.check("c", lambda: found[0], ttl=0, fail_ttl=0, fall=1)
    assert ask("/health")["status"] == 200
    found[0] = False
    answer = ask("/health")
    assert answer["status"] == 503
    assert json.loads(answer["body"])["checks"] == {"c": False}


def test_the_moment_is_that_of_the_answer(ask, health):
    health.now = lambda: datetime(2026, 1, 2, tzinfo=timezone.utc)
    ask("/health")
    health.now = lambda: datetime(2026, 1, 3, tzinfo=timezone.utc)
    said = json.loads(ask("/health")["body"])
    assert said["timestamp"] == "2026-01-03T00:00:00.000Z"


# -- ready, started ------------------------------------------------------------------


def test_readyz_can_leave_a_check_out(ask, health):
    calls = []
    health.check("database", lambda: calls.append(1) or False)
    health.check("queue", lambda: True)
    answer = ask("/readyz?exclude=database&exclude=nothing&verbose")
    assert (answer["status"], calls) == (200, [])
    assert answer["body"] == b"[+]queue ok\nready check passed\n"
    assert ask("/readyz")["status"] == 503


@pytest.mark.parametrize("away", ["starting", "draining"])
def test_readyz_says_why_it_is_away(ask, health, away):
    if away == "starting":
        health.starting = True
    else:
        health.drain()
    assert json.loads(ask("/readyz")["body"]) == {"status": away}
    answer = ask("/readyz?verbose")
    assert answer["body"] == f"[-]{away}\nready check failed\n".encode()
    assert answer["status"] == 503


def test_startupz_says_no_until_the_start_is_over(ask, health):
    health.starting = True
    assert ask("/startupz")["status"] == ask("/readyz")["status"] == 503
    assert ask("/livez")["status"] == 200
    health.started()
    assert ask("/startupz")["status"] == ask("/readyz")["status"] == 200


# -- metrics ---------------------------------------------------------------------------

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,"
    "application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,/;q=0.1"
)
OLD = "text/plain; version=0.0.4"
OPEN = "application/openmetrics-text; version=1.0.0"


@pytest.mark.parametrize(
    ("query", "accept", "content_type"),
    [
        ("", "", OLD),
        ("", "*/*", OLD),
        ("", BROWSER, OLD),
        ("", "text/plain", OLD),
        ("", "text/plain;version=1.0.0", "text/plain; version=1.0.0"),
        ("", PROMETHEUS_2, OPEN),
        ("", PROMETHEUS_3, OPEN),
        ("", "text/plain, application/openmetrics-text;q=0.1", OLD),
        ("", "application/openmetrics-text;version=0.0.1", OLD),
        ("?format=openmetrics", "", OPEN),
        ("?format=text", PROMETHEUS_2, OLD),
        ("", "application/json", "application/json"),
        ("", "application/json;q=0.1, text/plain", OLD),
        ("?format=json", PROMETHEUS_2, "application/json"),
        (".json", PROMETHEUS_2, "application/json"),
    ],
)
def test_metrics_come_in_the_form_that_is_asked_for(ask, query, accept, content_type):
    answer = ask("/metrics" + query, HTTP_ACCEPT=accept)
    assert answer["headers"]["Content-Type"].startswith(content_type)
    assert answer["body"].endswith(b"# EOF\n") is (content_type is OPEN)
    assert answer["headers"]["Vary"] == "Accept"


@pytest.mark.parametrize(
    ("access", "bearer", "status"),
    [
        ("open", "", 200),
        ("token", "", 401),
        ("token", "Bearer wrong-horse-battery", 401),
        ("token", BEARER, 200),
    ],
)
@pytest.mark.parametrize("path", ["/metrics", "/metrics.json", "/metrics?format=json"])
def test_metrics_are_for_those_who_may(ask, health, path, access, bearer, status):
    health.access = access
    answer = ask(path, HTTP_AUTHORIZATION=bearer)
    assert answer["status"] == status
    assert ("WWW-Authenticate" in answer["headers"]) is (status == 401)
    told = b"release_info" in answer["body"] or b"request_count" in answer["body"]
    assert told is (status == 200)


def test_figures_are_those_of_the_snapshot(ask):
    ask("/")
    said = json.loads(ask("/metrics.json")["body"])
    assert (said["request_count"], said["error_rate"]) == (1, 0.0)


# -- what browsers report --------------------------------------------------------------


def post(ask, body, **environ):
    return ask(
        "/metrics/client",
        "POST",
        **{
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
            **environ,
        },
    )


def test_a_report_of_a_browser_is_counted_and_answered_with_nothing(ask, metrics):
    answer = post(ask, b'{"page": "charts", "load_time": 812}')
    assert (answer["status"], answer["body"]) == (204, b"")
    assert "Content-Length" not in answer["headers"]
    assert metrics.snapshot().total("browser_page_load_seconds_sum") == 0.812


def test_a_report_that_is_none_is_refused(ask):
    assert post(ask, b"{")["status"] == 400
    assert post(ask, b"{}", HTTP_SEC_FETCH_SITE="cross-site")["status"] == 403


def test_reports_are_posted(ask):
    answer = ask("/metrics/client")
    assert (answer["status"], answer["headers"]["Allow"]) == (405, "POST")


def test_without_a_receiver_reports_belong_to_the_app(health, metrics):
    seen = []
    app = wsgi(lambda environ, start: seen.append(1) or [b""], health, metrics)
    environ = {"PATH_INFO": "/metrics/client", "REQUEST_METHOD": "POST"}
    setup_testing_defaults(environ)
    app(environ, lambda *_: None)
    assert seen == [1]
