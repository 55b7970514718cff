"""The progress of a run: a live table on a terminal, a line for each step elsewhere.

The library that draws is imported on a terminal only: it costs as much as a run in
which nothing changed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from ops import report
from ops.scheduler import Job

_WORST = ("ok", "warned", "failed")
_SIGNS = {"ok": ("✓", "green"), "warned": ("!", "yellow"), "failed": ("✗", "red")}


@dataclass(slots=True)
class _Step:
    jobs: int
    begun: float | None = None
    ended: int = 0
    state: str = "ok"
    took: float = 0.0


@dataclass
class Board:
    """What is known of each step while the run goes on."""

    steps: dict[str, _Step]
    update: Callable[[], None] | None = None
    lines: bool = False
    _guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def tick(self) -> Callable[[], None] | None:
        """What is to be called now and then, if anything."""
        return self.update

    def begun(self, job: Job) -> None:
        """Note that a job begins; called in the job's own thread."""
        with self._guard:
            step = self.steps[job.name]
            step.begun = step.begun or time.monotonic()

    def ended(self, job: Job, state: str) -> None:
        """Note that a job ended as `ok`, `warned` or `failed`; print a whole step."""
        step = self.steps[job.name]
        step.ended += 1
        step.state = max(step.state, state, key=_WORST.index)
        step.took = time.monotonic() - (step.begun or time.monotonic())
        if self.lines and step.ended == step.jobs:
            report.step(step.state, job.name, "", step.took)


def on_terminal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Say whether lines that were printed can be drawn over."""
    return stream.isatty() and environ.get("TERM", "dumb") != "dumb"


@contextlib.contextmanager
def drawn(jobs: Sequence[Job], shown: bool) -> Iterator[Board]:
    """Draw the progress of jobs while the block runs; nothing unless it is shown."""
    names = [job.name for job in jobs]
    board = Board({name: _Step(names.count(name)) for name in names})
    if not shown:
        yield board
    elif not on_terminal(sys.stderr, os.environ):
        board.lines = True
        yield board
    else:
        with _live(board) as board.update:
            yield board


@contextlib.contextmanager
def _live(board: Board) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.live import Live

    begun = time.monotonic()
    console = Console(stderr=True)
    with Live(
        _table(board, begun), console=console, auto_refresh=False, transient=True
    ) as live:
        yield lambda: live.update(_table(board, begun), refresh=True)


def _table(board: Board, begun: float) -> Any:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, step in board.steps.items():
        done = step.ended == step.jobs
        sign, tone = _SIGNS[step.state] if done or step.state != "ok" else ("·", "dim")
        table.add_row(
            f"  [{tone}]{sign}[/]",
            name,
            ProgressBar(step.jobs, step.ended, width=20),
            report.seconds(_elapsed(step)),
        )
    table.add_row("", "", "", report.seconds(time.monotonic() - begun))
    return table


def _elapsed(step: _Step) -> float | None:
    if step.begun is None:
        return None
    return step.took if step.ended == step.jobs else time.monotonic() - step.begun
