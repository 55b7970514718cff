"""All parts of the health bench, as figures beside their goals."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bench.health import overhead, probing, restarts, small
from bench.run import chosen, keep_part
from ops import report

PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "request": overhead.measure,
    "browser": small.measure,
    "probes": probing.measure,
    "scrape": restarts.measure,
}


def measure(runs: int, *, only: str = "") -> dict[str, Any]:
    """Measure all parts, or those in `only`; what the others said stays.

    Raises:
        Usage: there is no such part.
    """
    words = chosen(only, PARTS)
    figures = []
    for part in words:
        report.say(f"  {part}")
        begun = time.time()
        found = PARTS[part](runs)
        keep_part("health", part, begun, found)
        figures += found["figures"]
    return {"parts": words, "figures": figures}
