"""The table of quality gates: what each reads, depends on and runs.

A gate is a row; what it means that a tool said something is in `ops.findings` for a
tool that judges file by file, and in `ops.judges` for the others.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ops import errors, migrations
from ops.tree import Tree


@dataclass(frozen=True, slots=True)
class Gate:
    """A question about the tree.

    `argv` is a template: {python} and {bin} are this interpreter and its folder. A
    `per_file` gate gets file names added. `config` names files, or a table in one
    (`pyproject.toml#tool.black`); `environment` names variables that change the
    answer, and `read_by` our modules that read it. `layout` gates see which modules
    lie at the root. A gate begins when those named in `after` have ended. `asks_world`
    gates may change their answer while the tree does not. `cost` is a first guess of
    the seconds of one start, until it has been measured; `timeout` is of one start
    and `budget` of the gate, both in seconds.
    """

    name: str
    argv: tuple[str, ...]
    inputs: tuple[str, ...]
    fix: str
    config: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    read_by: tuple[str, ...] = ("judges",)
    after: tuple[str, ...] = ()
    per_file: bool = False
    layout: bool = False
    asks_world: bool = False
    fixer: tuple[str, ...] = ()
    cost: float = 0.5
    timeout: float = 300.0
    budget: float = 60.0

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
        read_by=("findings",),
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
            *("--settings-path", "pyproject.toml"),
        ),
        inputs=("*.py",),
        config=("pyproject.toml#tool.isort",),
        tools=("isort",),
        read_by=("findings",),
        fix="inv fmt",
        per_file=True,
        layout=True,
        fixer=("{python}", "-m", "isort", "--quiet", "--settings-path")
        + ("pyproject.toml",),
        cost=0.2,
    ),
    Gate(
        name="flake8",
        argv=("{python}", "-m", "flake8", "--config", ".flake8", "--jobs", "1"),
        inputs=("*.py",),
        config=(".flake8",),
        tools=("flake8",),
        read_by=("findings",),
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
        tools=("bandit",),
        read_by=("findings",),
        fix="edit the lines, or end one with `# nosec B…`, the reason above it",
        per_file=True,
        cost=0.8,
    ),
    Gate(
        name="imports",
        argv=("{bin}/lint-imports", "--config", "pyproject.toml", "--no-cache"),
        inputs=("ops/*.py", "packages/*.py", "services/*.py"),
        config=("pyproject.toml#tool.importlinter",),
        tools=("import-linter",),
        fix="move the import to a layer that may have it (docs/reference/pipeline.md)",
        cost=0.7,
    ),
    Gate(
        name="dependencies",
        argv=(),
        inputs=("uv.lock",),
        tools=("safety",),
        environment=("CI", "MLTRADING_ALLOW_STALE_ADVISORIES"),
        read_by=("judges", "advisories", "loopback"),
        asks_world=True,
        fix="uv lock --upgrade-package NAME && inv lock",
        cost=2.0,
    ),
    Gate(
        name="licences",
        argv=(),
        inputs=("uv.lock",),
        config=("pyproject.toml#tool.licences",),
        read_by=("judges", "licences", "toolchain"),
        fix="lock another package, or decide in [tool.licences] of pyproject.toml",
        cost=0.1,
        budget=5.0,
    ),
    Gate(
        name="lock",
        argv=("uv", "lock", "--check", "--offline"),
        inputs=("*pyproject.toml", "uv.lock", "requirements.txt"),
        environment=(
            *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"),
            *("UV_EXCLUDE_NEWER", "UV_RESOLUTION", "UV_PRERELEASE"),
        ),
        read_by=("judges", "artefact"),
        fix="inv lock",
        cost=0.3,
    ),
    Gate(
        name="migrations",
        argv=(),
        inputs=(f"{migrations.FOLDER}/*",),
        read_by=("judges", "migrations"),
        fix="let it only add, or mark it (docs/how-to/migrate.md)",
        cost=0.1,
        budget=5.0,
    ),
    Gate(
        name="sql",
        argv=("{bin}/squawk", "--reporter", "json"),
        inputs=(f"{migrations.FOLDER}/versions/*.py", f"{migrations.PACKAGE}/*.py"),
        config=(".squawk.toml",),
        tools=("squawk-cli", "alembic", "sqlalchemy"),
        read_by=("judges", "offline"),
        fix="write it so that nobody waits for it (docs/how-to/migrate.md)",
        cost=0.6,
        budget=10.0,
    ),
    Gate(
        name="alerts",
        argv=(),
        inputs=(
            *("ops/alerts.toml", "ops/alerts/*.py", "ops/monitoring/*"),
            "packages/health/src/*.py",
        ),
        read_by=("judges", "shell"),
        fix="inv alerts",
        cost=2.0,
        budget=10.0,
    ),
    Gate(
        name="docs",
        argv=(),
        inputs=("*.md", "tasks.py", "ops/menu.py"),
        tools=("invoke",),
        read_by=("judges", "calls"),
        fix="edit the lines named above",
        cost=0.4,
        budget=10.0,
    ),
    Gate(
        name="workflow",
        argv=(),
        inputs=(".github/*", ".pre-commit-config.yaml", "tasks.py", "ops/menu.py"),
        tools=("invoke",),
        read_by=("judges", "calls"),
        fix="call a task of the menu, or pin the action by its commit",
        cost=0.4,
        budget=10.0,
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


def circumstances(gate: Gate, tree: Tree, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a gate reads beside the tree: variables, the day, a database."""
    values = {name: environ.get(name, "") for name in gate.environment}
    if gate.name == "lock":
        from ops import toolchain

        values["uv"] = _program(toolchain.program("uv", environ))
    if gate.name == "alerts":
        import shutil

        from ops.alerts import generate, proving

        made = (generate.NEUTRAL, f"{generate.FOLDER}/dashboard.json")
        values |= {name: tree.digest(name) for name in made}
        values |= {
            name: _program(shutil.which(name) or name) for name in proving.PROGRAMS
        }
    if gate.name == "docs":
        # A link may lead to any file, whatever it holds.
        names = "\n".join(tree.names).encode()
        values["files"] = hashlib.sha256(names).hexdigest()
    if gate.name == "licences":
        from ops import toolchain

        values |= {f"installed {n}": v for n, v in toolchain.installed().items()}
    if gate.name != "dependencies":
        return values
    from ops import advisories

    folder = advisories.database(tree.root, environ)
    now = time.gmtime()
    if folder is None:
        # Nothing to ask offline: online is tried again after an hour.
        return values | {"hour": time.strftime("%Y-%m-%d %H", now)}
    files = Tree(folder)
    values |= {name: files.digest(name) for name in advisories.FILES}
    return values | {"day": time.strftime("%Y-%m-%d", now)}


def _program(path: str) -> str:
    """Return what tells one build of a program from another without starting it.

    Its size and its first pages, which hold the build's own id; "" where it is not.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(65_536)
            return (
                f"{os.fstat(file.fileno()).st_size} {hashlib.sha256(head).hexdigest()}"
            )
    except OSError:
        return ""
