"""What the pipeline costs, against the same tools one after another in the same run.

The gates are asked about a clone of this checkout with a large part of pandas' sources
beside it, formatted; the rest is measured on a clone as it is. All is done in a
throw-away folder. Machines are noisy, so ratios are of processor seconds unless they
say wall.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import menu, mutations, whole
from bench.run import chosen, figure, keep_part
from bench.tree import Cost, Tree
from ops import report
from ops.environment import ROOT

SOURCES = ("core/arrays", "core/indexes", "core/groupby", "core/dtypes", "io")
FEWEST_LINES = 100_000
PER_FILE = "black,isort,flake8,bandit"
RUFF = "ruff==0.17.6"
CHANGES = {"simple": 3000, "real": 1000}
LIST = "inv --list to that of an empty tasks.py, wall"


def measure(runs: int, only: str = "") -> dict[str, Any]:
    """Measure every promise of the pipeline, or the named parts of it; keep each.

    `runs` is how often the short ones are measured.

    Raises:
        Usage: there is no part of this name.
    """
    parts = chosen(only, PARTS)
    figures: list[dict[str, Any]] = []
    for name in parts:
        report.say(f"  {name}")
        begun = time.time()
        with tempfile.TemporaryDirectory(prefix="mlt-pipeline-") as folder:
            said = PARTS[name](Path(folder), runs or 15)
        # At once: what a later part says, or that it fails, takes nothing away.
        keep_part("pipeline", name, begun, said)
        figures += said["figures"]
    return {"figures": figures, "parts": parts}


class _Made(Tree):
    """Such a tree with a large part of pandas' sources in it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        report.say("    a large tree, formatted")
        self._fill()
        files = sorted(self.root.rglob("*.py"))
        self.files = len(files)
        self.lines = sum(len(f.read_bytes().splitlines()) for f in files)
        if self.lines < FEWEST_LINES:
            raise SystemExit(f"the tree has {self.lines} lines only")

    def _fill(self) -> None:
        import pandas

        source = Path(pandas.__file__).parent
        for part in SOURCES:
            shutil.copytree(
                source / part,
                self.root / "large" / part,
                ignore=lambda folder, names: {n for n in names if n[-3:] != ".py"}
                - {n for n in names if Path(folder, n).is_dir()},
            )
        self.tool("isort", "-q", "--settings-path", "pyproject.toml", "large")
        self.tool("black", "-q", "--config", "pyproject.toml", "large")
        shutil.rmtree(self.folder / "black", ignore_errors=True)
        # Findings about code that is not ours are silenced, after the work is done.
        settings = self.root / ".flake8"
        text = settings.read_text() + "per-file-ignores = large/*:C,E,F,W\n"
        settings.write_text(text)
        told = self.tool("bandit", "-q", "-r", "-f", "json", "large", codes=(0, 1)).out
        skips = sorted(set(re.findall(r'"test_id": "(B\d+)"', told)))
        project = self.root / "pyproject.toml"
        listed = ", ".join(f'"{name}"' for name in skips)
        old = 'skips = ["B404"'
        if old not in project.read_text():
            raise SystemExit("pyproject.toml has no list of bandit's skips any more")
        project.write_text(
            project.read_text().replace(old, f'skips = [{listed}, "B404"')
        )


def _serial(made: _Made) -> Cost:
    """Run the four tools one after another, as they are typed without us."""
    shutil.rmtree(made.folder / "black", ignore_errors=True)
    every = (
        ("black", "--check", "--diff", "-q", "--config", "pyproject.toml", "."),
        ("isort", "--check-only", "--diff", "--settings-path", "pyproject.toml", "."),
        ("flake8", "--config", ".flake8", "."),
        ("bandit", "-q", "-r", "-f", "json", "-c", "pyproject.toml", *_judged(made)),
    )
    costs = [made.tool(*words, codes=(0, 1)).cost for words in every]
    return Cost(sum(c.cpu for c in costs), sum(c.wall for c in costs))


def _judged(made: _Made) -> list[str]:
    return [n for n in ("ops", "packages", "services", "large", "tasks.py")
            if (made.root / n).exists()]  # fmt: skip


def _quality(folder: Path, runs: int) -> dict[str, Any]:
    made = _Made(folder)
    figures = list(_asked(made, runs))
    return {"figures": figures, "lines": made.lines, "files": made.files}


def _asked(made: _Made, runs: int) -> Iterator[dict[str, Any]]:
    report.say("    the tools one after another")
    serial = _serial(made)
    yield figure(
        "black, isort, flake8, bandit one after another", [serial.cpu], "CPU s"
    )
    report.say("    inv quality, nothing known")
    cold = made.inv("quality", "--only", PER_FILE)
    yield figure(
        "inv quality of these, nothing known, to that",
        [cold.cpu / serial.cpu],
        "×",
        1.1,
    )
    wall = cold.wall / serial.wall
    yield figure("the same, wall", [wall], "×")
    made.inv("quality")
    report.say("    inv quality, nothing changed")
    same, beyond = [], []
    for _ in range(runs):
        bare = made.inv("--list")
        ours = made.inv("quality")
        same.append(ours)
        beyond.append(ours.wall - bare.wall)
    cpu = [cost.cpu for cost in same]
    yield figure("inv quality, nothing changed", cpu, "CPU s")
    yield figure(
        "to the tools one after another", [c / serial.cpu for c in cpu], "×", 1 / 150
    )
    yield figure("beyond inv --list, wall", beyond, "s", 0.1)
    yield from _elsewhere(made, serial)
    yield from _ruff(made, cpu, runs)
    yield from _changed(made, serial, runs)


