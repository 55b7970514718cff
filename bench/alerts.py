"""From an outage to Slack and mail, through real Prometheus and Alertmanager.

Three environments are watched by the rules as they are committed, each a service of its
own in this process, with the counters that the dashboard has: in one all requests fail
from now on, in one a tenth of them, the third does not answer any more. People are
doubles of Slack and of a mail server.
"""

from __future__ import annotations

import os
import socketserver
import tempfile
import threading
import time
import wsgiref.simple_server
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.run import figure
from mltrading_health import Health, Metrics, wsgi
from ops import report, wire
from ops.alerts import generate, monitor, proving
from ops.alerts.prometheus import length
from ops.alerts.site import MailDoor, Site
from ops.errors import StepFailed
from tests.doubles import slack as slack_double
from tests.doubles import smtp as smtp_double

GOAL = 120.0
TOOLS_GOAL = 2.0
# Requests a second, as many as a small dashboard has.
_RATE = 10
# Longer than any of this should take, in seconds.
_MOST = 300.0
# How long it is watched that nobody hears of it twice.
_AFTER = 20.0


@dataclass
class Service:
    """A service that counts requests as the dashboard does; `bad` of each 10 fail."""

    environment: str
    what: str
    alert: str
    break_it: Callable[[Service], None]
    bad: int = 0
    port: int = 0
    stop: Callable[[], None] = lambda: None
    ended: threading.Event = field(default_factory=threading.Event)


def measure(runs: int) -> dict[str, Any]:
    """Break three services, runs times (once by default); time who hears of it.

    Raises:
        StepFailed: nobody heard, or somebody heard twice.
    """
    told: dict[str, list[float]] = {}
    for _ in range(runs or 1):
        for what, seconds in _outages().items():
            told.setdefault(what, []).append(seconds)
    figures = [figure(what, took, "s", GOAL) for what, took in told.items()]
    tools = [_tools() for _ in range(3)]
    figures.append(figure("tests of all rules and routes", tools, "s"))
    cpu = [_tools(cpu=True) for _ in range(3)]
    figures.append(figure("… processor time", cpu, "s", TOOLS_GOAL))
    return {"figures": figures}


def _outages() -> dict[str, float]:
    services = [
        Service("prod", "all requests fail", "HighErrorRate", _fail_all),
        Service("staging", "one request in ten fails", "HighErrorRate", _fail_some),
        Service("local", "nobody answers", "TargetDown", lambda s: s.stop()),
    ]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlt-")))
        slack = stack.enter_context(slack_double.serving())
        mails = stack.enter_context(smtp_double.serving())
        for service in services:
            stack.enter_context(_serving(service))
        stack.enter_context(_watching(folder, services, slack, mails))
        alerts, _ = generate.asked()
        warm = alerts.paces["critical"].window + 2 * alerts.rhythm.scrape
        report.say(f"  all is well for {length(warm)}, so that the windows are full")
        _pause(warm)
        if slack.messages or mails.mails:
            raise StepFailed(f"told of nothing: {_titles(slack)}")
        begun = time.monotonic()
        for service in services:
            service.break_it(service)
        return _await(services, slack, mails, begun)


def _await(
    services: list[Service],
    slack: slack_double.Slack,
    mails: smtp_double.MailServer,
    begun: float,
) -> dict[str, float]:
    """Return when each outage was told as critical, in Slack and by mail."""
    found: dict[str, float] = {}
    titles = {
        service.what: f"{_TITLES[service.environment]}: critical: {service.alert}"
        for service in services
    }
    until = begun + _MOST
    while len(found) < 2 * len(services):
        now = time.monotonic()
        if now > until:
            raise StepFailed(
                f"within {_MOST:g} s only told of: {', '.join(found) or 'nothing'}"
            )
        subjects = [mail.message["Subject"] for mail in mails.mails]
        for what, title in titles.items():
            if title in _titles(slack):
                found.setdefault(f"{what} → Slack", now - begun)
            if title in subjects:
                found.setdefault(f"{what} → mail", now - begun)
        time.sleep(0.05)
    _pause(_AFTER)
    for title in titles.values():
        if _titles(slack).count(title) != 1:
            raise StepFailed(f"told more than once: {title}")
    return found


_TITLES = {"prod": "production", "staging": "staging", "local": "local"}


def _titles(slack: slack_double.Slack) -> list[str]:
    return [message["attachments"][0]["title"] for message in slack.messages]


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def _fail_all(service: Service) -> None:
    service.bad = 10


def _fail_some(service: Service) -> None:
    service.bad = 1


@contextmanager
def _watching(
    folder: Path,
    services: list[Service],
    slack: slack_double.Slack,
    mails: smtp_double.MailServer,
) -> Iterator[None]:
    """Run both programs on the committed rules, with all three as targets."""
    alerts, rules = generate.asked()
    ports = {name: wire.free_port() for name in monitor.NAMES}
    names = tuple(service.environment for service in services)
    site = Site(
        environments=names,
        alertmanager=f"127.0.0.1:{ports['alertmanager']}",
        sender="alerts@example.org",
        people={"critical": ("oncall@example.org",), "warning": ("team@example.org",)},
        mail=MailDoor(f"127.0.0.1:{mails.port}", encrypt=False),
        targets={s.environment: (f"127.0.0.1:{s.port}",) for s in services},
        webhooks={name: f"{folder}/secrets/slack" for name in names},
    )
    made = monitor.Made(
        generate.configurations(alerts, rules, site),
        {"slack": monitor.Secret(slack.url)},
    )
    changed = monitor.write(made, folder)
    programs = monitor.installed()
    try:
        for name in ("alertmanager", "prometheus"):
            monitor.start(name, programs[name], folder, ports[name], changed)
        yield
    finally:
        monitor.stop(folder)


class _Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def _serving(service: Service) -> Iterator[None]:
    """Serve a service's metrics, and count requests that nobody makes."""
    metrics = Metrics()
    health = Health("dashboard", version="1", release="v1")

    def nothing(environ: Any, start: Any) -> list[bytes]:
        start("404 Not Found", [])
        return [b""]

    app = wsgi(nothing, health, metrics)
    health.started()
    server = wsgiref.simple_server.make_server(
        "127.0.0.1", 0, app, server_class=_Server, handler_class=_Quiet
    )
    service.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)

    def end() -> None:
        if not service.ended.is_set():
            service.ended.set()
            server.shutdown()
            server.server_close()

    def ask() -> None:
        count = 0
        while not service.ended.wait(1 / _RATE):
            failed = count % 10 < service.bad
            metrics.answered("GET", "page overview", "5xx" if failed else "2xx", 0.05)
            count += 1

    service.stop = end
    thread.start()
    threading.Thread(target=ask, daemon=True).start()
    try:
        yield
    finally:
        end()
        thread.join()


def _tools(*, cpu: bool = False) -> float:
    """Return the seconds that promtool and amtool take for all rules and routes."""
    alerts, rules = generate.asked()
    environments = alerts.monitoring.environments
    begun = _spent() if cpu else time.perf_counter()
    found = proving.judged(generate.ROOT / generate.FOLDER, alerts, rules, environments)
    took = (_spent() if cpu else time.perf_counter()) - begun
    if found:
        raise StepFailed("the rules do not pass", detail="\n".join(found))
    return took


def _spent() -> float:
    """Return the processor time of this process and of those it has waited for."""
    return sum(os.times()[:4])
