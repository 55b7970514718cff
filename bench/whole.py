"""What `inv ci`, the tests and a commit cost, against plain tools where there are some.

The whole suite takes minutes and mostly waits for deploys, so here the tests are those
without a marker: the clone's own pytest settings leave the others out, for pytest and
for the menu alike.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from bench.run import figure
from bench.tree import Tree
from ops import artefact, report, suite

# Judged by bandit and import-linter, as in the table of gates.
OURS = ("ops", "packages", "services", "tasks.py")
# One that few smoke tests rest on, and one that imports all of the dashboard.
CHANGED = {
    "the engine": "ops/trend.py",
    "the dashboard": "services/dashboard/src/mltrading_dashboard/__init__.py",
}
HOOKS = "from pathlib import Path; from ops import machine; machine.hooks(Path('.'))"


class _Checkout(Tree):
    """A clone with an environment of its own, in which only unit tests are left."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # Byte-code of what is installed is there before anything is measured.
        self.run(("uv", "sync", "--frozen", "--quiet", "--compile-bytecode"))
        self.python = str(self.root / ".venv" / "bin" / "python")
        project = self.root / "pyproject.toml"
        text = project.read_text()
        old = 'addopts = "'
        if text.count(old) != 1:
            raise SystemExit("pyproject.toml has no options of pytest any more")
        project.write_text(text.replace(old, f"{old}-m '{suite.UNIT}' "))

    def collected(self) -> int:
        """Return how many tests there are; what pytest imports is compiled then."""
        told = self.tool("pytest", "-q", "--collect-only").out.strip().splitlines()
        return int(told[-1].split("/")[0])


def ci(folder: Path, runs: int) -> dict[str, Any]:
    """Measure `inv ci` in which nothing changed against the plain tools.

    Those are the gates that are tools of others, the tests with their coverage, and
    `python -m build` of each package. The client of the dependency gate can't start
    without a network, so it is left out, as are our own gates and the proof by
    installing: all that `inv ci` does beside them counts against it.
    """
    tree = _Checkout(folder)
    count = tree.collected()
    report.say(f"    the tools one after another, {count} tests")
    serial = _serial(tree)
    report.say("    inv ci, nothing known")
    cold = tree.inv("ci").cpu
    report.say("    inv ci, nothing changed")
    same = [tree.inv("ci") for _ in range(max(runs, 3))]
    cpu = [cost.cpu for cost in same]
    return {
        "figures": [
            figure("gates, unit tests, builds by plain tools", [serial], "CPU s"),
            figure("inv ci of these, nothing known, to that", [cold / serial], "×"),
            figure("inv ci, nothing changed", cpu, "CPU s"),
            figure("the same, wall", [cost.wall for cost in same], "s"),
            figure(
                "inv ci, nothing changed, to the plain tools",
                [c / serial for c in cpu],
                "×",
                1 / 50,
            ),
        ],
        "ci_tests": f"{count} unit tests of the suite",
    }


def _serial(tree: Tree) -> float:
    shutil.rmtree(tree.folder / "black", ignore_errors=True)
    out = str(tree.folder / "built")
    files = ["."]
    every = (
        ("black", "--check", "--diff", "-q", "--config", "pyproject.toml", *files),
        ("isort", "--check-only", "--settings-path", "pyproject.toml", *files),
        ("flake8", "--config", ".flake8", *files),
        ("bandit", "-q", "-r", "-f", "json", "-c", "pyproject.toml", *OURS),
        ("pytest", "-q", "--cov", "--cov-report=xml"),
        *(("build", "--outdir", out, package) for package in artefact.PACKAGES),
    )
    took = sum(tree.tool(*words).cost.cpu for words in every)
    layers = Path(tree.python).with_name("lint-imports")
    for argv in (
        (str(layers), "--config", "pyproject.toml", "--no-cache"),
        ("uv", "lock", "--check", "--offline"),
    ):
        took += tree.run(argv).cost.cpu
    return took


def tests(folder: Path, runs: int) -> dict[str, Any]:
    """Measure the tests in forked workers against one process of plain pytest.

    Both run all that is left in the clone, without coverage, pair by pair.
    """
    tree = _Checkout(folder)
    count = tree.collected()
    report.say(f"    {count} tests, by pytest and by inv test")
    ratios, walls, plain = [], [], []
    # So that what only tests import is compiled, too.
    tree.tool("pytest", "-q")
    for _ in range(max(runs // 5, 3)):
        theirs = tree.tool("pytest", "-q").cost
        ours = tree.inv("test", "--unit", "--no-cache")
        plain.append(theirs.cpu)
        ratios.append(ours.cpu / theirs.cpu)
        walls.append(ours.wall)
    return {
        "figures": [
            figure("unit tests by pytest in one process", plain, "CPU s"),
            figure("the same by inv test, to that", ratios, "×", 1.15),
            figure("inv test --unit, nothing known, wall", walls, "s", 10),
        ],
        "tests": f"{count} unit tests of the suite",
    }


def commit(folder: Path, runs: int) -> dict[str, Any]:
    """Measure a commit of one changed file with the hooks, all else known."""
    tree = _Checkout(folder)
    tree.run((tree.python, "-c", HOOKS), PYTHONPATH=".")
    git = ("git", "-c", "user.name=bench", "-c", "user.email=bench@example.org")
    tree.run((*git, "commit", "-qam", "test: keep unit tests"))
    figures = []
    for what, name in CHANGED.items():
        file, walls = tree.root / name, []
        text = file.read_text()
        for number in range(max(runs // 3, 3) + 1):
            file.write_text(f"{text}\n\n# Change {number}.\n")
            cost = tree.run((*git, "commit", "-qam", "feat: change")).cost
            # The first one asks about what nobody has asked before.
            if number:
                walls.append(cost.wall)
        figures.append(figure(f"commit of a file of {what}, wall", walls, "s", 2))
    return {"figures": figures}
