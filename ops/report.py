"""Every line that people and CI see.

Data goes to standard output, talk to standard error. Readable without colour.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from ops.errors import OpsError

_CODES = {"green": "32", "red": "31", "yellow": "33", "dim": "2", "bold": "1"}
_CODES |= {"blue": "34", "magenta": "35", "cyan": "36"}
_MARKS = {
    "ok": ("✓", "green"),
    "failed": ("✗", "red"),
    "cached": ("✓", "dim"),
    "warned": ("!", "yellow"),
    "skipped": ("·", "dim"),
}


def colour(text: str, name: str, *, stream: Any = None) -> str:
    """Return the text in a colour where the stream is a terminal that wants it."""
    stream = stream or sys.stderr
    wanted = stream.isatty() or os.environ.get("FORCE_COLOR")
    if not wanted or os.environ.get("NO_COLOR") or name not in _CODES:
        return text
    return f"\x1b[{_CODES[name]}m{text}\x1b[0m"


class _Holding(threading.local):
    lines: list[Callable[[], object]] | None = None


_holding = _Holding()


@contextlib.contextmanager
def held(lines: list[Callable[[], object]]) -> Iterator[None]:
    """Put what this thread prints meanwhile into a list; calling them prints them."""
    _holding.lines = lines
    try:
        yield
    finally:
        _holding.lines = None


def say(text: str = "", tone: str = "") -> None:
    """Print talk: progress, plans, notices."""
    if _holding.lines is not None:
        _holding.lines.append(lambda: say(text, tone))
        return
    try:
        line = colour(text, tone) if tone else text
        # Text and end in one piece: several hosts are told of at once.
        print(f"{line}\n", end="", file=sys.stderr, flush=True)
    except BrokenPipeError:
        # Nobody listens any more; that must not stop a deploy half-way.
        _silence(sys.stderr)


def data(text: str) -> bool:
    """Print data for the next program in a pipe; False when it reads no more."""
    if _holding.lines is not None:
        _holding.lines.append(lambda: data(text))
        return True
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The reader (head, say) has what it wanted.
        _silence(sys.stdout)
        return False
    return True


def listened() -> bool:
    """Say whether somebody still reads our data, without writing any."""
    try:
        ends = select.poll()
        # A pipe without a reader, or a terminal that is gone, is an event by itself.
        ends.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):
        return True
    return not ends.poll(0)


def data_table(rows: Sequence[Sequence[str]], *head: Any, **options: Any) -> None:
    """Print a table as data, each line no longer than a terminal is wide."""
    data(table(rows, *head, clip=True, stream=sys.stdout, **options))


def _silence(stream: TextIO) -> None:
    """Let all that is still written to a stream go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


_printed: list[str] = []


def as_json(value: Any) -> None:
    """Print the one JSON document of this command."""
    _printed.append("json")
    data(json.dumps(value, indent=2, sort_keys=True, default=str))


def error(problem: OpsError, *, as_json: bool = False) -> None:
    """Print what, where, what is allowed and what to type next.

    As JSON only where no document was printed yet: two are none to a reader.
    """
    if as_json and not _printed:
        data(json.dumps({"error": problem.as_json()}, indent=2, sort_keys=True))
        return
    say()
    say(f"{problem.word}: {problem.what}", "red")
    for name in ("where", "allowed", "detail", "next"):
        text = getattr(problem, name)
        if text:
            first, *rest = text.splitlines()
            say(f"  {name + ':':<9}{first}", "bold" if name == "next" else "")
            for line in rest:
                say(f"           {line}")


def table(
    rows: Sequence[Sequence[str]],
    head: Sequence[str] = (),
    *,
    right: Sequence[int] = (),
    tones: Mapping[int, str] | None = None,
    clip: bool = False,
    stream: Any = None,
) -> str:
    """Return rows as aligned columns, in colours where `stream` (stderr) wants them.

    `right` columns are aligned to the right; `tones` colours rows. `clip` cuts lines
    that a terminal would break; a pipe or a file gets them whole.
    """
    screen = (stream or sys.stderr).isatty()
    longest = shutil.get_terminal_size().columns if screen else 0
    every = [list(head)] if head else []
    every += [list(row) for row in rows]
    if not every:
        return ""
    widths = [max(len(row[i]) for row in every) for i in range(len(every[0]))]
    lines = []
    for number, row in enumerate(every):
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        line = "  " + "  ".join(cells).rstrip()
        if clip and 0 < longest < len(line):
            line = f"{line[: longest - 1]}…"
        if head and number == 0:
            line = colour(line, "dim", stream=stream)
        elif tones and number - bool(head) in tones:
            line = colour(line, tones[number - bool(head)], stream=stream)
        lines.append(line)
    return "\n".join(lines)


def seconds(value: float | None) -> str:
    """Return a duration as people read it: `31 ms`, `2.4 s`, `3 min 5 s`, `2 d 4 h`."""
    if value is None:
        return ""
    if value < 0.0995:
        return f"{value * 1000:.0f} ms"
    if value < 59.95:
        return f"{value:.2f} s" if value < 9.995 else f"{value:.1f} s"
    whole = round(value)
    for size, unit, small, smaller in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            break
    return f"{whole // size} {unit} {whole % size // small} {smaller}"


def mark(state: str, *, stream: Any = None) -> str:
    """Return the sign of a state, in its colour."""
    sign, tone = _MARKS[state]
    return colour(sign, tone, stream=stream)


def step(state: str, name: str, text: str, took: float | None = None) -> None:
    """Print one finished step of a plan."""
    say(f"  {mark(state)} {name:<12} {seconds(took):>8}  {text}")


def indent(text: str, by: int = 4) -> str:
    """Return the text with every line moved to the right."""
    return "\n".join(" " * by + line for line in text.splitlines())
