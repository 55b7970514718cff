"""All parts of the data bench, as figures beside their goals."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from bench.data import choosing, keeping, objects, peers, reading, writing
from bench.data.made import Size
from bench.data.site import Site, built
from bench.run import chosen
from ops import report
from tests.postgres import running

PARTS: dict[str, Callable[[Site, int], list[dict[str, Any]]]] = {
    "million": reading.million,
    "daily": reading.daily,
    "panel": reading.panel,
    "chart": reading.chart,
    "latest": reading.latest,
    "upsert": writing.upsert,
    "resend": writing.resend,
    "memory": keeping.memory,
    "size": keeping.size,
    "freshness": keeping.freshness,
    "layouts": choosing.choose,
    "objects": objects.objects,
}
FULL = Size()


def measure(runs: int, *, only: str = "", size: Size = FULL) -> dict[str, Any]:
    """Measure `runs` rounds (7) of every part, or of those in `only`.

    Raises:
        Usage: there is no such part.
        StepFailed: two ways to read the same bars gave different ones.
    """
    parts = chosen(only, PARTS)
    # pandas keeps text another way where pyarrow is, which no release has beside it.
    pd.set_option("mode.string_storage", "python")
    with tempfile.TemporaryDirectory(prefix="mlt-data-") as name, running() as server:
        folder = Path(name)
        report.say("  installing the peers")
        missing = peers.install(folder / "peers")
        for peer, why in missing.items():
            report.say(f"  {peer} is missing: {why}", "yellow")
        figures = []
        with built(folder, server, size, missing) as site:
            for part in parts:
                report.say(f"  {part}")
                figures += PARTS[part](site, runs or 7)
            versions = {"PostgreSQL": site.server_version(), **peers.versions()}
    return {
        "partial": bool(only),
        "parts": parts,
        "missing": missing,
        "versions": versions,
        "figures": figures,
    }
