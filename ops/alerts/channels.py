"""By which channels an environment's people are reached from here, and by which not.

Webhook, mail server and addresses come from variables: NAME with the environment's
suffix, else NAME. Addresses of alerts.toml below `.example` are placeholders that reach
nobody. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ops.alerts.thresholds import Alerts
from ops.command import Secret

_PLACEHOLDER = ".example"


@dataclass(frozen=True, slots=True)
class Channels:
    """How an environment's people are reached; None and () where they are not.

    `groups` holds addresses by the name of a group. `lacking` says for a channel
    ("slack", "mail", a group) which variable is not set.
    """

    environment: str
    title: str
    channel: str
    urgent: bool
    webhook: Secret | None
    smtp: Secret | None
    sender: str
    groups: Mapping[str, tuple[str, ...]]
    told: Mapping[str, tuple[str, ...]]
    lacking: Mapping[str, str]

    def people(self, severity: str) -> tuple[str, ...]:
        """Return the addresses that hear of a severity; none where no mail is sent."""
        if "mail" in self.lacking:
            return ()
        names = self.told[severity]
        found = [address for name in names for address in self.groups[name]]
        return tuple(dict.fromkeys(found))


def of(alerts: Alerts, environment: str, environ: Mapping[str, str]) -> Channels:
    """Return the channels of an environment.

    Raises:
        Usage: a variable holds something that is no address.
    """
    audience = alerts.audiences[environment]

    def said(name: str) -> str:
        own = environ.get(f"{name}_{audience.suffix}", "").strip()
        return own or environ.get(name, "").strip()

    lacking = {}
    webhook, smtp = said("SLACK_WEBHOOK_URL"), said("SMTP_URL")
    sender = said("MAIL_FROM") or _real(alerts.mail.sender)
    if not webhook:
        lacking["slack"] = "SLACK_WEBHOOK_URL"
    if not smtp or not sender:
        lacking["mail"] = "MAIL_FROM" if smtp else "SMTP_URL"
    groups = {}
    for name, group in alerts.groups.items():
        groups[name] = alerts.addresses(name, {group.variable: said(group.variable)})
        groups[name] = tuple(filter(None, map(_real, groups[name])))
        if not groups[name]:
            lacking[name] = group.variable
    return Channels(
        environment=environment,
        title=audience.title,
        channel=audience.channel,
        urgent=audience.urgent,
        webhook=Secret(webhook) if webhook else None,
        smtp=Secret(smtp) if smtp else None,
        sender=sender,
        groups=groups,
        told=alerts.told,
        lacking=lacking,
    )


def _real(address: str) -> str:
    return "" if address.endswith(_PLACEHOLDER) else address
