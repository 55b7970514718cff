"""Show how far a long job is: a bar on a terminal, lines elsewhere; with time left."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, TextIO

# On a log, so often at most; the first, the last and what failed always.
EVERY_S = 1.0


class Progress(Protocol):
    """What a job tells of itself: `begin` once, then `step` for each thing done."""

    def begin(self, todo: int, of: int) -> None:
        """Say that `todo` things are to be done, the last ones of `of`."""

    def step(self, name: str, text: str) -> None:
        """Say that one is done, and how."""

    def __enter__(self) -> Progress: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Quiet:
    """Show nothing."""

    def begin(self, todo: int, of: int) -> None:
        """Show nothing."""

    def step(self, name: str, text: str) -> None:
        """Show nothing."""

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        """Show nothing."""


class Lines(Quiet):
    """A line for each second in which something was done."""

    def __init__(
        self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say = say
        self._clock = clock
        self._todo = self._of = self._done = 0
        self._begun = self._said = float("-inf")

    def begin(self, todo: int, of: int) -> None:
        """Remember what is to be done."""
        self._todo, self._of, self._done = todo, of, 0
        self._begun = self._clock()
        if of > todo:
            self._say(f"{of - todo} of {of} were done before")

    def step(self, name: str, text: str) -> None:
        """Print a line unless one was printed just now."""
        self._done += 1
        at = self._clock()
        last = self._done == self._todo
        if at - self._said < EVERY_S and not last and not text.startswith("failed"):
            return
        self._said = at
        left = eta(at - self._begun, self._done, self._todo)
        number = self._of - self._todo + self._done
        rest = f", {duration(left)} left" if left >= 1 else ""
        self._say(f"{number}/{self._of} {name}: {text}{rest}")


class Bar(Lines):
    """A bar that is drawn over; what failed stays as a line above it."""

    def __init__(self, say: Callable[[str], None], rich: Any, stream: TextIO) -> None:
        super().__init__(say)
        console = rich.console.Console(file=stream)
        self._drawn = rich.progress.Progress(
            rich.progress.TextColumn("{task.description:<12}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
            console=console,
        )
        self._task: Any = None

    def begin(self, todo: int, of: int) -> None:
        """Draw the bar, as far as it was before."""
        self._task = self._drawn.add_task("", total=of, completed=of - todo)

    def step(self, name: str, text: str) -> None:
        """Move the bar."""
        if text.startswith("failed"):
            self._drawn.console.print(f"{name}: {text}", markup=False, highlight=False)
        self._drawn.update(self._task, advance=1, description=name)

    def __enter__(self) -> Bar:
        self._drawn.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._drawn.stop()


def shown(say: Callable[[str], None], stream: TextIO | None = None) -> Progress:
    """Return a bar where `stream` is a terminal and rich is there, else lines.

    The stream is the error output of now if none is given.
    """
    stream = stream or sys.stderr
    if not stream.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return Lines(say)
    try:
        import rich.console
        import rich.progress
    except ImportError:
        return Lines(say)
    return Bar(say, rich, stream)


def eta(elapsed: float, done: int, todo: int) -> float:
    """Return the seconds that are left, if the rest takes as long as what is done."""
    return elapsed / done * (todo - done) if done else 0.0


def duration(seconds: float) -> str:
    """Return seconds as people say them: 40 s, 3 min 5 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
