"""Read what the per-file tools print: which file has which finding.

Pure: text in, text out. A tool whose words can't be attributed to files has crashed,
and one that was killed has not said all it knows. That is a finding about the run and
never kept as a verdict about a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ops.shell import Result


@dataclass(frozen=True, slots=True)
class Found:
    """Findings per file as text, and what a report needs of each file."""

    text: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    understood: bool = True


def black(result: Result, paths: Sequence[str], root: str) -> Found:
    """Read `black --check --diff`: a diff per file, or why it can't be parsed."""
    found = _diffs(result.out, paths, lambda line: _after(line, "--- ").split("\t")[0])
    path = ""
    for line in result.err.splitlines():
        if line.startswith("error"):
            # `cannot format PATH: why`, or `cannot parse …: PATH:1:4` and the place.
            named = re.match(r"error: cannot (?:format|parse\b.*?:) (.+?):", line)
            path = named[1] if named else ""
            if path not in paths:
                return Found(understood=False)
            found[path] = line
        elif path:
            found[path] += f"\n{line}"
    return Found(found, understood=_ended(result, bool(found), 1, 123))


def isort(result: Result, paths: Sequence[str], root: str) -> Found:
    """Read `isort --check-only --diff`, which prints absolute paths."""

    def named(line: str) -> str:
        return _after(line, "--- ").split(":before")[0].removeprefix(f"{root}/")

    found = _diffs(result.out, paths, named)
    ended = _ended(result, bool(found), 1)
    # One that it can't decode it leaves out, with a warning and no other sign.
    for path, why in re.findall(r"Unable to parse file (.+?) due to (.+)", result.err):
        if path not in paths:
            return Found(understood=False)
        found[path] = f"{path}: can't be read: {why}"
    return Found(found, understood=ended)


def flake8(result: Result, paths: Sequence[str], root: str) -> Found:
    """Read flake8's `path:line:column: code text` lines."""
    found: dict[str, str] = {}
    for line in result.out.splitlines():
        path = line.split(":", 1)[0].removeprefix("./")
        if path not in paths:
            return Found(found, understood=False)
        found[path] = f"{found[path]}\n{line}" if path in found else line
    return Found(found, understood=_ended(result, bool(found), 1))


def bandit(result: Result, paths: Sequence[str], root: str) -> Found:
    """Read bandit's JSON report; a file that it could not parse is a finding."""
    try:
        document = json.loads(result.out)
        found: dict[str, list[str]] = {}
        results: dict[str, list[Any]] = {path: [] for path in paths}
        for item in document["errors"]:
            path = item["filename"].removeprefix("./")
            found.setdefault(path, []).append(f"{path}: {item['reason']}")
        for item in document["results"]:
            path = item["filename"] = item["filename"].removeprefix("./")
            results[path].append(item)
            found.setdefault(path, []).append(
                f"{path}:{item['line_number']}: {item['test_id']}"
                f" {item['issue_severity'].lower()}: {item['issue_text']}"
            )
        scanned = {name.removeprefix("./") for name in document["metrics"]}
    except (ValueError, KeyError, TypeError):
        return Found(understood=False)
    text = {path: "\n".join(lines) for path, lines in found.items()}
    accounted = set(paths) <= scanned | set(found)
    return Found(text, results, understood=accounted and _ended(result, None, 1))


def _ended(result: Result, found: bool | None, *codes: int) -> bool:
    """Say whether a tool came to its end, by the codes that it gives to findings.

    One that was killed or ran out of time may have printed some of what it found.
    """
    if result.timed_out or result.code not in (0, *codes):
        return False
    return found is None or found == (result.code != 0)


def _after(line: str, prefix: str) -> str:
    return line.removeprefix(prefix)


def _diffs(
    text: str, paths: Sequence[str], named: Callable[[str], str]
) -> dict[str, str]:
    """Split a run of unified diffs at the headers that name one of our files."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if line.startswith("--- ") and named(line) in paths:
            current = found.setdefault(named(line), [])
            line = f"--- {named(line)}"
        elif line.startswith("+++ ") and len(current) == 1:
            line = f"+++ {_after(current[0], '--- ')}"
        current.append(line)
    return {path: "\n".join(lines) for path, lines in found.items()}