def _elsewhere(made: _Made, serial: Cost) -> Iterator[dict[str, Any]]:
    there = made.folder / "elsewhere"
    shutil.copytree(made.root, there, copy_function=shutil.copyfile, symlinks=True)
    first = made.inv("quality", root=there)
    ratio = first.cpu / serial.cpu
    yield figure("its first run in a clone in another folder", [ratio], "×", 1 / 150)
    shutil.rmtree(there)


def _ruff(made: _Made, ours: Sequence[float], runs: int) -> Iterator[dict[str, Any]]:
    place = made.folder / "ruff"
    made.run(("uv", "venv", "-q", str(place)))
    python = str(place / "bin" / "python")
    made.run(("uv", "pip", "install", "-q", "--python", python, RUFF))
    ruff = str(place / "bin" / "ruff")
    check = (ruff, "check", "--select", "E,F,W,I,S,C90", "-q", ".")
    form = (ruff, "format", "--check", "-q", ".")
    warm = []
    for number in range(runs + 1):
        costs = [made.run(argv, codes=(0, 1)).cost.cpu for argv in (check, form)]
        if number:
            warm.append(sum(costs))
    middle = sorted(warm)[len(warm) // 2]
    yield figure("ruff check and format --check, warm", warm, "CPU s")
    ratios = [cost / middle for cost in ours]
    yield figure("inv quality, nothing changed, to ruff", ratios, "×", 1.5)


def _changed(made: _Made, serial: Cost, runs: int) -> Iterator[dict[str, Any]]:
    small = [
        path
        for path in sorted((made.root / "large").rglob("*.py"))
        if 40 < len(path.read_bytes().splitlines()) < 120
    ]
    costs = []
    # The same file each time in the same run of the bench; no secret.
    lots = random.Random(1)  # nosec B311
    for number in range(max(runs // 3, 3)):
        path = lots.choice(small)
        path.write_text(path.read_text() + f"\n\n# Change {number}.\n")
        costs.append(made.inv("quality").cpu / serial.cpu)
    yield figure("one small file changed", costs, "×", 1 / 30)


def _build(folder: Path, runs: int) -> dict[str, Any]:
    from ops import artefact

    tree = Tree(folder)
    out = folder / "built"
    theirs = sum(
        tree.tool("build", "--outdir", str(out), package).cost.cpu
        for package in artefact.PACKAGES
    )
    code = (
        "import sys; from pathlib import Path; from ops import artefact;"
        "[artefact.build_package(Path('.'), package, Path(sys.argv[1]),"
        " ('--wheel', '--sdist')) for package in artefact.PACKAGES]"
    )
    ours = tree.run((sys.executable, "-c", code, str(out / "ours")), PYTHONPATH=".")
    whole = tree.inv("build", "--allow-dirty").cpu
    same = [tree.inv("build", "--allow-dirty").cpu for _ in range(max(runs // 3, 3))]
    return {
        "figures": [
            figure("python -m build of each package", [theirs], "CPU s"),
            figure(
                "wheels and sdists by inv build, to that",
                [ours.cost.cpu / theirs],
                "×",
                0.35,
            ),
            figure("inv build, with the proof by installing", [whole], "CPU s"),
            figure("inv build, nothing changed", same, "CPU s"),
        ]
    }


def _changes(folder: Path, runs: int) -> dict[str, Any]:
    from tests.ops.checkouts import checkout

    seed = int(time.time())
    report.say(f"    seed {seed}")
    figures = []
    for kind, count in CHANGES.items():
        place = folder / f"changes-{kind}"
        place.mkdir()
        if kind == "simple":
            wrong = mutations.simple(count, seed, place)
        else:
            wrong = mutations.real(count, seed, place, checkout)
        mutations.tell(wrong)
        tools = "a stand-in" if kind == "simple" else "the real tools"
        what = f"wrong answers after {count} changes, {tools}"
        figures.append(figure(what, [len(wrong)], "", 0))
    return {"figures": figures}


def _silent(folder: Path, runs: int) -> dict[str, Any]:
    """Count the damages to the dependency check's world that would pass."""
    argv = (sys.executable, "-m", "pytest", "-q", "tests/ops/test_advisories.py", "-k")
    chosen = "silently or no_pass or died or canary or broken or missing or absent"
    ended = subprocess.run((*argv, chosen), cwd=ROOT, capture_output=True, text=True)
    tail = ended.stdout.splitlines()[-1] if ended.stdout else "0 passed"
    failed = re.search(r"(\d+) failed", tail)
    passed = re.search(r"(\d+) passed", tail)
    if not passed:
        raise SystemExit(f"no damage was tried: {tail}")
    count = int(failed[1]) if failed else 0
    what = f"silent passes of the dependency check, of {int(passed[1]) + count}"
    return {"figures": [figure(what, [count], "", 0)]}


def _list(folder: Path, runs: int) -> dict[str, Any]:
    ratio = menu.measure(runs)["figures"][-1]
    return {"figures": [{**ratio, "what": LIST}]}


PARTS: Mapping[str, Callable[[Path, int], dict[str, Any]]] = {
    "quality": _quality,
    "build": _build,
    "ci": whole.ci,
    "tests": whole.tests,
    "commit": whole.commit,
    "changes": _changes,
    "silent": _silent,
    "list": _list,
}
