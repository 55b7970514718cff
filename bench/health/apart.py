"""Measure in a process of its own, which counts in files as under gunicorn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from ops.environment import ROOT


def figures_of(module: str, *words: str) -> dict[str, Any]:
    """Run a module of this package and return the figures that it prints.

    prometheus-client decides on import where it counts, so it can't be this process.
    """
    with tempfile.TemporaryDirectory(prefix="mlt-health-") as folder:
        ended = subprocess.run(
            [sys.executable, "-m", f"bench.health.{module}", *words],
            cwd=ROOT,
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": folder},
            capture_output=True,
            text=True,
        )
    if ended.returncode:
        raise SystemExit(ended.stderr)
    return {"figures": json.loads(ended.stdout)}
