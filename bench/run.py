"""Run one bench, print its figures, keep them as JSON in bench/results/.

Machines are noisy, so a figure is a median with its extremes, and where it can be, a
ratio to something measured in the same run.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ops import report
from ops.environment import ROOT
from ops.errors import StepFailed, Usage

RESULTS = Path(__file__).with_name("results")


def bench(name: str, *, runs: int = 0, seed: int = 1, only: str = "") -> None:
    """Run one bench by its name; `seed` is for those that draw lots.

    `only` names some of its runs or parts.

    Raises:
        Usage: there is no bench of this name.
        StepFailed: it found what may never be.
    """
    from bench import alerts, deploy, first_run, menu, pipeline, switch, watch
    from bench.data import report as data
    from bench.faults import report as faults
    from bench.health import report as health

    benches: dict[str, Callable[[int], dict[str, Any]]] = {
        "alerts": alerts.measure,
        "data": partial(data.measure, only=only),
        "deploy": deploy.measure,
        "menu": menu.measure,
        "pipeline": partial(pipeline.measure, only=only),
        "first-run": first_run.measure,
        "switch": switch.measure,
        "watch": watch.measure,
        "health": partial(health.measure, only=only),
        "faults": partial(faults.measure, seed=seed, only=only),
    }
    if name not in benches:
        raise Usage(f'there is no bench "{name}"', allowed=", ".join(benches))
    report.say(f"bench {name}", "bold")
    begun = time.time()
    found = benches[name](runs)
    if "parts" not in found:
        keep(name, begun, found)
    rows = [
        (row["what"], shown(row), row.get("goal", ""), verdict(row))
        for row in found["figures"]
    ]
    report.data(report.table(rows, ("what", "measured", "goal", ""), right=(1, 2)))
    if found.get("violations"):
        raise StepFailed(
            f"{len(found['violations'])} violations",
            where=f"bench/results/{name}.json",
            next=f"inv bench {name} --seed {seed} --only NUMBER does one run again",
        )


def chosen(only: str, parts: Iterable[str]) -> list[str]:
    """Return the parts named in "million,latest", in their own order; all for "".

    Raises:
        Usage: it names something else.
    """
    known = list(parts)
    words = {word.strip() for word in only.split(",")} if only else {*known}
    unknown = sorted(words.difference(known))
    if unknown:
        raise Usage(
            f"no such part: {', '.join(unknown)}",
            where="--only",
            allowed=", ".join(known),
        )
    return [part for part in known if part in words]


def keep(name: str, begun: float, found: dict[str, Any]) -> None:
    """Write a bench's figures, with what machine and commit they are of."""
    write(name, {"bench": name, **circumstances(begun), **found})


def keep_part(name: str, part: str, begun: float, found: dict[str, Any]) -> None:
    """Write the figures of one part; what the others said stays, with its commit."""
    path = RESULTS / f"{name}.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    parts = {**known.get("parts", {}), part: {**circumstances(begun), **found}}
    write(name, {"bench": name, "parts": parts})


def circumstances(begun: float) -> dict[str, Any]:
    """Return when and where figures were measured, and of which commit."""
    git = ("git", "rev-parse", "HEAD")
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True)
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)),
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def write(name: str, said: dict[str, Any]) -> None:
    """Put a bench's document in its place."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(said, indent=2) + "\n")
    report.say(f"  written to {path.relative_to(ROOT)}")


def figure(
    what: str,
    values: Sequence[float],
    unit: str,
    goal: float | None = None,
    *,
    least: float | None = None,
) -> dict[str, Any]:
    """Return one row: the median of the values, their extremes, and the goal.

    `goal` is the most that it may be, `least` the least that it must be.
    """
    row: dict[str, Any] = {
        "what": what,
        "unit": unit,
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
        "runs": len(values),
    }
    if goal is not None:
        row["limit"] = goal
        row["goal"] = f"≤ {goal:.4g} {unit}".rstrip()
    if least is not None:
        row["least"] = least
        row["goal"] = f"≥ {least:.4g} {unit}".rstrip()
    return row


def shown(row: dict[str, Any]) -> str:
    """Return a figure as people read it."""
    spread = ""
    if row["runs"] > 1:
        spread = f" ({row['min']:.4g}–{row['max']:.4g})"
    return f"{row['median']:.4g}{spread} {row['unit']}"


def verdict(row: dict[str, Any]) -> str:
    """Say whether the median meets the goal."""
    if "goal" not in row:
        return ""
    low, high = row.get("least", -math.inf), row.get("limit", math.inf)
    return "met" if low <= row["median"] <= high else "MISSED"


def timed(argv: Sequence[str], *, cwd: Path, environ: dict[str, str]) -> float:
    """Return the wall seconds of a command that must succeed."""
    begun = time.perf_counter()
    ended = subprocess.run(
        argv,
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    took = time.perf_counter() - begun
    if ended.returncode:
        sys.stderr.write(ended.stdout + ended.stderr)
        raise SystemExit(f"{' '.join(argv)} ended with {ended.returncode}")
    return took
