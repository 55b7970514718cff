"""Judge the service's metrics by its alerts from one of its own workers."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from mltrading_dashboard.settings import Settings

if TYPE_CHECKING:
    from mltrading_health import Health, Metrics
    from mltrading_health.watch import Watcher

log = logging.getLogger(__name__)


def start(
    settings: Settings,
    health: Health,
    metrics: Metrics,
    environ: Mapping[str, str] = os.environ,
) -> Watcher | None:
    """Begin in a thread; None, and a line in the log, where it can't be.

    All releases of a host queue for one seat, and only one with traffic takes it: who
    takes over a switch goes on with what the other knew, and nobody is told twice.
    """
    from mltrading_health import watch

    folder = settings.shared_dir or settings.runtime_dir
    if folder is None:
        log.error("no alerts from here: ALERTS=evaluator needs MLTRADING_RUNTIME_DIR")
        return None
    try:
        with as_file(files("mltrading_dashboard") / "alerts.json") as rules:
            return watch.start(
                lambda: metrics.snapshot(health).samples,
                rules=rules,
                environment=settings.environment,
                service="dashboard",
                folder=folder,
                labels={"host": socket.gethostname()},
                serves=lambda: serves(settings),
                environ=environ,
            )
    except (watch.RulesError, OSError) as error:
        log.error("no alerts from here: %s", error)
        return None


def serves(settings: Settings) -> bool:
    """Tell whether this release has its host's traffic; alone it has all of it."""
    current, own = settings.current, settings.runtime_dir
    if current is None or own is None:
        return True
    return _real(current) == _real(own.parent)


def _real(path: Path) -> str:
    return os.path.realpath(path)
