"""A monitor on this machine: real Prometheus and Alertmanager, told once, ended."""

from __future__ import annotations

import http.server
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops import delivery, wire
from ops.alerts import generate, monitor, proving, trial
from ops.command import Command, Request
from ops.environment import ROOT
from ops.errors import Refused, StepFailed, Usage
from ops.shell import leave
from ops.targets import processes
from tests.doubles import slack as slack_double
from tests.doubles import smtp as smtp_double

PEOPLE = {
    "MAIL_FROM": "alerts@example.org",
    "MAIL_TO_ONCALL": "oncall@example.org",
    "MAIL_TO_DEVOPS": "devops@example.org",
    "MAIL_TO_TEAM": "team@example.org",
}
HOSTS = {
    "MLTRADING_PROD_HOSTS": "deploy@192.0.2.1,deploy@192.0.2.2:2222",
    "HEALTH_TOKEN_PRODUCTION": "0123456789abcdef-token",
    "SLACK_WEBHOOK_URL_PRODUCTION": "https://hooks.slack.com/services/T/B/secret",
    "SMTP_URL": "smtps://me:mail-secret@mail.example.org:465",
    **PEOPLE,
}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLTRADING_STATE", str(tmp_path / "state"))
    # Ports of others' monitors are none of ours.
    monkeypatch.setattr(wire, "port_is_free", lambda port: False)
    return tmp_path / "state"


