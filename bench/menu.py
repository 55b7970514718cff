"""What the menu costs: `inv --list` here against an empty tasks.py."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.run import figure, timed
from ops.environment import ROOT


def measure(runs: int) -> dict[str, Any]:
    """Time both in turn, pair by pair."""
    ours, bare, ratios = [], [], []
    argv = (sys.executable, "-m", "invoke", "--list")
    with tempfile.TemporaryDirectory() as folder:
        text = "from invoke import task\n\n\n@task\ndef noop(c):\n    pass\n"
        Path(folder, "tasks.py").write_text(text)
        environ = dict(os.environ)
        for number in range((runs or 25) + 1):
            here = timed(argv, cwd=ROOT, environ=environ)
            there = timed(argv, cwd=Path(folder), environ=environ)
            if number:
                ours.append(here)
                bare.append(there)
                ratios.append(here / there)
    return {
        "figures": [
            figure("inv --list", ours, "s"),
            figure("inv --list of an empty tasks.py", bare, "s"),
            figure("ratio, pair by pair", ratios, "×", 1.15),
        ]
    }
