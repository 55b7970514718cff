"""A test alert: through every channel, with what became of it, and no secret shown."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ops.alerts import channels, thresholds, trial
from ops.errors import Refused, StepFailed, Usage
from tests.doubles import slack as slack_double
from tests.doubles import smtp as smtp_double

PEOPLE = {
    "MAIL_FROM": "alerts@example.org",
    "MAIL_TO_ONCALL": "oncall@example.org",
    "MAIL_TO_DEVOPS": "devops@example.org, second@example.org",
    "MAIL_TO_TEAM": "team@example.org",
}
WAYS = ("slack", "mail oncall", "mail devops", "mail team", "alertmanager")


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRADING_STATE", str(tmp_path / "state"))


@contextmanager
def alertmanager(status: int = 200) -> Iterator[tuple[str, list[Any]]]:
    """Serve the one call of Alertmanager's API; give its address and what came."""
    came: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            came.append((self.path, self.headers["Authorization"], json.loads(body)))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", came
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.integration
def test_every_channel_gets_one_marked_message() -> None:
    with (
        slack_double.serving() as slack,
        smtp_double.serving() as mails,
        alertmanager() as (place, came),
    ):
        environ = {
            **PEOPLE,
            "SLACK_WEBHOOK_URL_PRODUCTION": slack.url,
            "SMTP_URL": f"smtp://127.0.0.1:{mails.port}",
            "ALERTMANAGER_URL": f"http://me:pass%40word@{place}",
        }
        found = trial.hold("prod", environ=environ, clock=lambda: 1_800_000_000.0)
    assert [(one.channel, one.state) for one in found] == [(w, "sent") for w in WAYS]
    (message,) = slack.messages
    assert message["channel"] == "#production-alerts"
    assert message["text"].startswith("TEST, nothing is wrong: production")
    assert [mail.recipients for mail in mails.mails] == [
        ["oncall@example.org"],
        ["devops@example.org", "second@example.org"],
        ["team@example.org"],
    ]
    ((path, authorization, alerts),) = came
    assert path == "/api/v2/alerts"
    assert authorization == f"Basic {base64.b64encode(b'me:pass@word').decode()}"
    labels = [alert["labels"] for alert in alerts]
    assert [each["severity"] for each in labels] == ["critical", "warning"]
    assert len({each["alertname"] for each in labels}) == 2
    assert all(each["test"] == "true" and each["env"] == "prod" for each in labels)
    assert alerts[0]["endsAt"] > alerts[0]["startsAt"]


@pytest.mark.integration
def test_a_channel_that_fails_is_named_and_hides_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with (
        slack_double.serving() as slack,
        smtp_double.serving() as mails,
        alertmanager(500) as (place, _),
    ):
        slack.misbehave.append(404)
        mails.accounts["me"] = "other"
        environ = {
            **PEOPLE,
            "SLACK_WEBHOOK_URL": slack.url,
            "SMTP_URL": f"smtp://me:very-secret@127.0.0.1:{mails.port}",
            "ALERTMANAGER_URL": f"http://me:very-secret@{place}",
        }
        with pytest.raises(StepFailed) as caught:
            trial.hold("staging", environ=environ)
    assert caught.value.code == 1
    assert caught.value.what == f"not told: {', '.join(WAYS)}"
    assert "slack: status 404" in caught.value.detail
    assert "mail team: status 535" in caught.value.detail
    assert "alertmanager: status 500" in caught.value.detail
    said = capsys.readouterr()
    told = said.err + said.out + str(caught.value.as_json())
    assert "very-secret" not in told and slack_double.PATH not in told


@pytest.mark.integration
def test_what_is_not_configured_is_named_by_its_variable(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with slack_double.serving() as slack:
        environ = {"SLACK_WEBHOOK_URL": slack.url, "SMTP_URL": "smtp://127.0.0.1:9"}
        found = trial.hold("staging", as_json=True, environ=environ)
    assert [one.state for one in found] == ["sent", *["not configured"] * 4]
    assert {one.said for one in found[1:4]} == {"MAIL_FROM is not set"}
    assert found[4].said == "ALERTMANAGER_URL is not set"
    said = json.loads(capsys.readouterr().out)
    assert said["channels"][0] == {
        "channel": "slack",
        "to": "#staging-alerts",
        "state": "sent",
        "said": "",
    }


def test_where_no_channel_is_configured_it_fails() -> None:
    with pytest.raises(Refused, match="nobody would hear") as caught:
        trial.hold("prod", environ={})
    assert (
        caught.value.code == 1 and "inv alerts --test --env prod" in caught.value.next
    )


def test_a_dry_run_sends_nothing() -> None:
    # Nobody listens there: a try would fail.
    environ = {
        **PEOPLE,
        "SLACK_WEBHOOK_URL": "http://127.0.0.1:9/x",
        "SMTP_URL": "smtp://127.0.0.1:9",
        "ALERTMANAGER_URL": "http://127.0.0.1:9",
    }
    found = trial.hold("prod", dry_run=True, environ=environ)
    assert {one.state for one in found} == {"planned"}


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(Usage, match="ALERTMANAGER_URL is no address"):
        trial.hold("prod", environ={"ALERTMANAGER_URL": "alerts:9093"})


def test_an_environments_own_variable_comes_before_the_common_one() -> None:
    environ = {
        **PEOPLE,
        "SMTP_URL": "smtp://a",
        "SMTP_URL_PRODUCTION": "smtp://b",
        "MAIL_TO_ONCALL_PRODUCTION": "night@example.org",
    }
    ways = channels.of(thresholds.load(), "prod", environ)
    assert ways.smtp is not None and ways.smtp.value == "smtp://b"
    assert ways.people("critical")[0] == "night@example.org"
    others = channels.of(thresholds.load(), "staging", environ)
    assert others.smtp is not None and others.smtp.value == "smtp://a"
    assert others.people("critical")[0] == "oncall@example.org"


def test_placeholders_reach_nobody() -> None:
    environ = {"SMTP_URL": "smtp://a", "MAIL_FROM": "a@example.org"}
    ways = channels.of(thresholds.load(), "prod", environ)
    assert ways.people("critical") == () and ways.lacking["team"] == "MAIL_TO_TEAM"


def test_a_group_that_is_set_hears_of_it_though_another_is_not() -> None:
    environ = {**PEOPLE, "SMTP_URL": "smtp://a", "MAIL_TO_DEVOPS": ""}
    ways = channels.of(thresholds.load(), "prod", environ)
    assert ways.people("critical") == ("oncall@example.org",)
