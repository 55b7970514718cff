"""Where a Prometheus and an Alertmanager run: what they scrape, and by which files.

A secret is never in a configuration, only the path of the file that holds it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ops.alerts.thresholds import SEVERITIES, Alerts


@dataclass(frozen=True, slots=True)
class MailDoor:
    """A mail server as Alertmanager needs it: host:port, and by which right.

    `encrypt`: refuse a server that does not offer STARTTLS. Port 465 is TLS from the
    first byte and is not asked.
    """

    smarthost: str
    encrypt: bool = True
    user: str = ""
    password_file: str = ""


@dataclass(frozen=True, slots=True)
class Site:
    """What is watched from one place.

    `targets` are host:port by environment; one that is not named is read from the file
    targets/<env>.json beside the configuration. `tokens` and `webhooks` are paths of
    files by environment: without one there is no authorization, no Slack. `mail` None
    is no mail.
    """

    environments: tuple[str, ...]
    alertmanager: str
    sender: str
    people: Mapping[str, tuple[str, ...]]
    mail: MailDoor | None
    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tokens: Mapping[str, str] = field(default_factory=dict)
    webhooks: Mapping[str, str] = field(default_factory=dict)


def committed(alerts: Alerts) -> Site:
    """Return the place that ops/monitoring/ is made for, of alerts.toml alone."""
    said = alerts.monitoring
    return Site(
        environments=said.environments,
        alertmanager=f"127.0.0.1:{said.alertmanager_port or 9093}",
        sender=alerts.mail.sender,
        people={word: alerts.people(word, {}) for word in SEVERITIES},
        mail=MailDoor(
            alerts.mail.smarthost, user=alerts.mail.sender,
            password_file=f"{said.secrets}/smtp_password",
        ),
        tokens={name: f"{said.secrets}/token_{name}" for name in said.environments},
        webhooks={name: f"{said.secrets}/slack_{name}" for name in said.environments},
    )  # fmt: skip
