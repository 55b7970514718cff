"""Alerts for a service that no Prometheus watches: the same rules, from the inside.

One worker of all evaluates alerts.json every interval on what all of them have counted,
and tells people by Slack and e-mail. Nothing of this package is imported by the rest.

After the fork of a worker, with the service's Health and Metrics::

    from mltrading_health import watch
    watch.start(
        lambda: metrics.snapshot(health).samples,
        rules=Path("alerts.json"), environment="prod", service="dashboard",
        folder=Path(os.environ["MLTRADING_RUNTIME_DIR"]),
    )
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from mltrading_health.watch.notify import Channel, Mail, Slack
from mltrading_health.watch.rules import RulesError, load
from mltrading_health.watch.series import Samples
from mltrading_health.watch.watcher import Watcher

log = logging.getLogger(__name__)

__all__ = ["RulesError", "Watcher", "start"]


def start(
    snapshot: Callable[[], Samples],
    *,
    rules: Path,
    environment: str,
    service: str,
    folder: Path,
    labels: Mapping[str, str] | None = None,
    serves: Callable[[], bool] = lambda: True,
    environ: Mapping[str, str] = os.environ,
) -> Watcher:
    """Begin to watch in a daemon thread of this process; call it once after a fork.

    ``labels`` tell apart what has the same name, like ``{"host": "web-1"}``. ``serves``
    says whether this service has traffic: of several in one folder that one watches,
    and goes on with what the other knew. Addresses
    come from ``environ``: SLACK_WEBHOOK_URL_<suffix> or SLACK_WEBHOOK_URL, SMTP_URL,
    MAIL_FROM, and the MAIL_TO_… that the rules name. One of the wrong kind is logged,
    not repeated, and takes no other channel away. Without any of them alerts are only
    logged.

    Raises:
        RulesError: the rules can't be used, or know no such environment.
        OSError: the rules can't be read.
    """
    alerts = load(rules)
    where = alerts.environment(environment).with_people(environ)
    asked = ((Slack, where.webhook(environ)), (Mail, environ.get("SMTP_URL", "")))
    channels: list[Channel] = []
    for kind, address in asked:
        try:
            channels += [kind(address, where)] if address else []
        except ValueError as error:
            log.error("no alerts by %s: %s", kind.name, error)
    every = {"env": environment, "service": service, **(labels or {})}
    watcher = Watcher(alerts, snapshot, channels, folder, every, serves=serves)
    watcher.start()
    return watcher
