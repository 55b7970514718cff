"""Part the test files among machines, by how long each takes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ops.errors import Usage

# Every machine must part alike, so the times are a file of the tree.
TIMES = "tests/times.json"


def parse(text: str) -> tuple[int, int]:
    """Return (which, of how many) of a shard such as "1/3".

    Raises:
        Usage: it is not one.
    """
    match = re.fullmatch(r"([1-9][0-9]?)/([1-9][0-9]?)", text)
    if not match or int(match[1]) > int(match[2]):
        raise Usage(f'"{text}" is no shard', where="--shard", allowed="such as 1/3")
    return int(match[1]), int(match[2])


def part(
    files: Sequence[str], times: Mapping[str, float], count: int
) -> list[list[str]]:
    """Return the files in so many parts that take about equally long.

    The longest goes first, each to the part that has least; a file without a time
    takes as long as the middle one.
    """
    known = sorted(times[file] for file in files if file in times)
    middle = known[len(known) // 2] if known else 1.0
    parts: list[list[str]] = [[] for _ in range(count)]
    loads = [0.0] * count
    for file in sorted(files, key=lambda file: (-times.get(file, middle), file)):
        least = loads.index(min(loads))
        parts[least].append(file)
        loads[least] += times.get(file, middle)
    return [sorted(files) for files in parts]


def times(root: Path) -> dict[str, float]:
    """Return the seconds of each test file as recorded in the tree."""
    file = root / TIMES
    return json.loads(file.read_text()) if file.is_file() else {}


def record(root: Path, taken: Mapping[str, float]) -> None:
    """Write the seconds of test files into the tree, rounded so that few lines move."""
    rounded = {file: round(seconds, 1) for file, seconds in sorted(taken.items())}
    (root / TIMES).write_text(json.dumps(rounded, indent=2) + "\n")
