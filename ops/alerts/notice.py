"""What is told about an act, and to whom: pure, values in and out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ops.command import Secret

_PASSWORD = re.compile(r"(://[^/?#:@\s]*):[^\s]*@")
_LONGEST = 600
_DONE = {
    "maintenance on": "maintenance is on: people read a page",
    "maintenance off": "maintenance is over: people are let in",
}


@dataclass(frozen=True, slots=True)
class Audience:
    """Who hears about an environment; `suffix` is that of its variables."""

    title: str
    channel: str
    suffix: str
    urgent: bool


AUDIENCES = {
    "staging": Audience("staging", "#staging-alerts", "STAGING", urgent=False),
    "prod": Audience("production", "#production-alerts", "PRODUCTION", urgent=True),
}


@dataclass(frozen=True, slots=True)
class Notice:
    """One message, for every channel the same. `tone`: info, good, bad."""

    environment: str
    event: str
    title: str
    body: str
    tone: str
    at: float
    channel: str
    urgent: bool = False
    fields: tuple[tuple[str, str], ...] = ()
    sender: str = ""
    recipients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Happening:
    """What there is to tell. `event`: start, success, failure, rollback.

    `critical`: putting back failed, a person is needed now.
    """

    event: str
    op: str
    by: str
    at: float
    release: int | None = None
    previous: int | None = None
    commit: str = ""
    artefact: str = ""
    seconds: float | None = None
    reason: str = ""
    next: str = ""
    critical: bool = False
    notes: tuple[tuple[str, str], ...] = ()


def compose(
    environment: str,
    happening: Happening,
    environ: Mapping[str, str],
    secrets: Iterable[Secret] = (),
) -> Notice | None:
    """Return the notice of what happened, None where nobody is to hear of it.

    `environ` names the people; `secrets` are values that no message may hold.
    """
    audience = AUDIENCES.get(environment)
    if audience is None:
        return None
    hidden = [secret.value for secret in secrets if secret.value]
    bad = happening.event in ("failure", "rollback")
    urgent = audience.urgent and bad
    fields = [
        (name, masked(value, hidden))
        for name, value in (
            *_fields(happening),
            *([("urgency", "high")] if urgent else []),
        )
        if value
    ]
    return Notice(
        environment=environment,
        event=happening.event,
        title=f"{audience.title}: {_title(happening)}",
        body=masked(_body(happening, environment), hidden),
        tone=_tone(happening),
        at=happening.at,
        channel=audience.channel,
        urgent=urgent,
        fields=tuple(fields),
        sender=environ.get("MAIL_FROM", ""),
        recipients=_recipients(environ, critical=happening.critical and urgent),
    )


def webhook(environment: str, environ: Mapping[str, str]) -> Secret | None:
    """Return the environment's own webhook, else the common one, None without any."""
    audience = AUDIENCES.get(environment)
    if audience is None:
        return None
    for name in (f"SLACK_WEBHOOK_URL_{audience.suffix}", "SLACK_WEBHOOK_URL"):
        if environ.get(name):
            return Secret(environ[name])
    return None


def masked(text: str, hidden: Iterable[str]) -> str:
    """Return a short text without the hidden values and without passwords in URLs."""
    for value in sorted(hidden, key=len, reverse=True):
        text = text.replace(value, "***")
    text = _PASSWORD.sub(r"\1:***@", text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _tone(happening: Happening) -> str:
    if happening.event == "success":
        return "info" if happening.op == "maintenance on" else "good"
    return "info" if happening.event == "start" else "bad"


def _title(happening: Happening) -> str:
    op, release = happening.op, _named(happening.release)
    of = f" of {release}" if release else ""
    to = f" to {release}" if release else ""
    match happening.event:
        case "start":
            return f"{op}{to if op == 'rollback' else of} begins"
        case "rollback":
            return f"rolled back{to}"
        case "success" if op in _DONE:
            return _DONE[op]
        case "success":
            return f"{op}{of} is done" if op != "deploy" else f"{release} serves"
    if happening.critical:
        return f"{op}{of} failed, and putting it back failed too"
    return f"{op}{of} failed"


def _body(happening: Happening, environment: str) -> str:
    previous, release = _named(happening.previous), _named(happening.release)
    if happening.event == "failure":
        return happening.reason or "no reason is known"
    if happening.event == "rollback" and previous:
        return f"{previous} was left, {release} serves"
    if happening.event == "success" and previous and previous != release:
        back = f"inv rollback --env {environment}"
        return f"{previous} served before; to go back: {back}"
    return ""


def _fields(happening: Happening) -> list[tuple[str, str]]:
    took = "" if happening.seconds is None else f"{happening.seconds:.1f} s"
    return [
        ("by", happening.by),
        ("commit", happening.commit[:9]),
        ("artefact", happening.artefact[:12]),
        ("took", took),
        ("next", happening.next),
        *happening.notes,
    ]


def _recipients(environ: Mapping[str, str], *, critical: bool) -> tuple[str, ...]:
    """Return who gets mail: the team, and on-call and devops where it is critical."""
    names = ["MAIL_TO_TEAM"]
    if critical:
        names = ["MAIL_TO_ONCALL", "MAIL_TO_DEVOPS", *names]
    said = ",".join(environ.get(name, "") for name in names)
    return tuple(dict.fromkeys(filter(None, map(str.strip, said.split(",")))))


def _named(number: int | None) -> str:
    return "" if number is None else f"v{number}"
