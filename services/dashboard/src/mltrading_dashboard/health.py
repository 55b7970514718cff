"""What the dashboard answers when it is asked how it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from mltrading_dashboard import __version__
from mltrading_dashboard.settings import Settings
from mltrading_health import Health, Result, Status, disk_check, memory_check
from mltrading_marketdata import StoreError
from mltrading_marketdata.ledger import Ledger
from mltrading_marketdata.url import parse

DATABASE_TIMEOUT_S = 2.0
PROVIDERS_TTL_S = 60.0


@cache
def alerts() -> Mapping[str, Any]:
    """Return the alerts of this service; `inv alerts` makes the file."""
    text = (files("mltrading_dashboard") / "alerts.json").read_text()
    found: Mapping[str, Any] = json.loads(text)
    return found


def create_health(settings: Settings, store: Any) -> Health:
    """Return the checks of this service; none of them has been asked yet."""
    health = Health(
        "dashboard",
        version=__version__,
        release=settings.release,
        artefact=settings.artefact,
        commit=settings.commit,
        runtime_dir=settings.runtime_dir,
        token=settings.health_token or None,
        access="open" if settings.metrics == "open" else "token",
    )
    bounds = alerts()["thresholds"]
    memory, free = bounds["memory"], bounds["disk_free"]
    health.check(
        "database",
        store.ping,
        timeout=DATABASE_TIMEOUT_S,
        # The store has asked again by itself before it says no.
        fall=1,
        kind="datastore",
    )
    health.check(
        "external_apis",
        providers(store),
        timeout=DATABASE_TIMEOUT_S,
        ttl=PROVIDERS_TTL_S,
        critical=False,
    )
    health.check(
        "memory_usage",
        memory_check(warn=memory["warning"], fail=memory["critical"]),
        ttl=15.0,
        critical=False,
        kind="system",
    )
    health.check(
        "disk_space",
        disk_check(
            *disks(settings).values(), warn=free["warning"], fail=free["critical"]
        ),
        ttl=15.0,
        critical=False,
        kind="system",
    )
    return health


def disks(settings: Settings) -> dict[str, Path]:
    """Return by a short name the folders on whose disks this service writes."""
    found = {"release": settings.runtime_dir or Path()}
    address = parse(settings.database_url, require_tls=settings.database_ssl_require)
    if address.dialect == "sqlite":
        found["data"] = address.file.parent
    return found


def providers(store: Any) -> Callable[[], Result]:
    """Return a check of whether the providers of market data answered when last asked.

    The web workers ask no provider themselves: what ingestion has written down tells,
    and costs nobody's quota.
    """

    def check() -> Result:
        try:
            silent = Ledger(store.access).silent()
        except StoreError:
            # That the database is away is the answer to another question.
            return Result(Status.WARN, "the database does not say")
        if silent:
            return Result(Status.FAIL, f"no bars came from {', '.join(silent)}")
        return Result(Status.PASS)

    return check
