"""What releases and the front door wrote, merged and prefixed."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ops import environment as environments
from ops import report
from ops.errors import Usage
from ops.release import parse_number


def show(
    name: str,
    *,
    release: str | None = None,
    lines: int = 50,
    follow: bool = False,
    grep: str = "",
) -> None:
    """Print the last lines of each log, then new ones as they come with `follow`."""
    environment = environments.load(name)
    root = environment.state
    number = None if release is None else parse_number(release, "--release")
    files = _files(root, number)
    if not files:
        raise Usage(
            "there is no log" + (f" of v{number}" if number else ""),
            where=str(root),
            allowed=", ".join(_files(root, None)) or "nothing was ever started",
            next=f"inv status --env {name}",
        )
    width = max(len(prefix) for prefix in files)
    for prefix, path in files.items():
        for line in _last(path, lines):
            _print(prefix.ljust(width), line, grep)
    if follow:
        for prefix, line in _follow(root, number):
            if not _print(prefix.ljust(width), line, grep):
                return


def _files(root: Path, release: int | None) -> dict[str, Path]:
    """Return the logs by their prefix: the front door's, then releases in order."""
    found = {}
    front = root / "front" / "front.log"
    if release is None and front.exists():
        found["front"] = front
    logs = sorted(
        root.glob("releases/v*/app.log"), key=lambda path: int(path.parent.name[1:])
    )
    for path in logs:
        if release is None or path.parent.name == f"v{release}":
            found[path.parent.name] = path
    return found


def _last(path: Path, lines: int) -> list[str]:
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 400 * max(lines, 1)))
        text = file.read().decode(errors="replace").splitlines()
    return text[max(0, len(text) - lines) :]


def _follow(root: Path, number: int | None) -> Iterator[tuple[str, str]]:
    """Yield new lines of all logs, those of releases started later among them."""
    opened: dict[str, BinaryIO] = {}
    part: dict[str, bytes] = {}
    first = True
    while True:
        for prefix, path in _files(root, number).items():
            if prefix not in opened:
                opened[prefix] = path.open("rb")
                part[prefix] = b""
                if first:
                    opened[prefix].seek(0, os.SEEK_END)
        first, quiet = False, True
        for prefix, file in opened.items():
            text = part[prefix] + file.read()
            *whole, part[prefix] = text.split(b"\n")
            for line in whole:
                quiet = False
                yield prefix, line.decode(errors="replace")
        if quiet:
            # Files can't be waited for with the standard library; 0.2 s is instant
            # to a reader.
            select.select([], [], [], 0.2)


def _print(prefix: str, line: str, grep: str) -> bool:
    return report.data(f"{prefix} | {line}") if grep in line else True
