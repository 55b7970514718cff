"""How long until people hear that the database is gone.

A local release on PostgreSQL, asked all the while, remembers nothing, so that its pages
fail as soon as the server is stopped. A real Prometheus with its Alertmanager reads it,
started by `inv monitor`; beside them one of its own workers judges the same rules. Each
of the two has a Slack double and a real mail server of its own.
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.checkout import Checkout
from bench.load import Load, Request
from bench.run import figure, timed
from ops.errors import StepFailed
from tests.doubles import slack
from tests.doubles.mailbox import Server
from tests.postgres import running

# Seconds: goals, and how long before one gives up.
GOALS = {"Prometheus and Alertmanager": 120.0, "the evaluator": 60.0}
PATIENCE = 300.0
# Requests per second; enough for a rate, and no load.
RATE = 10
# How long all is well before the outage, so that every series is known.
BEFORE = 40.0


@dataclass
class Ear:
    """When a Slack channel and a mailbox first heard of something critical."""

    double: slack.Slack
    mails: list[tuple[float, str]] = field(default_factory=list)
    heard: float | None = None

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        text = envelope.content.decode(errors="replace")
        self.mails.append((time.monotonic(), text))
        return "250 OK"

    def note(self) -> None:
        """Note the moment when the double has a critical message."""
        if self.heard is None and any(map(_critical, self.double.messages)):
            self.heard = time.monotonic()

    @property
    def mailed(self) -> float | None:
        for at, text in self.mails:
            if re.search(r"critical", text, re.IGNORECASE):
                return at
        return None


def _critical(message: dict[str, Any]) -> bool:
    return "critical" in str(message).lower()


@contextmanager
def listening() -> Iterator[tuple[Ear, str]]:
    """Give an ear and the address of its mail server."""
    with slack.serving() as double:
        ear = Ear(double)
        server = Server(ear, hostname="127.0.0.1", port=0)
        server.start()
        try:
            yield ear, f"smtp://127.0.0.1:{server.port}"
        finally:
            server.stop()


def measure(runs: int = 0) -> dict[str, Any]:
    """Stop the database `runs` times (1 by default) and take the time."""
    took: dict[str, list[float]] = {}
    for _ in range(runs or 1):
        for name, seconds in outage().items():
            took.setdefault(name, []).append(seconds)
    rows = [
        figure(f"{what}, {way}", took[f"{what}, {way}"], "s", GOALS[what])
        for what in GOALS
        for way in ("Slack", "mail")
    ]
    return {"figures": rows}


def outage() -> dict[str, float]:
    """Return the seconds from the stop of the database to each first message.

    Raises:
        StepFailed: somebody heard nothing.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mlt-"))
        database = stack.enter_context(running())
        outside, outside_mail = stack.enter_context(listening())
        inside, inside_mail = stack.enter_context(listening())
        checkout = Checkout(Path(folder))
        told = {"SLACK_WEBHOOK_URL": inside.double.url, "SMTP_URL": inside_mail}
        _settle(checkout.root / "ops" / "environments.toml", told)
        environ = {**checkout.environ(), "DATABASE_URL": database.url}
        watched = {
            **environ,
            "SLACK_WEBHOOK_URL": outside.double.url,
            "SMTP_URL": outside_mail,
            "MAIL_FROM": "alerts@example.org",
            "MAIL_TO_ONCALL": "oncall@example.org",
            "MAIL_TO_DEVOPS": "devops@example.org",
            "MAIL_TO_TEAM": "team@example.org",
        }
        begin = checkout.inv("deploy", "--env", "local", "--port", "0")
        monitor = checkout.inv("monitor", "--env", "local")
        stack.callback(checkout.down)
        timed(begin, cwd=checkout.root, environ=environ)
        stack.callback(timed, (*monitor, "--down"), cwd=checkout.root, environ=environ)
        timed(monitor, cwd=checkout.root, environ=watched)
        client = Load(
            checkout.status()["url"],
            keepalive_rps=RATE,
            keepalive_connections=2,
            new_rps=0,
            requests=[Request("GET", "/"), Request("GET", "/charts/AAPL")],
        ).start()
        stack.callback(client.stop)
        ears = {"Prometheus and Alertmanager": outside, "the evaluator": inside}
        pause = threading.Event()
        pause.wait(BEFORE)
        database.stop("immediate")
        begun = time.monotonic()
        while time.monotonic() < begun + PATIENCE:
            for ear in ears.values():
                ear.note()
            if all(ear.heard and ear.mailed for ear in ears.values()):
                break
            pause.wait(0.1)
        found = {}
        for what, ear in ears.items():
            for way, at in (("Slack", ear.heard), ("mail", ear.mailed)):
                if at is None:
                    raise StepFailed(
                        f"{way} heard nothing of {what} in {PATIENCE:.0f} s",
                        where="bench health, the outage",
                        next="inv monitor --env local; inv logs",
                    )
                found[f"{what}, {way}"] = at - begun
        return found


def _settle(file: Path, told: dict[str, str]) -> None:
    """Let the local release of a clone watch itself and remember no page."""
    text = file.read_text()
    own = "".join(f'{name} = "{value}"\n' for name, value in told.items())
    for old, new in (
        ('ALERTS = "prometheus"\n', f'ALERTS = "evaluator"\n{own}'),
        ('CACHE_TTL_SECONDS = "300"', 'CACHE_TTL_SECONDS = "0"'),
        ('gates = ["quality"]', "gates = []"),
    ):
        if old not in text:
            raise StepFailed(f"there is no {old.strip()}", where=str(file))
        text = text.replace(old, new, 1)
    file.write_text(text)
