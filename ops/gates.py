"""The table of quality gates: what each reads, depends on and asks.

A gate is a row; what it means that a tool said something is in `ops.findings` for a
tool that judges file by file, and in a function of this module for the others.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ops import errors, findings, migrations
from ops.cache import Verdict
from ops.command import Command
from ops.shell import Result
from ops.shell import run as shell_run
from ops.tree import Tree

# Files in one start of a per-file tool: enough to pay for the start, few enough to
# use every processor.
BATCH = 60


@dataclass(frozen=True, slots=True)
class Gate:
    """A question about the tree.

    `argv` is a template: {python} and {bin} are this interpreter and its folder. A
    `per_file` gate gets file names added and is read by the function of its name in
    `ops.findings`; the others are judged by `_<name>` here. `config` names files, or
    a table in one (`pyproject.toml#tool.black`). `cost` is CPU seconds, for order.
    """

    name: str
    argv: tuple[str, ...]
    inputs: tuple[str, ...]
    config: tuple[str, ...]
    tools: tuple[str, ...]
    fix: str
    excluded: tuple[str, ...] = ()
    per_file: bool = False
    layout: bool = False
    fixer: tuple[str, ...] = ()
    cost: float = 0.5

    def judges(self, tree: Tree) -> tuple[str, ...]:
        """Return the files that the gate judges."""
        return tree.matching(self.inputs, self.excluded)


TABLE = (
    Gate(
        name="black",
        argv=(
            *("{python}", "-m", "black", "--check", "--diff", "--quiet"),
            *("--config", "pyproject.toml", "--no-cache", "--workers", "1"),
        ),
        inputs=("*.py",),
        config=("pyproject.toml#tool.black",),
        tools=("black",),
        fix="inv fmt",
        per_file=True,
        fixer=(
            *("{python}", "-m", "black", "--quiet", "--config", "pyproject.toml"),
            "--no-cache",
        ),
    ),
    Gate(
        name="isort",
        argv=(
            *("{python}", "-m", "isort", "--check-only", "--diff"),
            *("--settings-path", "."),
        ),
        inputs=("*.py",),
        config=("pyproject.toml#tool.isort",),
        tools=("isort",),
        fix="inv fmt",
        per_file=True,
        layout=True,
        fixer=("{python}", "-m", "isort", "--quiet", "--settings-path", "."),
        cost=0.2,
    ),
    Gate(
        name="flake8",
        argv=("{python}", "-m", "flake8", "--config", ".flake8", "--jobs", "1"),
        inputs=("*.py",),
        config=(".flake8",),
        tools=("flake8", "pycodestyle", "pyflakes", "mccabe"),
        fix="edit the lines named above",
        per_file=True,
        cost=0.6,
    ),
    Gate(
        name="bandit",
        argv=("{python}", "-m", "bandit", "-q", "-f", "json", "-c", "pyproject.toml"),
        inputs=("*.py",),
        excluded=("tests/*", "bench/*"),
        config=("pyproject.toml#tool.bandit",),
        tools=("bandit", "stevedore"),
        fix="edit the lines, or end one with `# nosec B…`, the reason above it",
        per_file=True,
        cost=0.8,
    ),
    Gate(
        name="imports",
        argv=("{bin}/lint-imports", "--config", "pyproject.toml", "--no-cache"),
        inputs=("ops/*.py", "packages/*.py", "services/*.py"),
        config=("pyproject.toml#tool.importlinter",),
        tools=("import-linter", "grimp"),
        fix="move the import to a layer that may have it (docs/reference/pipeline.md)",
        cost=0.7,
    ),
    Gate(
        name="dependencies",
        argv=(),
        inputs=("uv.lock",),
        config=(),
        tools=("safety",),
        fix="uv lock --upgrade-package NAME && inv lock",
        cost=2.0,
    ),
    Gate(
        name="lock",
        argv=("uv", "lock", "--check", "--offline"),
        inputs=("*pyproject.toml", "uv.lock", "requirements.txt"),
        config=(),
        tools=(),
        fix="inv lock",
        cost=0.3,
    ),
    Gate(
        name="migrations",
        argv=(),
        inputs=(f"{migrations.FOLDER}/*",),
        config=(),
        tools=(),
        fix="let it only add, or mark it (docs/how-to/migrate.md)",
        cost=0.1,
    ),
)
BY_NAME = {gate.name: gate for gate in TABLE}


def expand(names: Sequence[str]) -> tuple[Gate, ...]:
    """Return the gates of these names, in the table's order, each once."""
    for name in names:
        if name not in BY_NAME and name != "quality":
            raise errors.Usage(
                f'there is no gate "{name}"', allowed=", ".join(["quality", *BY_NAME])
            )
    return tuple(gate for gate in TABLE if gate.name in names or "quality" in names)


