"""How this service stands: what it is, its checks, its alerts, its workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from mltrading_dashboard.settings import Settings
from mltrading_health import Health
from mltrading_health.answers import WORDS
from mltrading_health.firing import firing

if TYPE_CHECKING:
    from mltrading_health import Metrics


@dataclass(frozen=True)
class Checked:
    """The latest result of a check: pass, warn or fail; `output` is "" if withheld."""

    name: str
    state: str
    output: str


@dataclass(frozen=True)
class Alerts:
    """Who judges (as ALERTS says) and what fires; None where that is not known here."""

    judge: str
    firing: tuple[str, ...] | None


@dataclass(frozen=True)
class Standing:
    """One look at the service, at a moment in UTC.

    `memory` holds the bytes (PSS) of each worker. It, outputs of checks and labels of
    alerts are left out where `told` is false: they are for who may read the metrics.
    """

    at: datetime
    since: datetime
    environment: str
    release: str
    artefact: str
    commit: str
    checks: tuple[Checked, ...]
    alerts: Alerts
    memory: tuple[int, ...]
    told: bool


#: Looks anew with each call.
Look = Callable[[], Standing]


def look(settings: Settings, health: Health, metrics: Metrics) -> Standing:
    """Return how the service stands now; waits for its checks as /health does."""
    told = health.access == "open"
    report = health.report()
    return Standing(
        at=health.now(),
        since=health.started_at,
        environment=settings.environment,
        release=settings.release,
        artefact=settings.artefact,
        commit=settings.commit,
        checks=tuple(
            Checked(name, WORDS[found.status], found.output if told else "")
            for name, found in report.checks.items()
        ),
        alerts=Alerts(settings.alerts, _alerts(settings, told)),
        memory=tuple(metrics.workers.memory().values()) if told else (),
        told=told,
    )


def _alerts(settings: Settings, told: bool) -> tuple[str, ...] | None:
    folder = settings.shared_dir or settings.runtime_dir
    if settings.alerts != "evaluator" or folder is None:
        return None
    return firing(folder, labels=told)
