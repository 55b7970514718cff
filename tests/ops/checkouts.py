"""Small checkouts with the project's own tool settings, to plant faults in."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from ops.command import Command
from ops.environment import ROOT
from ops.shell import run

OURS = {
    "health": "packages/health",
    "marketdata": "packages/marketdata",
    "dashboard": "services/dashboard",
}
SETTINGS = (ROOT / "pyproject.toml").read_text()
# Every module of the engine that an import contract names.
NAMED = {
    name.removeprefix("ops.").replace(".", "/")
    for contract in tomllib.loads(SETTINGS)["tool"]["importlinter"]["contracts"]
    for key in ("source_modules", "forbidden_modules")
    for name in contract.get(key, ())
    if name.startswith("ops.")
}
PACKAGES = {"targets", "alerts"}
MODULES = ("__init__", *sorted(NAMED - PACKAGES), *(f"{p}/__init__" for p in PACKAGES))
# Python files of a checkout.
FILES = len(MODULES) + len(OURS)
# A file, what to write in it, and what the gate of that name then says.
FAULTS = {
    "black": ("ops/plan.py", '"""plan."""\nx = {  "a":1 }\n', "--- ops/plan.py"),
    "isort": ("ops/plan.py", '"""plan."""\nimport sys\nimport os\n', "+import os"),
    "flake8": ("ops/plan.py", '"""plan."""\n\nimport os\n', "ops/plan.py:3:1: F401"),
    "bandit": ("ops/plan.py", '"""plan."""\n\nexec("1")\n', "ops/plan.py:3: B102"),
    "imports": (
        "ops/plan.py",
        '"""plan."""\n\nfrom ops import shell\n',
        "ops.plan -> ops.shell",
    ),
    "licences": (
        "uv.lock",
        'version = 1\n[[package]]\nname = "secret-sauce"\nversion = "1"\n'
        'source = { registry = "r" }\n',
        "secret-sauce: no licence is known",
    ),
    "docs": ("README.md", "See [it](docs/none.md).\n", "leads nowhere: docs/none.md"),
    "workflow": (
        ".github/workflows/ci.yml",
        "    steps:\n      - run: make test\n",
        "ci.yml:2: not a call of the menu: make test",
    ),
    "alerts": ("ops/alerts.toml", "[critical]\n", "alerts.toml: timing"),
    "migrations": (
        "packages/marketdata/src/mltrading_marketdata/migrations/versions/0002_less.py",
        "def upgrade():\n    op.drop_table('bar')\n",
        "op.drop_table is not among what only adds",
    ),
    "sql": (
        "packages/marketdata/src/mltrading_marketdata/migrations/versions/0002_slow.py",
        "from alembic import op\n\n\ndef upgrade():\n"
        "    op.create_index('bar_ts_idx', 'bar', ['ts'])\n",
        "0002_slow.py: require-concurrent-index-creation",
    ),
    "lock": ("requirements.txt", "flask==0.1\n", "requirements.txt is not what"),
    "dependencies": ("advisories/insecure.json", "{}", "not an advisory database"),
}


def checkout(root: Path) -> Path:
    """Make a checkout in which every gate is green, locked and without packages."""
    head = '[project]\nname = "mltrading"\nversion = "0.1.0"\n'
    head += 'requires-python = ">=3.11"\n\n[tool.uv]\npackage = false\n\n'
    head += '[tool.uv.workspace]\nmembers = ["packages/*", "services/*"]\n\n'
    settings = SETTINGS[SETTINGS.index("[tool.black]") :]
    # Nothing is locked in it, so nothing may be said of single packages.
    settings = re.sub(r"(?s)\[tool\.licences\.known\].*?(?=\[tool\.cov)", "", settings)
    write(root, "pyproject.toml", head + settings)
    write(root, ".flake8", (ROOT / ".flake8").read_text())
    write(root, ".gitignore", (ROOT / ".gitignore").read_text())
    for name, folder in OURS.items():
        module = f"mltrading_{name}"
        write(
            root,
            f"{folder}/pyproject.toml",
            '[build-system]\nrequires = ["hatchling"]\n'
            'build-backend = "hatchling.build"\n\n'
            f'[project]\nname = "mltrading-{name}"\nversion = "0.1.0"\n'
            'requires-python = ">=3.11"\n\n[tool.hatch.build.targets.wheel]\n'
            f'packages = ["src/{module}"]\n',
        )
        write(root, f"{folder}/src/{module}/__init__.py", f'"""{name}."""\n')
    for module in MODULES:
        write(root, f"ops/{module}.py", f'"""{module}."""\n')
    write(root, "requirements.txt", "")
    must(root, "uv", "lock", "--offline", "--quiet")
    return root


def commit(root: Path) -> Path:
    """Put everything in a git commit."""
    must(root, "git", "init", "--quiet")
    must(root, "git", "add", "--all")
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    must(root, "git", *who, "commit", "--quiet", "--message", "feat: begin")
    return root


def write(root: Path, name: str, text: str) -> None:
    """Write a file of a checkout and the folders above it."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def must(root: Path, *argv: str) -> None:
    """Run a program that may not fail."""
    result = run(Command(argv, cwd=root, timeout=60))
    assert result.ok, result.tail()
