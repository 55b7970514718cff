"""How the pipeline went over time: every run of `inv ci`, and what that tells.

The runs are lines of JSON beside the environments' state; a line that a killed run
left half-written is passed over.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ops import record, report
from ops.environment import ROOT, state_home

FILE = "pipeline.jsonl"
_WIDTH, _HEIGHT, _EDGE = 640, 120, 34


@dataclass(frozen=True, slots=True)
class Entry:
    """One run of the pipeline: `at` in seconds since the epoch, `seconds` it took.

    `tests` is how many passed, `coverage` in percent, None where it was not measured.
    """

    at: float
    commit: str
    ok: bool
    seconds: float
    tests: int
    coverage: float | None
    flaky: int = 0
    over: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Week:
    """The runs of one week that begins on a Monday (UTC)."""

    monday: str
    runs: int
    green: float
    p50: float
    p95: float
    tests: int
    coverage: float | None


def append(entry: Entry, folder: Path | None = None) -> None:
    """Add a run, in one write, so that two at once do not mix."""
    file = (folder or state_home()) / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(asdict(entry), sort_keys=True) + "\n"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def entries(folder: Path | None = None) -> list[Entry]:
    """Return all runs that were recorded, oldest first."""
    file = (folder or state_home()) / FILE
    if not file.is_file():
        return []
    found = []
    for line in file.read_text(errors="replace").splitlines():
        try:
            known: Mapping[str, Any] = json.loads(line)
            over = tuple(known["over"])
            found.append(Entry(**{**known, "over": over}))
        except (ValueError, KeyError, TypeError):
            # Half a line of a killed run, or one of a version to come.
            continue
    return found


def weeks(found: Sequence[Entry]) -> list[Week]:
    """Return each week that had runs; its tests and coverage are those of its last."""
    by_week: dict[str, list[Entry]] = {}
    for entry in found:
        day = datetime.fromtimestamp(entry.at, UTC).date()
        monday = (day - timedelta(days=day.weekday())).isoformat()
        by_week.setdefault(monday, []).append(entry)
    rows = []
    for monday, those in sorted(by_week.items()):
        spread = record.spread(entry.seconds for entry in those)
        measured = [e.coverage for e in those if e.coverage is not None]
        rows.append(
            Week(
                monday,
                len(those),
                round(sum(e.ok for e in those) / len(those), 4),
                spread.p50 if spread else 0.0,
                spread.p95 if spread else 0.0,
                those[-1].tests,
                measured[-1] if measured else None,
            )
        )
    return rows


def picture(found: Sequence[Entry]) -> str:
    """Return an SVG of duration, test count and coverage, run by run."""
    series = (
        ("seconds", [entry.seconds for entry in found], "#2563eb"),
        ("tests", [float(entry.tests) for entry in found], "#059669"),
        ("coverage %", [entry.coverage or 0.0 for entry in found], "#b45309"),
    )
    tall = len(series) * (_HEIGHT + _EDGE)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{tall}" '
        f'viewBox="0 0 {_WIDTH} {tall}" font-family="sans-serif" font-size="12">',
        f"<title>{len(found)} runs of the pipeline</title>",
        f'<rect width="{_WIDTH}" height="{tall}" fill="white"/>',
    ]
    for number, (name, values, tone) in enumerate(series):
        top = number * (_HEIGHT + _EDGE) + _EDGE
        most = max(values, default=0.0) or 1.0
        step = (_WIDTH - 2 * _EDGE) / max(1, len(values) - 1)
        points = [
            (_EDGE + index * step, top + _HEIGHT * (1 - value / most))
            for index, value in enumerate(values)
        ]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        last = f"{values[-1]:g}" if values else "-"
        parts += [
            f'<text x="{_EDGE}" y="{top - 8}">{name}: last {last}, '
            f"most {most:g}</text>",
            f'<line x1="{_EDGE}" x2="{_WIDTH - _EDGE}" y1="{top + _HEIGHT}" '
            f'y2="{top + _HEIGHT}" stroke="#cbd5e1"/>',
            f'<polyline points="{drawn}" fill="none" stroke="{tone}" '
            'stroke-width="2"/>',
        ]
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" '
            f'fill="{tone if entry.ok else "#dc2626"}"/>'
            for (x, y), entry in zip(points, found, strict=True)
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def bars(found: Sequence[Entry], width: int = 60) -> str:
    """Return the last durations as a line of blocks, the tallest the longest."""
    signs = "▁▂▃▄▅▆▇█"
    last = found[-width:]
    most = max((entry.seconds for entry in last), default=0.0) or 1.0
    top = len(signs) - 1
    return "".join(signs[round(top * entry.seconds / most)] for entry in last)


def show(
    *,
    since: str = "90d",
    as_json: bool = False,
    folder: Path | None = None,
    root: Path = ROOT,
) -> None:
    """Print how the pipeline went, and draw reports/pipeline.svg."""
    begin = record.moment(since, time.time())
    found = [entry for entry in entries(folder) if entry.at >= begin]
    if as_json:
        report.as_json(
            {
                "schema_version": 1,
                "weeks": [asdict(week) for week in weeks(found)],
                "runs": [asdict(entry) for entry in found],
            }
        )
        return
    if not found:
        report.say("  no run of inv ci is recorded")
        return
    rows = [
        (
            week.monday,
            str(week.runs),
            f"{100 * week.green:.0f} %",
            report.seconds(week.p50),
            report.seconds(week.p95),
            str(week.tests),
            "-" if week.coverage is None else f"{week.coverage:.1f} %",
        )
        for week in weeks(found)
    ]
    head = ("week of", "runs", "green", "p50", "p95", "tests", "covered")
    report.data(report.colour("pipeline", "bold"))
    report.data(report.table(rows, head, right=range(1, 7)))
    most = report.seconds(max(entry.seconds for entry in found))
    report.data(f"\n  {bars(found)}  longest {most}")
    flaky = sum(entry.flaky for entry in found)
    over = [name for entry in found for name in entry.over]
    if flaky or over:
        counts = {name: over.count(name) for name in sorted(set(over))}
        told = ", ".join(f"{name} {count} times" for name, count in counts.items())
        report.data(f"  flaky: {flaky} times; over budget: {told or 'never'}")
    file = root / "reports" / "pipeline.svg"
    file.parent.mkdir(exist_ok=True)
    file.write_text(picture(found))
    report.data(f"  drawn: {file.relative_to(root)}")
