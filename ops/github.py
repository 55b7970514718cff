"""What GitHub shows of a run: groups, annotations, a step summary.

Pure: findings come in, lines go out. The platform shows ten errors and ten warnings
of a step, so they are ranked, and what is left out is counted aloud.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LIMIT = 10
# A step summary may have 1 MiB; bytes, with room for the last line.
SUMMARY = 1_000_000
_PLACE = re.compile(
    r"^\s*(?P<file>[\w./-]+\.\w+):(?P<line>\d+):?(?:\d+:)?\s*(?P<said>.*)"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something red or flaky: where, and what; `line` 0 is the whole file."""

    level: str
    title: str
    said: str
    file: str = ""
    line: int = 0


def of_gate(name: str, text: str) -> list[Finding]:
    """Return the findings in what a gate says, one per place that it names."""
    found = []
    for line in text.splitlines():
        place = _PLACE.match(line)
        if place:
            found.append(
                Finding("error", name, place["said"], place["file"], int(place["line"]))
            )
    if not found:
        # A diff names its file in a header and no line of its own.
        files = re.findall(r"^--- (?:a/)?([\w./-]+)", text, re.M)
        said = text.strip().splitlines()
        first = said[0] if said else "red"
        found = [Finding("error", name, "not as it should be", f) for f in files]
        found = found or [Finding("error", name, first)]
    return found


def ranked(findings: Iterable[Finding], changed: Collection[str]) -> list[Finding]:
    """Return findings in the order of their worth: what this change touched first."""
    every = list(dict.fromkeys(findings))
    return sorted(
        every,
        key=lambda f: (f.level != "error", f.file not in changed, not f.file),
    )


def annotations(findings: Sequence[Finding]) -> list[str]:
    """Return the lines that annotate a run, as many as are shown, and how many not."""
    lines = []
    for level in ("error", "warning"):
        those = [finding for finding in findings if finding.level == level]
        # The last one may have to say how many more there are.
        shown = those if len(those) <= LIMIT else those[: LIMIT - 1]
        lines += [_line(finding) for finding in shown]
        left = len(those) - len(shown)
        if left:
            more = Finding(level, "more", f"{left} more; all are in the summary")
            lines.append(_line(more))
    return lines


def _line(finding: Finding) -> str:
    facts = {"title": finding.title, "file": finding.file, "line": finding.line}
    told = ",".join(f"{name}={_fact(value)}" for name, value in facts.items() if value)
    return f"::{finding.level} {told}::{_data(finding.said)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _fact(value: object) -> str:
    return _data(str(value)).replace(":", "%3A").replace(",", "%2C")


def summary(
    rows: Sequence[Sequence[str]],
    head: Sequence[str],
    facts: Mapping[str, Any],
    findings: Sequence[Finding],
) -> str:
    """Return the step summary in Markdown, cut where the platform would refuse it."""
    lines = [_row(head), _row(["---"] * len(head)), *map(_row, rows), ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", "| where | what | says |", "|---|---|---|"] if findings else []
    size = sum(len(line.encode()) + 1 for line in lines)
    for number, finding in enumerate(findings):
        where = f"{finding.file}:{finding.line}" if finding.line else finding.file
        line = _row([where, finding.title, finding.said])
        size += len(line.encode()) + 1
        if size > SUMMARY:
            lines += ["", f"{len(findings) - number} more do not fit here"]
            break
        lines.append(line)
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    plain = [
        str(c).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
        for c in cells
    ]
    return f"| {' | '.join(plain)} |"
