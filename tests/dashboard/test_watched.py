"""The dashboard under three workers on PostgreSQL: what it says of itself, and to whom.

It judges its own metrics by the alerts that ship with it, and so do a real Prometheus
and Alertmanager beside it; each of the two tells a Slack double and a real mail server.
Its runtime folder is a disk of its own that can be filled; its limit of memory is told,
and a process of its group uses what is left of it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from mltrading_marketdata.preparation import prepare
from mltrading_marketdata.url import parse
from ops.alerts import monitor
from tests.doubles import slack
from tests.doubles.mailbox import Server as MailServer
from tests.postgres import Server, running

TOKEN = "a-token-for-tests-0123456789"
pytestmark = pytest.mark.integration

PEOPLE = {
    "MAIL_FROM": "alerts@example.org",
    "MAIL_TO_ONCALL": "oncall@example.org",
    "MAIL_TO_DEVOPS": "devops@example.org",
    "MAIL_TO_TEAM": "team@example.org",
}
DISK = 64 << 20
# MiB. Three workers and their master use some 200 of it.
LIMIT = 800
# Seconds. A look comes every 10, and what is critical must hold for 30. Alertmanager
# tells the end of an alert with the next of its group, which it looks at once a minute.
TOLD = 90.0
OVER = 120.0


@dataclass
class Audience:
    """What a Slack double was told, and what a real mail server took, and for whom."""

    slack: slack.Slack
    mails: list[tuple[list[str], Message]] = field(default_factory=list)
    smtp: str = ""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append((envelope.rcpt_tos, message_from_bytes(envelope.content)))
        return "250 OK"

    def told(self, alert: str) -> list[str]:
        """Return how Slack heard of an alert: fires or resolved, in order."""
        return [_state(str(m)) for m in self.slack.messages if alert in str(m)]

    def mailed(self, alert: str) -> list[tuple[list[str], str]]:
        """Return to whom and how mail told of an alert."""
        said = [(sorted(to), str(mail["Subject"])) for to, mail in self.mails]
        return [(to, _state(title)) for to, title in said if alert in title]


def _state(text: str) -> str:
    return "resolved" if "resolved" in text.lower() else "fires"


@dataclass
class World:
    """A service with everything around it."""

    url: str
    process: subprocess.Popen[bytes]
    folder: Path
    log: Path
    database: Server
    inside: Audience
    outside: Audience

    def ask(
        self, path: str, *, token: str = "", post: bytes | None = None
    ) -> tuple[int, str]:
        request = urllib.request.Request(f"{self.url}{path}", data=post)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        if post is not None:
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            # It is still starting, on a busy machine for half a minute.
            return 0, ""

    def status(self, path: str) -> int:
        return self.ask(path)[0]

    def all_say(self, path: str, status: int) -> bool:
        """Tell whether ten answers in a row, of whichever workers, have a status."""
        return all(self.status(path) == status for _ in range(10))

    def series(self) -> set[str]:
        """Return every series that is counted, without its value."""
        text = self.ask("/metrics", token=TOKEN)[1]
        lines = (line for line in text.splitlines() if not line.startswith("#"))
        return {line.rpartition(" ")[0] for line in lines}


def soon(true: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    tick = threading.Event()
    while not true():
        if time.monotonic() > until:
            return False
        tick.wait(0.05)
    return True


@contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """Mount a small disk of its own."""
    mount = ("mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder))
    subprocess.run(mount, check=True)
    try:
        yield folder
    finally:
        subprocess.run(("umount", "--lazy", str(folder)), check=True)


@contextmanager
def audience() -> Iterator[Audience]:
    with slack.serving() as double:
        made = Audience(double)
        server = MailServer(made, hostname="127.0.0.1", port=0)
        server.start()
        made.smtp = f"smtp://127.0.0.1:{server.port}"
        try:
            yield made
        finally:
            server.stop()


@contextmanager
def watched(port: int, state: Path, told: Audience) -> Iterator[None]:
    """Let Prometheus and Alertmanager read what is at a port of this machine."""
    kept = state / "local" / "state" / "port"
    kept.parent.mkdir(parents=True)
    kept.write_text(f"8050 {port}")
    environ = {"SLACK_WEBHOOK_URL": told.slack.url, "SMTP_URL": told.smtp, **PEOPLE}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLTRADING_STATE", str(state))
        try:
            monitor.watch("local", environ=environ)
            yield
        finally:
            monitor.watch("local", down=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    log = tmp_path_factory.mktemp("log") / "app.log"
    with (
        disk(tmp_path_factory.mktemp("disk")) as folder,
        socket.create_server(("127.0.0.1", 0)) as listener,
        audience() as inside,
        audience() as outside,
        running() as database,
        log.open("wb") as file,
    ):
        prepare(parse(database.url), seed="sample")
        kept = {name: os.environ[name] for name in ("PATH", "HOME")}
        environ = kept | PEOPLE
        environ |= {
            "ENVIRONMENT": "prod",
            "DATABASE_URL": database.url,
            "MLTRADING_RUNTIME_DIR": str(folder),
            "METRICS": "open",
            "HEALTH_TOKEN": TOKEN,
            "ALERTS": "evaluator",
            "SLACK_WEBHOOK_URL": inside.slack.url,
            "SMTP_URL": inside.smtp,
            "DYNO_RAM": str(LIMIT),
            "WEB_WORKERS": "3",
            "LOG_LEVEL": "warning",
        }
        command = [sys.executable, "-m", "gunicorn"]
        command += ["--config", "python:mltrading_dashboard.gunicorn_conf"]
        command += ["--bind", f"fd://{listener.fileno()}"]
        process = subprocess.Popen(
            [*command, "mltrading_dashboard.wsgi:server"],
            env=environ,
            cwd=folder,
            pass_fds=[listener.fileno()],
            stderr=file,
            # A group of its own, which a hungry process may join.
            process_group=0,
        )
        port = listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        made = World(url, process, folder, log, database, inside, outside)
        try:
            assert soon(lambda: made.status("/readyz") == 200, 60), log.read_text()
            with watched(port, tmp_path_factory.mktemp("state"), outside):
                yield made
        finally:
            process.terminate()
            process.wait(60)


def test_a_stranger_learns_names_and_booleans_and_nothing_else(world: World) -> None:
    status, text = world.ask("/health")
    said = json.loads(text)
    assert status == 200 and said["status"] == "healthy"
    assert set(said["checks"]) == {
        *("database", "external_apis", "memory_usage", "disk_space"),
    }
    assert {type(value) for value in said["checks"].values()} == {bool}
    detailed = world.ask("/health", token=TOKEN)[1]
    assert "% free" in detailed and "% free" not in text
    assert world.ask("/health", token="another-token-entirely")[1].count("%") == 0


def test_a_flood_makes_no_series(world: World) -> None:
    for path in ("/", "/charts/AAPL", "/no/such/page"):
        world.ask(path)
    world.ask("/_dash-update-component", post=b'{"output": "none"}')
    world.ask("/metrics/client", post=b'{"page": "none", "load_time": 5}')
    world.ask("/metrics/client", post=b"nothing")
    before = world.series()
    for number in range(150):
        world.ask(f"/{number}/{'x' * (number % 40)}?q={number}")
        forged = {"output": f"o{number}.children"}
        world.ask("/_dash-update-component", post=json.dumps(forged).encode())
        report = {"page": f"p{number}", "load_time": number, f"k{number}": number}
        world.ask("/metrics/client", post=json.dumps(report).encode())
    # One thing is new: that there were too many reports.
    grown = {each for each in world.series() - before if "worker=" not in each}
    assert grown <= {'browser_reports_refused_total{reason="rate",release="dev"}'}


def test_the_database_goes_and_comes_back(world: World) -> None:
    world.database.stop("immediate")
    assert soon(lambda: world.all_say("/readyz", 503), 15)
    status, text = world.ask("/health")
    said = json.loads(text)
    assert (status, said["status"]) == (503, "degraded")
    assert said["checks"]["database"] is False and said["checks"]["disk_space"] is True
    assert "postgres" not in text and str(world.database.data.parent) not in text
    assert world.status("/livez") == 200
    world.database.start()
    assert soon(lambda: world.all_say("/readyz", 200), 15)
    assert soon(lambda: world.all_say("/health", 200), 15)


def test_a_full_disk_and_full_memory_are_told_once_each_and_their_end_too(
    world: World,
) -> None:
    full = world.folder / "full"
    with full.open("wb") as file:
        file.write(bytes(int(DISK * 0.97)))
    hungry = subprocess.Popen(
        [sys.executable, "-c", f"all = bytearray(b'x') * {LIMIT << 20}; input()"],
        stdin=subprocess.PIPE,
        process_group=world.process.pid,
    )
    both = ("LowDisk", "HighMemory")
    told = {"production": world.inside, "local": world.outside}
    every = [(who, alert) for who in told.values() for alert in both]

    def so_far(count: int) -> bool:
        """Tell whether everybody has heard so much of both, by Slack and by mail."""
        heard = [f(alert) for who, alert in every for f in (who.told, who.mailed)]
        return all(len(each) >= count for each in heard)

    try:
        assert soon(lambda: so_far(1), TOLD), world.log.read_text()
    finally:
        full.unlink()
        hungry.communicate(b"\n")
    assert soon(lambda: so_far(2), OVER), world.log.read_text()
    for who, alert in every:
        assert who.told(alert) == ["fires", "resolved"]
        people = who.mailed(alert)[0][0]
        assert [name.partition("@")[0] for name in people] == ["devops", "oncall"]
        assert who.mailed(alert) == [(people, "fires"), (people, "resolved")]
    log = world.log.read_text()
    assert world.inside.slack.url.rpartition("/")[2] not in log


def test_its_log_is_json_and_knows_no_secret(world: World) -> None:
    lines = [json.loads(line) for line in world.log.read_text().splitlines()]
    assert {"time", "level", "logger", "message"} <= set(lines[0])
    assert TOKEN not in world.log.read_text()
