"""`inv alerts --test`: a marked test alert through every channel of an environment.

Slack and mail are asked directly, so that a wrong address shows at once. Alertmanager,
where there is one, is asked beside that: it also tries the routes.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from ops import environment as environments
from ops import report, wire
from ops.alerts import channels, mail, monitor, slack, thresholds
from ops.alerts.channels import Channels
from ops.alerts.notice import Notice
from ops.command import Request, Secret
from ops.errors import Refused, StepFailed, Usage

_TIMEOUT = 10.0
# For so many seconds Alertmanager takes the test for an alert that fires.
_LASTS = 60.0
_BODY = "This is a test of the alerts. Nothing is wrong, and nothing needs to be done."

# A channel's name, whom it reaches, which variable it lacks, and what sends by it.
Try = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of the test in one channel: sent, not configured, failed, planned."""

    channel: str
    to: str
    state: str
    said: str = ""


def hold(
    env: str,
    *,
    dry_run: bool = False,
    as_json: bool = False,
    environ: Mapping[str, str] = os.environ,
    clock: Callable[[], float] = time.time,
) -> tuple[Sent, ...]:
    """Send a test through every channel and show what became of it.

    Raises:
        StepFailed: a channel did not take it.
        Refused: no channel is configured, so nobody would hear of an alert.
        Usage: there is no such environment, or a variable holds no address.
    """
    known = environments.load(env)
    alerts = thresholds.load()
    ways = channels.of(alerts, known.name, environ)
    service = alerts.monitoring.service
    found = [
        _try(*way, dry_run=dry_run)
        for way in (
            _slack(ways, clock()),
            *(_mail(ways, name, clock()) for name in ways.groups),
            _alertmanager(known, service, environ, clock()),
        )
    ]
    if as_json:
        said = [
            {"channel": s.channel, "to": s.to, "state": s.state, "said": s.said}
            for s in found
        ]
        report.as_json({"schema_version": 1, "environment": env, "channels": said})
    else:
        signs = {"sent": "ok", "failed": "failed", "planned": "skipped"}
        for one in found:
            words = f"{one.state}: {one.to}" if one.to else one.state
            text = f"{words} ({one.said})" if one.said else words
            report.step(signs.get(one.state, "warned"), one.channel, text)
    _judge(found, env)
    return tuple(found)


def _judge(found: list[Sent], env: str) -> None:
    failed = [one for one in found if one.state == "failed"]
    if failed:
        raise StepFailed(
            f"not told: {', '.join(one.channel for one in failed)}",
            where=f"the channels of {env}",
            detail="\n".join(f"{one.channel}: {one.said}" for one in failed),
            next=f"mend it, then inv alerts --test --env {env}",
        )
    if all(one.state == "not configured" for one in found):
        raise Refused(
            f"nobody would hear of an alert of {env}: no channel is configured",
            where="the variables of this shell",
            next=f"export SLACK_WEBHOOK_URL=…; inv alerts --test --env {env}",
        )


def _try(channel: str, to: str, lacking: str, send: Try, *, dry_run: bool) -> Sent:
    if lacking:
        return Sent(channel, to, "not configured", f"{lacking} is not set")
    if dry_run:
        return Sent(channel, to, "planned")
    problem = send()
    return Sent(channel, to, "failed" if problem else "sent", problem)


def _notice(ways: Channels, at: float, recipients: tuple[str, ...] = ()) -> Notice:
    return Notice(
        environment=ways.environment,
        event="test",
        title=f"TEST, nothing is wrong: {ways.title}: alerts reach you here",
        body=_BODY,
        tone="info",
        at=at,
        channel=ways.channel,
        fields=(("sent by", "inv alerts --test"), ("environment", ways.environment)),
        sender=ways.sender,
        recipients=recipients,
    )


def _slack(ways: Channels, at: float) -> tuple[str, str, str, Try]:
    where, notice = ways.webhook or Secret(""), _notice(ways, at)
    lacking = ways.lacking.get("slack", "")
    return "slack", ways.channel, lacking, lambda: slack.send(notice, where, _TIMEOUT)


def _mail(ways: Channels, group: str, at: float) -> tuple[str, str, str, Try]:
    people = ways.groups[group]
    where, notice = ways.smtp or Secret(""), _notice(ways, at, people)
    lacking = ways.lacking.get("mail") or ways.lacking.get(group, "")
    return (
        f"mail {group}",
        ", ".join(people),
        lacking,
        lambda: mail.send(notice, where, _TIMEOUT),
    )


# Alertmanager -------------------------------------------------------------------------


def _alertmanager(
    env: environments.Environment,
    service: str,
    environ: Mapping[str, str],
    at: float,
) -> tuple[str, str, str, Try]:
    """Return the channel of an Alertmanager: the one that is named, or ours."""
    url = environ.get("ALERTMANAGER_URL", "").strip()
    if url:
        place, headers = _place(url)
        to, lacking = place, ""
    else:
        running = monitor.running(monitor.folder_of(env), "alertmanager")
        place = to = running.url if running else ""
        headers, lacking = {}, "" if running else "ALERTMANAGER_URL"

    def send() -> str:
        body = json.dumps(messages(env.name, service, at)).encode()
        request = Request(
            "POST",
            "/api/v2/alerts",
            body,
            {"Content-Type": "application/json", **headers},
            _TIMEOUT,
        )
        answer = wire.ask(request, url=place)
        if answer.status == 200:
            return ""
        words = answer.body.decode(errors="replace").strip()[:200]
        return answer.error or f"status {answer.status}: {words or 'no word'}"

    return "alertmanager", to, lacking, send


def _place(url: str) -> tuple[str, dict[str, str]]:
    """Return an address without its password, and the header that stands for that.

    Raises:
        Usage: it is no address of a server.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Usage(
            "ALERTMANAGER_URL is no address of a server",
            where="the variable ALERTMANAGER_URL",
            allowed="http://host:9093 or https://user:password@host",
        )
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    if parts.username is None:
        return bare, {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    coded = base64.b64encode(pair.encode()).decode()
    return bare, {"Authorization": f"Basic {coded}"}


def messages(environment: str, service: str, at: float) -> list[dict[str, Any]]:
    """Return what Alertmanager is told: an alert of each severity, marked. Pure.

    Two names, or the critical one would keep the warning silent.
    """
    return [
        {
            "labels": {
                "alertname": f"TestOf{severity.title()}",
                "severity": severity,
                "env": environment,
                "service": service,
                "test": "true",
            },
            "annotations": {
                "summary": _BODY,
                "do": "nothing",
                "runbook": "docs/how-to/alerts.md#try-it",
            },
            "startsAt": _stamp(at),
            "endsAt": _stamp(at + _LASTS),
        }
        for severity in thresholds.SEVERITIES
    ]


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
