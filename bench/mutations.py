"""Change a tree at random and compare what the cache says with what a cold run says.

`simple` uses a stand-in for the tools whose answer holds a digest of all that it may
depend on, so an answer about anything older shows; `real` uses the real tools.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from ops import findings, inquiry, judges, report, toolchain
from ops.cache import Store, Verdict
from ops.command import Command
from ops.gates import BY_NAME, Gate
from ops.inquiry import Asking
from ops.shell import Result
from ops.tree import Tree

PER_FILE = Gate(
    name="stand-in",
    argv=("stand-in",),
    inputs=("*.py",),
    excluded=("left/*",),
    config=(".settings", "pyproject.toml#tool.stand"),
    tools=("tool",),
    environment=("WORLD",),
    read_by=("findings",),
    fix="",
    per_file=True,
    layout=True,
)
WHOLE = Gate(
    name="whole",
    argv=("stand-in",),
    inputs=("*.py", "*.toml"),
    config=(".settings",),
    tools=("tool",),
    environment=("WORLD",),
    fix="",
)
REAL = tuple(BY_NAME[n] for n in ("black", "isort", "flake8", "bandit", "imports"))
TEXTS = (
    "X = 1\n",
    "import os\n",
    "import sys\nimport os\n\nprint(os, sys)\n",
    "x = {  'a':1 }\n",
    'exec("1")\n',
    "def f():\n    return 1\n",
    "def (:\n",
    "",
    "from ops import shell\n",
    "# a comment\nX = 1\n",
)


@dataclass
class World:
    """A small tree with all that a verdict may depend on, and what was done to it."""

    root: Path
    other: Path
    lots: random.Random
    environ: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: {"tool": "1", "dep": "1"})
    done: list[str] = field(default_factory=list)

    def files(self) -> list[Path]:
        """Return the Python files of the tree."""
        return sorted(self.root.rglob("*.py"))

    def name(self) -> str:
        """Return a name for a file, taken or not."""
        folder = self.lots.choice(("ops", "ops/deep", "tests", "left"))
        return f"{folder}/m{self.lots.randrange(12)}.py"


def edit(world: World) -> None:
    """Give a file another text."""
    if world.files():
        world.lots.choice(world.files()).write_text(world.lots.choice(TEXTS))


def grow(world: World) -> None:
    """Add a line that was never there."""
    if world.files():
        with world.lots.choice(world.files()).open("a") as file:
            file.write(f"Y = {world.lots.randrange(10**9)}\n")


def create(world: World) -> None:
    """Make a file, or write over one."""
    path = world.root / world.name()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(world.lots.choice(TEXTS))


def rename(world: World) -> None:
    """Give a file another name, also one that was taken."""
    if world.files():
        target = world.root / world.name()
        target.parent.mkdir(parents=True, exist_ok=True)
        world.lots.choice(world.files()).replace(target)


def delete(world: World) -> None:
    """Remove a file."""
    if len(world.files()) > 3:
        world.lots.choice(world.files()).unlink()


def swap(world: World) -> None:
    """Exchange what two files hold."""
    if len(world.files()) > 1:
        one, two = world.lots.sample(world.files(), 2)
        first, second = one.read_bytes(), two.read_bytes()
        one.write_bytes(second)
        two.write_bytes(first)


def chmod(world: World) -> None:
    """Change what may be done with a file."""
    if world.files():
        mode = world.lots.choice((0o644, 0o755, 0o600))
        world.lots.choice(world.files()).chmod(mode)


def touch(world: World) -> None:
    """Change a file's time and nothing else."""
    if world.files():
        moment = world.lots.randrange(10**9)
        os.utime(world.lots.choice(world.files()), (moment, moment))


def setting(world: World) -> None:
    """Change a setting's file, or one table of the shared one."""
    number = world.lots.randrange(4)
    if world.lots.random() < 0.5:
        (world.root / ".settings").write_text(f"width = {number}\n")
        return
    project = world.root / "pyproject.toml"
    begin = project.read_text().partition("[tool.stand]")[0]
    project.write_text(f"{begin}[tool.stand]\nwidth = {number}\n")


def variable(world: World) -> None:
    """Change a variable that the tool reads, or one that it does not."""
    name = world.lots.choice(("WORLD", "ELSEWHERE"))
    world.environ[name] = str(world.lots.randrange(3))


def bump(world: World) -> None:
    """Install another version of the tool, or of what it needs."""
    name = world.lots.choice(("tool", "dep"))
    world.versions[name] = str(world.lots.randrange(4))


def move(world: World) -> None:
    """Go on in a copy of the checkout in another place."""
    shutil.rmtree(world.other, ignore_errors=True)
    shutil.copytree(world.root, world.other)
    world.root, world.other = world.other, world.root


def place(world: World) -> None:
    """Make or remove a folder at the root, which is a module to isort."""
    path = world.root / f"module{world.lots.randrange(3)}"
    if path.exists():
        path.rmdir()
    else:
        path.mkdir()


def poison(world: World) -> None:
    """Damage what the store holds, as a broken disk or program might."""
    files = sorted(Path(os.environ["MLTRADING_CACHE"]).glob("verdicts*.db"))
    some = f"{world.lots.choice('0123456789abcdef')}%"
    turned = "UPDATE verdicts SET value = replace(value, 'red', 'green')"
    for file in files[-1:]:
        with contextlib.closing(sqlite3.connect(file)) as raw:
            raw.execute(f"{turned} WHERE key LIKE ?", (some,))
            raw.commit()


