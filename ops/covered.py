"""Keep which branches each test file executed, and report on all of them together.

A test file that need not run again still counts: what it executed is kept with its
verdict, and its verdict falls when a line of that changes.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

Arcs = Mapping[str, Iterable[tuple[int, int]]]


def by_context(data: Path, root: Path) -> dict[str, dict[str, list[tuple[int, int]]]]:
    """Return context to file to branches out of coverage's data file.

    Contexts are test files, "" is what was executed while tests were collected.
    """
    found: dict[str, dict[str, list[tuple[int, int]]]] = {}
    inside = f"{root}{os.sep}"
    question = (
        "SELECT context.context, file.path, arc.fromno, arc.tono FROM arc"
        " JOIN context ON context.id = arc.context_id"
        " JOIN file ON file.id = arc.file_id"
    )
    with contextlib.closing(sqlite3.connect(data)) as opened:
        for context, path, begin, end in opened.execute(question):
            files = found.setdefault(context, {})
            files.setdefault(path.removeprefix(inside), []).append((begin, end))
    return found


def packed(arcs: Arcs) -> str:
    """Return branches as text for the store."""
    text = json.dumps({path: sorted(pairs) for path, pairs in arcs.items()})
    return base64.b85encode(zlib.compress(text.encode(), 6)).decode()


def unpacked(text: str) -> dict[str, list[tuple[int, int]]]:
    """Return the branches that `packed` made text of."""
    known = json.loads(zlib.decompress(base64.b85decode(text)))
    return {path: [(a, b) for a, b in pairs] for path, pairs in known.items()}


def report(
    root: Path, every: Iterable[Arcs], measured: Iterable[str], suffix: str = ""
) -> float:
    """Write reports/coverage.xml and reports/coverage/; return the percentage.

    `measured` are the files that count even when nothing of them was executed.
    """
    import coverage

    together: dict[str, set[tuple[int, int]]] = {
        str(root / path): set() for path in measured
    }
    for arcs in every:
        for path, pairs in arcs.items():
            together.setdefault(str(root / path), set()).update(pairs)
    file = root / f".coverage{suffix}"
    file.unlink(missing_ok=True)
    data = coverage.CoverageData(basename=str(file))
    data.add_arcs({path: pairs for path, pairs in together.items()})
    data.touch_files(together)
    data.close()
    config = root / "pyproject.toml"
    folder = root / "reports"
    # Reports name files relative to where they are written.
    with contextlib.chdir(root), open(os.devnull, "w") as nowhere:
        said = coverage.Coverage(data_file=str(file), config_file=str(config))
        said.load()
        said.xml_report(outfile=str(folder / f"coverage{suffix}.xml"), skip_empty=True)
        said.html_report(directory=str(folder / f"coverage{suffix}"), skip_empty=True)
        return round(said.report(file=nowhere, skip_empty=True), 2)