@contextmanager
def dashboard(state: Path, text: str) -> Iterator[list[str]]:
    """Serve metrics where the local environment is; give who asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    kept = state / "local" / "state" / "port"
    kept.parent.mkdir(parents=True)
    kept.write_text(f"8050 {server.server_address[1]}")
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def wait_for(fact: Callable[[], Any], seconds: float = 40.0) -> Any:
    """Return what a fact says as soon as that is something."""
    until = time.monotonic() + seconds
    while not (found := fact()):
        assert time.monotonic() < until, "the fact did not come true in time"
        time.sleep(0.05)
    return found


def asked(running: monitor.Running, path: str) -> Any:
    answer = wire.ask(Request("GET", path), port=running.port)
    return json.loads(answer.body)["data"]


@pytest.mark.integration
def test_an_alert_goes_through_real_programs_to_slack_and_mail(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        slack_double.serving() as slack,
        smtp_double.serving() as mails,
        dashboard(state, "service_ready 1\n") as scraped,
    ):
        environ = {
            **PEOPLE,
            "SLACK_WEBHOOK_URL": slack.url,
            "SMTP_URL": f"smtp://127.0.0.1:{mails.port}",
        }
        folder = state / "local" / "monitor"
        try:
            monitor.watch("local", environ=environ)
            told = capsys.readouterr().err
            assert " answers" in told and "inv monitor --env local --down" in told
            prometheus = monitor.running(folder, "prometheus")
            assert prometheus is not None and prometheus.url in told

            groups = asked(prometheus, "/api/v1/rules")["groups"]
            rules = {rule["name"] for group in groups for rule in group["rules"]}
            assert {rule.alert for rule in generate.asked()[1]} <= rules
            wait_for(lambda: "/metrics" in scraped)

            capsys.readouterr()
            monitor.watch("local", as_json=True, environ=environ)
            again = json.loads(capsys.readouterr().out)
            assert again["prometheus"]["pid"] == prometheus.pid
            assert again["prometheus"]["started"] is False and not again["lacking"]

            own = {"MLTRADING_STATE": os.environ["MLTRADING_STATE"]}
            (sent,) = [s for s in trial.hold("local", environ=own) if s.state == "sent"]
            assert sent.channel == "alertmanager"
            wait_for(lambda: len(slack.messages) == 2 and len(mails.mails) == 2)
        finally:
            monitor.watch("local", down=True)
        assert monitor.running(folder, "prometheus") is None
        assert monitor.stop(folder) == []
    titles = sorted(one["attachments"][0]["title"] for one in slack.messages)
    assert titles == [
        "TEST, nothing is wrong: local: critical: TestOfCritical",
        "TEST, nothing is wrong: local: warning: TestOfWarning",
    ]
    assert {one["channel"] for one in slack.messages} == {"#local-alerts"}
    assert sorted(mail.recipients for mail in mails.mails) == [
        ["oncall@example.org", "devops@example.org"],
        ["team@example.org"],
    ]
    (mail,) = [m for m in mails.mails if len(m.recipients) == 2]
    assert mail.message["Subject"].endswith("TestOfCritical")
    assert mail.message["Importance"] == "high"
    body = mail.message.get_body(("plain",))
    assert body is not None and "Nothing is wrong" in body.get_content()


def firing(name: str, severity: str, **labels: str) -> dict[str, str]:
    same = {"env": "prod", "service": "dashboard"}
    return {"alertname": name, "severity": severity, **same, **labels}


DOWN = firing("TargetDown", "critical")
ERRORS = firing("HighErrorRate", "critical"), firing("HighErrorRate", "warning")
FULL = firing("LowDisk", "critical", disk="data", instance="a")
ALONE = firing("TargetDown", "warning", instance="a")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("alerts", "silent"),
    [
        (ERRORS, ERRORS[1:]),
        ((FULL, firing("LowDisk", "warning", disk="data", instance="a")), None),
        ((FULL, firing("LowDisk", "warning", disk="logs", instance="a")), ()),
        ((FULL, firing("LowDisk", "warning", disk="data", instance="b")), ()),
        ((ERRORS[0], firing("SlowResponses", "warning")), ()),
        ((ERRORS[0], {**ERRORS[1], "env": "staging"}), ()),
        ((DOWN, firing("MetricsAbsent", "critical")), None),
        ((DOWN, ALONE), None),
        ((DOWN, {**ERRORS[0], "env": "staging"}), ()),
        ((DOWN, firing("TestOfCritical", "critical", test="true")), ()),
        ((ALONE, FULL), None),
        ((ALONE, {**FULL, "instance": "b"}), ()),
        ((ALONE, ERRORS[0]), ()),
    ],
    ids=lambda value: None,
)
def test_what_keeps_what_silent(
    silencing: monitor.Running, alerts: Any, silent: Any
) -> None:
    # None is all but the first.
    wanted = list(alerts[1:] if silent is None else silent)
    body = json.dumps([{"labels": labels} for labels in alerts]).encode()
    headers = {"Content-Type": "application/json"}
    post = Request("POST", "/api/v2/alerts", body, headers)
    assert wire.ask(post, port=silencing.port).status == 200
    there = wire.ask(Request("GET", "/api/v2/alerts"), port=silencing.port)
    found = {
        json.dumps(each["labels"], sort_keys=True): each["status"]["inhibitedBy"]
        for each in json.loads(there.body)
    }
    asked = [found[json.dumps(labels, sort_keys=True)] for labels in alerts]
    assert [bool(by) for by in asked] == [labels in wanted for labels in alerts]
    ended = [{"labels": labels, "endsAt": "2020-01-01T00:00:00Z"} for labels in alerts]
    wire.ask(replace(post, body=json.dumps(ended).encode()), port=silencing.port)


@pytest.fixture(scope="module")
def silencing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[monitor.Running]:
    """Run Alertmanager on what is committed, but for the channels: nobody is told."""
    folder = tmp_path_factory.mktemp("alertmanager")
    said = json.loads((ROOT / generate.FOLDER / "alertmanager.yml").read_text())
    said["receivers"] = [{"name": each["name"]} for each in said["receivers"]]
    (folder / "alertmanager.yml").write_text(json.dumps(said))
    program = monitor.installed()["alertmanager"]
    try:
        yield monitor.start("alertmanager", program, folder, wire.free_port(), ())
    finally:
        monitor.stop(folder)


@pytest.mark.integration
def test_a_program_that_does_not_start_shows_the_end_of_its_log(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "NAMES", {n: ("false",) for n in monitor.NAMES})
    with pytest.raises(StepFailed, match="alertmanager ended at once") as caught:
        monitor.watch("local", environ={})
    assert caught.value.where.endswith("alertmanager.log")


def test_a_dashboard_that_does_not_run_is_said_and_watched_all_the_same(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = wire.free_port()
    kept = state / "local" / "state" / "port"
    kept.parent.mkdir(parents=True)
    kept.write_text(f"8050 {port}")
    monkeypatch.setattr(monitor, "installed", lambda: dict.fromkeys(monitor.NAMES, ""))
    ran = [monitor.Running(name, 1, 2, started=True) for name in monitor.NAMES]
    monkeypatch.setattr(monitor, "start", lambda *_: ran.pop())
    monitor.watch("local", environ={})
    told = capsys.readouterr().err
    assert f"127.0.0.1:{port} does not answer; next: inv up --env local" in told
    assert "not configured: SLACK_WEBHOOK_URL is not set" in told
    targets = state / "local" / "monitor" / "targets" / "local.json"
    assert f"127.0.0.1:{port}" in targets.read_text()


def test_where_it_is_not_installed_what_brings_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Refused) as caught:
        monitor.watch("local", environ={})
    assert caught.value.next == "inv setup"


@pytest.mark.integration
def test_what_a_host_needs_is_rendered_with_secrets_in_files_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    monitor.watch("prod", render=str(folder), environ=HOSTS)
    secrets = {
        "slack_prod": "https://hooks.slack.com/services/T/B/secret\n",
        "smtp_password": "mail-secret\n",
        "token_prod": "0123456789abcdef-token\n",
    }
    for name, text in secrets.items():
        place = folder / "secrets" / name
        assert place.read_text() == text
        assert place.stat().st_mode & 0o777 == 0o600
    others = [p for p in folder.rglob("*.*") if p.is_file()]
    said = "".join(path.read_text() for path in others) + capsys.readouterr().err
    assert len(others) == 6
    assert not any(text.strip() in said for text in secrets.values())
    (found,) = json.loads((folder / "targets" / "prod.json").read_text())
    assert found["targets"] == ["192.0.2.1:80", "192.0.2.2:80"]
    told = json.loads((folder / "alertmanager.yml").read_text())["global"]
    assert told["smtp_smarthost"] == "mail.example.org:465"
    assert told["smtp_require_tls"] is False and told["smtp_auth_username"] == "me"
    scraped = json.loads((folder / "prometheus.yml").read_text())["scrape_configs"]
    file = "/etc/mltrading/monitoring/token_prod"
    assert [s["authorization"]["credentials_file"] for s in scraped] == [file]
    alerts, rules = generate.asked()
    assert proving.judged(folder, alerts, rules, ("prod",)) == []
    with pytest.raises(Refused, match="not empty"):
        monitor.watch("prod", render=str(folder), environ=HOSTS)


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"MLTRADING_PROD_HOSTS": ""}, "MLTRADING_PROD_HOSTS is not set"),
        ({"HEALTH_TOKEN_PRODUCTION": ""}, "HEALTH_TOKEN_PRODUCTION is not set"),
        ({"SMTP_URL": "mail.example.org"}, "SMTP_URL is no address"),
        ({"SLACK_WEBHOOK_URL_PRODUCTION": "x"}, "the webhook is no https address"),
        ({"MAIL_TO_TEAM": "nobody"}, "MAIL_TO_TEAM holds something"),
    ],
)
def test_a_variable_that_can_not_work_is_refused(
    tmp_path: Path, changed: dict[str, str], what: str
) -> None:
    with pytest.raises(Usage, match=what):
        monitor.watch("prod", render=str(tmp_path / "o"), environ=HOSTS | changed)
    assert not (tmp_path / "o").exists()


def test_a_dry_run_starts_and_writes_nothing(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monitor.watch("local", dry_run=True, environ={})
    assert "would start" in capsys.readouterr().err
    monitor.watch("local", dry_run=True, as_json=True, environ={})
    assert len(json.loads(capsys.readouterr().out)["would_start"]) == 2
    assert not (state / "local").exists()


def test_a_secret_that_is_taken_back_is_removed(tmp_path: Path) -> None:
    made = monitor.Made({"a.yml": "1"}, {"slack_prod": monitor.Secret("x")})
    assert monitor.write(made, tmp_path) == ["a.yml", "secrets/slack_prod"]
    assert monitor.write(made, tmp_path) == []
    assert monitor.write(monitor.Made({"a.yml": "2"}, {}), tmp_path) == ["a.yml"]
    assert list((tmp_path / "secrets").iterdir()) == []


def test_a_number_that_another_process_has_now_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "prometheus.json").write_text(
        json.dumps({"pid": os.getpid(), "port": 1})
    )
    assert monitor.running(tmp_path, "prometheus") is None
    assert monitor.stop(tmp_path) == []


@pytest.mark.integration
def test_what_is_started_inherits_no_secret(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = state / "m"
    folder.mkdir(parents=True)
    monkeypatch.setenv("SMTP_URL", "smtp://me:hush@127.0.0.1")
    program = folder / "program"
    program.write_text("#!/bin/sh\nenv\n")
    program.chmod(0o700)
    with pytest.raises(StepFailed, match="prometheus ended at once"):
        monitor.start("prometheus", str(program), folder, 9, ())
    said = (folder / "prometheus.log").read_text()
    assert "PATH=" in said and "hush" not in said


@pytest.mark.integration
def test_down_ends_the_monitor_too(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = state / "local" / "monitor"
    folder.mkdir(parents=True)
    stays = "import signal; signal.pause()"
    ours = f"--config.file={folder}/prometheus.yml"
    pid = leave(Command((sys.executable, "-c", stays, ours)))
    (folder / "prometheus.json").write_text(json.dumps({"pid": pid, "port": 1}))
    monkeypatch.setattr(delivery, "_carry", lambda *_, **__: None)
    wait_for(lambda: monitor.running(folder, "prometheus"))
    delivery.down("local", dry_run=True)
    assert monitor.running(folder, "prometheus") is not None
    delivery.down("local")
    assert processes.gone(pid) and monitor.running(folder, "prometheus") is None
