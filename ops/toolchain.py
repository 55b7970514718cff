"""What is installed beside us: the versions that a verdict depends on."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

# Groups of entry points by which a distribution changes what a tool says.
PLUGINS = {
    "flake8": ("flake8.extension", "flake8.report"),
    "bandit": ("bandit.plugins", "bandit.blacklists", "bandit.formatters"),
}


def installed() -> dict[str, str]:
    """Return the version of each installed distribution.

    Reads folder names: importlib.metadata costs more than a run without changes.
    """
    return {name: version for name, (version, _) in _distributions().items()}


def closure(tools: Iterable[str]) -> dict[str, str]:
    """Return the versions of tools, of all that they need, and of their plugins.

    Whoever needs it often keeps it by what `installed` says: it reads metadata.
    """
    every = _distributions()
    todo = list(tools)
    for tool in tools:
        for name, (_, folder) in every.items():
            entries = _read(folder / "entry_points.txt")
            if any(f"[{group}]" in entries for group in PLUGINS.get(tool, ())):
                todo.append(name)
    found: dict[str, str] = {}
    while todo:
        name = todo.pop()
        if name in found or name not in every:
            continue
        version, folder = every[name]
        found[name] = version
        todo += required(_read(folder / "METADATA"))
    return found


def required(metadata: str) -> list[str]:
    """Return the names that a distribution's METADATA asks for, extras left out."""
    head = metadata.partition("\n\n")[0]
    return [
        normal(match[1])
        for match in re.finditer(r"^Requires-Dist: *([\w.-]+)(.*)$", head, re.M)
        if "extra ==" not in match[2]
    ]


def normal(name: str) -> str:
    """Return a distribution's name as the lock writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def metadata() -> Iterator[tuple[str, str, str]]:
    """Yield (name, version, METADATA) of each installed distribution."""
    for name, (version, folder) in _distributions().items():
        yield name, version, _read(folder / "METADATA")


def program(name: str, environ: Mapping[str, str]) -> str:
    """Return the path of a program: `uv run` says where its own uv is."""
    return environ.get(name.upper()) or shutil.which(name) or name


def _distributions() -> dict[str, tuple[str, Path]]:
    found: dict[str, tuple[str, Path]] = {}
    for place in sys.path:
        if place.endswith("site-packages") and os.path.isdir(place):
            for folder in os.listdir(place):
                if folder.endswith(".dist-info"):
                    tool, _, version = folder[:-10].partition("-")
                    found.setdefault(normal(tool), (version, Path(place, folder)))
    return found


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
