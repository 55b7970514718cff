"""How long an outage goes on until Slack and a mail server have heard of it.

Services under gunicorn with three workers, real requests, the rules that ship with the
dashboard, and the evaluator of one of their workers. They break at different moments of
the interval; in some, the worker that watches is killed on the way. All run side by
side, as each waits for most of its time.
"""

from __future__ import annotations

import contextlib
import email
import http.client
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.run import figure
from ops import report
from ops.alerts.generate import NEUTRAL
from ops.environment import ROOT
from tests.doubles import slack
from tests.doubles.mailbox import Server

MOMENTS, RATE = 4, 20
GOAL = 60.0
# Seconds of good requests before: longer than the window of the critical rule, so that
# these weigh as much as they ever do.
BEFORE, PATIENCE = 125.0, 240.0
CONF = """
workers = 3
worker_class = "gthread"
threads = 4
preload_app = True
control_socket_disable = True
def post_worker_init(worker):
    import os
    from pathlib import Path
    from mltrading_health import watch
    from served import health, metrics
    watch.start(
        lambda: metrics.snapshot(health).samples, rules=Path(os.environ["RULES"]),
        environment="prod", service="bench",
        folder=Path(os.environ["MLTRADING_RUNTIME_DIR"]),
    )
from mltrading_health.gunicorn import install
install(globals())
"""
APP = """
import os
from mltrading_health import Health, Metrics, wsgi
health, metrics = Health("bench"), Metrics()
def answer(environ, start):
    broken = os.path.exists("broken")
    start("500 No" if broken else "200 OK", [("Content-Length", "0")])
    return [b""]
app = wsgi(answer, health, metrics, route=lambda environ: environ["PATH_INFO"])
"""


def _interval() -> float:
    return float(json.loads((ROOT / NEUTRAL).read_text())["interval_s"])


@dataclass
class Inbox:
    """When which subject came."""

    mails: list[tuple[float, str]] = field(default_factory=list)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Take a mail."""
        mail = email.message_from_bytes(envelope.content)
        self.mails.append((time.monotonic(), str(mail["Subject"])))
        return "250 ok"


@dataclass(frozen=True)
class Heard:
    """Seconds from the outage to each, and from its end to the end of the alert."""

    slack: float
    mail: float
    over: float
    messages: int


def measure(runs: int = 0) -> dict[str, Any]:
    """Return the figures of outages at `runs` moments (4 by default), twice."""
    moments = runs or MOMENTS
    interval = _interval()
    plan = [
        (kills, interval * number / moments)
        for kills in (False, True)
        for number in range(moments)
    ]
    report.say(f"  {len(plan)} services side by side, some six minutes", "dim")
    found: dict[tuple[bool, float], Heard] = {}

    def one(kills: bool, offset: float) -> None:
        found[kills, offset] = outage(offset, kills=kills)

    threads = [threading.Thread(target=one, args=each) for each in plan]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(found) < len(plan):
        raise SystemExit(f"{len(plan) - len(found)} outages ended without a figure")
    rows = []
    for kills, about in ((False, "outage"), (True, "outage, the watching one killed")):
        heard = [each for (killed, _), each in found.items() if killed == kills]
        rows += [
            figure(f"{about}: to Slack", [each.slack for each in heard], "s"),
            figure(f"{about}: worst", [max(e.slack for e in heard)], "s", GOAL),
            figure(f"{about}: to mail", [max(e.mail for e in heard)], "s", GOAL),
            figure(f"{about}: its end told", [each.over for each in heard], "s"),
            figure(
                f"{about}: messages", [max(e.messages for e in heard)], "messages", 2
            ),
        ]
    return {"figures": rows, "moments": moments, "interval_s": interval}


def outage(offset: float, *, kills: bool) -> Heard:
    """Break a service some seconds after a look, mend it, and hear what is said."""
    inbox = Inbox()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        double = stack.enter_context(slack.serving())
        mail = stack.enter_context(_mail(inbox))
        port = stack.enter_context(_serving(folder, double.url, mail))
        stack.enter_context(_asked(port))
        time.sleep(BEFORE)
        # Looks are at whole multiples of the interval, for all processes.
        interval = _interval()
        looked = math.ceil(time.monotonic() / interval) * interval
        time.sleep(looked + offset - time.monotonic())
        (folder / "broken").touch()
        began = time.monotonic()
        if kills:
            time.sleep(10.0)
            os.kill(int((folder / "run/watch.lock").read_text()), signal.SIGKILL)

        def told(word: str) -> list[str]:
            texts = (str(message["text"]) for message in double.messages)
            return [t for t in texts if t.startswith(f"{word} HighErrorRate")]

        first = _wait(lambda: bool(told("CRITICAL")))
        _wait(lambda: any("CRITICAL HighErrorRate" in s for _, s in inbox.mails))
        mailed = next(at for at, s in inbox.mails if "CRITICAL HighErrorRate" in s)
        (folder / "broken").unlink()
        mended = time.monotonic()
        over = _wait(lambda: bool(told("resolved")))
        messages = len(told("CRITICAL")) + len(told("resolved"))
        return Heard(first - began, mailed - began, over - mended, messages)


@contextmanager
def _serving(folder: Path, webhook: str, mail: str) -> Iterator[int]:
    (folder / "conf.py").write_text(CONF)
    (folder / "served.py").write_text(APP)
    environ = {
        **os.environ,
        "MLTRADING_RUNTIME_DIR": str(folder / "run"),
        "RULES": str(ROOT / NEUTRAL),
        "SLACK_WEBHOOK_URL": webhook,
        "SMTP_URL": mail,
    }
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        (folder / "log").open("wb") as log,
    ):
        command = [sys.executable, "-m", "gunicorn", "-c", "conf.py", "served:app"]
        bind = f"fd://{listener.fileno()}"
        process = subprocess.Popen(
            [*command, "--bind", bind],
            cwd=folder,
            env=environ,
            pass_fds=[listener.fileno()],
            stderr=log,
        )
        try:
            yield listener.getsockname()[1]
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def _asked(port: int) -> Iterator[None]:
    """Ask RATE times a second while the block runs."""
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(1 / RATE):
            # One that is not answered, as its worker was killed, is left out.
            with contextlib.suppress(OSError, http.client.HTTPException):
                one = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                with contextlib.closing(one):
                    one.request("GET", "/")
                    one.getresponse().read()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _mail(inbox: Inbox) -> Iterator[str]:
    server = Server(inbox, hostname="127.0.0.1", port=0)
    server.start()
    try:
        yield f"smtp://127.0.0.1:{server.port}"
    finally:
        server.stop()


def _wait(fact: Callable[[], bool]) -> float:
    """Return when a fact came true; it is looked for a hundred times a second."""
    until = time.monotonic() + PATIENCE
    while not fact():
        if time.monotonic() > until:
            raise SystemExit(f"not within {PATIENCE:g} s")
        time.sleep(0.01)
    return time.monotonic()