@dataclass(frozen=True, slots=True)
class Job:
    """One start of a gate: the files of a batch, or none for the whole tree."""

    gate: Gate
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a start said: a verdict per file ("" for the tree); kept or not."""

    verdicts: Mapping[str, Verdict]
    keep: bool
    seconds: float


def batches(paths: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the files in lots of one start each."""
    count = -(-len(paths) // BATCH)
    return [tuple(paths[first::count]) for first in range(count)]


def ask(job: Job, tree: Tree, versions: Mapping[str, str]) -> Answer:
    """Start a gate's tool once and read what it says."""
    gate = job.gate
    begun = time.monotonic()
    absent = [tool for tool in gate.tools if tool not in versions]
    paths = job.paths or ("",)
    if absent:
        text = f"{', '.join(absent)} is not installed"
        verdict = Verdict(gate.name, "red", findings=text, fix="uv sync")
        return Answer(dict.fromkeys(paths, verdict), False, 0.0)
    try:
        if gate.per_file:
            return _ask_files(gate, paths, tree)
        verdict, keep = _WHOLE[gate.name](gate, tree)
    except errors.OpsError as error:
        verdict = Verdict(gate.name, "red", findings=error.what, fix=error.next)
        return Answer(dict.fromkeys(paths, verdict), False, 0.0)
    seconds = time.monotonic() - begun
    return Answer({"": replace(verdict, seconds=seconds)}, keep, seconds)


def _ask_files(gate: Gate, paths: tuple[str, ...], tree: Tree) -> Answer:
    result = tool(gate.argv + paths, tree.root)
    found = getattr(findings, gate.name)(result, paths, str(tree.root))
    if not found.understood:
        verdict = _crashed(gate, result)
        return Answer(dict.fromkeys(paths, verdict), False, result.seconds)
    verdicts = {
        path: Verdict(
            gate.name,
            "red" if path in found.text else "green",
            seconds=result.seconds / len(paths),
            findings=found.text.get(path, ""),
            fix=gate.fix,
            data={"results": found.data[path]} if found.data.get(path) else None,
        )
        for path in paths
    }
    return Answer(verdicts, True, result.seconds)


def _crashed(gate: Gate, result: Result) -> Verdict:
    text = f"{gate.name} ended with {result.code}:\n{result.tail()}"
    return Verdict(gate.name, "red", findings=text, fix="inv doctor")


def _imports(gate: Gate, tree: Tree) -> tuple[Verdict, bool]:
    # The checkout's own packages, not those some environment points to.
    places = [tree.root, *sorted(tree.root.glob("*/*/src"))]
    python_path = os.pathsep.join(str(place) for place in places)
    result = tool(gate.argv, tree.root, PYTHONPATH=python_path, NO_COLOR="1")
    if result.ok:
        return Verdict(gate.name, "green"), True
    text = result.out.strip()
    broken = text.find("Broken contracts")
    if result.code != 1 or broken < 0:
        return _crashed(gate, result), False
    return Verdict(gate.name, "red", findings=text[broken:], fix=gate.fix), True


def _dependencies(gate: Gate, tree: Tree) -> tuple[Verdict, bool]:
    from ops import advisories

    said = advisories.check(tree.root)
    verdict = Verdict(
        gate.name,
        said.state,
        findings=said.findings,
        fix=gate.fix if said.result == "VULNERABLE" else advisories.fix(said),
        data=said.as_json(),
    )
    return verdict, said.state != "red" or said.result != "ERROR"


def _lock(gate: Gate, tree: Tree) -> tuple[Verdict, bool]:
    from ops import artefact

    result = tool((*gate.argv, "--python", sys.executable), tree.root)
    if not result.ok:
        text = f"uv.lock does not fit pyproject.toml:\n{result.tail(5)}"
        return Verdict(gate.name, "red", findings=text, fix=gate.fix), True
    wanted = artefact.export(tree.root)
    file = tree.root / "requirements.txt"
    if not file.is_file() or file.read_text() != wanted:
        text = "requirements.txt is not what uv.lock says"
        return Verdict(gate.name, "red", findings=text, fix=gate.fix), True
    return Verdict(gate.name, "green"), True


def _migrations(gate: Gate, tree: Tree) -> tuple[Verdict, bool]:
    """Judge that what is shipped before a switch only adds to the database."""
    folder = tree.root / migrations.FOLDER
    if not folder.is_dir():
        return Verdict(gate.name, "green"), True
    files = {
        path.name: path.read_text()
        for path in (folder / "versions").glob("*.py")
        if path.name != "__init__.py"
    }
    bounds = folder / "schema.toml"
    found = migrations.problems(files, bounds.read_text() if bounds.exists() else "")
    if found:
        text = "\n".join(found)
        return Verdict(gate.name, "red", findings=text, fix=gate.fix), True
    return Verdict(gate.name, "green"), True


_WHOLE: Mapping[str, Callable[[Gate, Tree], tuple[Verdict, bool]]] = {
    "imports": _imports,
    "dependencies": _dependencies,
    "lock": _lock,
    "migrations": _migrations,
}


def tool(argv: Sequence[str], root: Path, **env: str | None) -> Result:
    """Run a gate's tool, its argument template filled."""
    filled = tuple(
        (
            part.format(python=sys.executable, bin=Path(sys.executable).parent)
            if part.startswith("{")
            else part
        )
        for part in argv
    )
    # Bytecode of the tools is kept: without it each start costs twice as much.
    settings = {"PYTHONDONTWRITEBYTECODE": None, "PYTHONWARNINGS": None, **env}
    return shell_run(Command(filled, cwd=root, env=settings, timeout=900))


def environment(gate: Gate, tree: Tree) -> dict[str, str]:
    """Return what a gate reads beside the tree: the day, the database, settings."""
    if gate.name != "dependencies":
        return {}
    from ops import advisories

    values = {name: os.environ.get(name, "") for name in ("CI", advisories.ALLOW)}
    folder = advisories.database(tree.root, os.environ)
    now = time.gmtime()
    if folder is None:
        # Nothing to ask offline: online is tried again after an hour.
        return values | {"hour": time.strftime("%Y-%m-%d %H", now)}
    files = Tree(folder)
    values |= {name: files.digest(name) for name in advisories.FILES}
    return values | {"day": time.strftime("%Y-%m-%d", now)}
