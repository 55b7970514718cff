"""A clone in a throw-away folder, and what commands in it cost."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.checkout import Checkout


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command took: processor and wall seconds."""

    cpu: float
    wall: float


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended: its costs and what it printed."""

    cost: Cost
    out: str


class Tree:
    """A clone in a throw-away folder, and commands that run in it.

    `python` is the interpreter whose tools and menu are run; ours if it is not given.
    """

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self.folder, self.python = folder, python
        checkout = Checkout(folder)
        self.root = checkout.root
        self.environ = checkout.environ() | {"BLACK_CACHE_DIR": str(folder / "black")}
        self.environ |= {"MLTRADING_CACHE": str(folder / "verdicts")}
        # Tools that may not keep their byte-code cost more than they have to.
        self.environ.pop("PYTHONDONTWRITEBYTECODE", None)

    def tool(self, name: str, *words: str, codes: Sequence[int] = (0,)) -> Ended:
        """Run a tool of this environment in the tree."""
        return self.run((self.python, "-m", name, *words), codes=codes)

    def inv(self, *words: str, root: Path | None = None) -> Cost:
        """Run a task of the tree's own menu."""
        return self.run((self.python, "-m", "invoke", *words), root=root).cost

    def run(
        self,
        argv: Sequence[str],
        *,
        codes: Sequence[int] = (0,),
        root: Path | None = None,
        **environ: str,
    ) -> Ended:
        """Run a command to its end; it must end with one of the codes."""
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        ended = subprocess.run(
            argv,
            cwd=root or self.root,
            env=self.environ | environ,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        wall = time.monotonic() - begun
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if ended.returncode not in codes:
            sys.stderr.write(ended.stdout[-3000:] + ended.stderr[-3000:])
            raise SystemExit(f"{' '.join(argv[:6])} ended with {ended.returncode}")
        cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        return Ended(Cost(cpu, wall), ended.stdout)