TREE = (edit, grow, create, rename, delete, swap, chmod, touch, place, move, poison)
ALL = (*TREE, setting, variable, bump)


@dataclass(frozen=True)
class Wrong:
    """A cached answer that a cold run contradicts."""

    round: int
    done: tuple[str, ...]
    cached: tuple[Any, ...]
    cold: tuple[Any, ...]


def simple(count: int, seed: int, folder: Path) -> list[Wrong]:
    """Make `count` changes, one before each comparison; return what was wrong."""
    with _world(folder, seed) as world, _stand_in(world):
        return list(_hunt(world, (PER_FILE, WHOLE), count, 1, ALL))


def real(
    count: int, seed: int, folder: Path, make: Callable[[Path], Any]
) -> list[Wrong]:
    """Make `count` changes, eight before each comparison, in a tree made by `make`."""
    with _world(folder, seed, make) as world:
        return list(_hunt(world, REAL, count, 8, TREE))


def _hunt(
    world: World,
    gates: Sequence[Gate],
    count: int,
    at_once: int,
    changes: Sequence[Callable[[World], None]],
) -> Iterator[Wrong]:
    for number in range(-(-count // at_once)):
        chosen = [world.lots.choice(changes) for _ in range(at_once)]
        for change in chosen:
            change(world)
            world.done.append(change.__name__)
        cached = _ask(world, gates, cold=False)
        cold = _ask(world, gates, cold=True)
        if cached != cold:
            yield Wrong(number, tuple(world.done[-20:]), cached, cold)


def _ask(world: World, gates: Sequence[Gate], *, cold: bool) -> tuple[Any, ...]:
    asking = Asking(world.root, not cold, environ=world.environ)
    store = Store.forgetful() if cold else Store.open(warn=lambda text: None)
    with contextlib.closing(store):
        questions = inquiry.look_up(gates, Tree(world.root), store, asking)
        inquiry.answer(questions, store, asking)
        said = [inquiry.said(question) for question in questions]
    # What a crash of import-linter names first is chance, so of it the state is asked.
    return tuple((v.name, v.state, v.findings * (v.name != "imports")) for v in said)


@contextlib.contextmanager
def _world(
    folder: Path, seed: int, make: Callable[[Path], Any] | None = None
) -> Iterator[World]:
    root = folder / "here"
    if make is not None:
        make(root)
    else:
        for name in ("ops/a.py", "ops/b.py", "tests/c.py", "left/d.py"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(TEXTS[0])
        (root / "pyproject.toml").write_text("[tool.other]\n")
        (root / ".settings").write_text("")
    cache = {"MLTRADING_CACHE": str(folder / "cache")}
    # A sequence that can be had again, not a secret.
    lots = random.Random(seed)  # nosec B311
    with mock.patch.dict(os.environ, cache):
        yield World(root, folder / "there", lots, dict(os.environ))


@contextlib.contextmanager
def _stand_in(world: World) -> Iterator[None]:
    def text(path: Path) -> str:
        return path.read_text() if path.is_file() else ""

    def answer(root: Path, environ: Mapping[str, str], path: str) -> str:
        project = text(root / "pyproject.toml").partition("[tool.stand]")[2]
        parts = (
            text(root / path),
            path,
            text(root / ".settings"),
            project,
            environ.get("WORLD", ""),
            *sorted(world.versions.items()),
            *sorted(entry.name for entry in root.iterdir() if entry.is_dir()),
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]

    def started(command: Command, **_: Any) -> Result:
        root = Path(command.cwd or "")
        paths = command.argv[1:]
        said = {path: answer(root, world.environ, path) for path in paths}
        lines = [f"{p}:1:1: E1 {s}" for p, s in said.items() if int(s, 16) % 3]
        return Result(1 if lines else 0, "\n".join(lines), "", 0.001)

    def whole(
        gate: Gate, tree: Tree, environ: Mapping[str, str]
    ) -> tuple[Verdict, bool]:
        texts = [(path, text(tree.root / path)) for path in gate.judges(tree)]
        parts = (texts, text(tree.root / ".settings"), environ.get("WORLD"))
        said = hashlib.sha256(repr((parts, sorted(world.versions.items()))).encode())
        state = "red" if said.digest()[0] % 2 else "green"
        return Verdict(gate.name, state, findings=said.hexdigest()), True

    with (
        mock.patch.object(judges, "shell_run", started),
        mock.patch.object(findings, PER_FILE.name, findings.flake8, create=True),
        mock.patch.dict(judges.WHOLE, {WHOLE.name: whole}),
        mock.patch.object(toolchain, "installed", lambda: dict(world.versions)),
        mock.patch.object(toolchain, "closure", lambda tools: dict(world.versions)),
    ):
        yield


def tell(wrong: Sequence[Wrong]) -> None:
    """Print what was wrong, and what was done before."""
    for one in wrong[:5]:
        report.say(f"round {one.round}: {', '.join(one.done)}", "red")
        report.say(f"  cached {one.cached}\n  cold   {one.cold}")
