"""Who may import whom: what the import contracts can't say."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from ops.environment import ROOT

OPS = sorted((ROOT / "ops").rglob("*.py"))
DOORS = {"shell", "wire", "journal", "loopback", "targets.agent", "targets.front"}
DOORS |= {"hands", "alerts.slack", "alerts.mail"}
DOORS |= {"targets.doors", "targets.keepers", "targets.link", "forks"}
# The contracts see a top-level name only, and urllib.parse is no door.
NETWORK = ("urllib.request", "asyncio.subprocess", "multiprocessing", "pty")
PURE = ("plan", "world", "release", "command", "errors")
PURE += ("history", "migrations", "watch", "record", "alerts.notice", "hosts.plan")


def name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "ops").with_suffix("").parts)


class Module(NamedTuple):
    """What a module imports, at its top and anywhere, and calls, by dotted names."""

    top: frozenset[str]
    imports: frozenset[str]
    calls: frozenset[str]


@functools.cache
def read(path: Path) -> Module:
    """Return what a module says; each is parsed once for all tests."""
    tree = ast.parse(path.read_text())
    every = list(ast.walk(tree))
    calls = (dotted(node.func) for node in every if isinstance(node, ast.Call))
    return Module(imported(tree.body), imported(every), frozenset(calls))


def imported(nodes: Iterable[ast.AST]) -> frozenset[str]:
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("path", OPS, ids=name)
def test_the_engine_imports_the_standard_library_at_the_top(path: Path) -> None:
    known = {*sys.stdlib_module_names, "ops"}
    known |= {"menu": {"invoke"}, "forks": {"pytest", "_pytest"}}.get(name(path), set())
    assert {module.split(".")[0] for module in read(path).top} <= known


@pytest.mark.parametrize(
    "path", [path for path in OPS if name(path) not in DOORS], ids=name
)
def test_only_a_door_opens_addresses_or_processes(path: Path) -> None:
    assert not [m for m in read(path).imports if m.startswith(NETWORK)]
    starts = {"os.system", "os.popen", "os.fork", "os.posix_spawn"}
    assert not read(path).calls & starts


@pytest.mark.parametrize("module", PURE)
def test_what_decides_reads_no_clock_and_no_environment(module: str) -> None:
    path = ROOT / "ops" / f"{module.replace('.', '/')}.py"
    tops = {found.split(".")[0] for found in read(path).imports}
    assert not tops & {"os", "time", "random", "sys", "shutil", "tempfile", "logging"}
    assert not read(path).calls & {"open", "print", "input"}


def test_the_menu_imports_nothing_but_what_all_tasks_share() -> None:
    assert read(ROOT / "tasks.py").top == {
        "ops.menu.contract_usage_errors",
        "ops.menu.keep_bytecode",
        "ops.menu.verb",
    }


@pytest.mark.integration
def test_the_engine_starts_without_the_packages() -> None:
    """It ships them, so it may not need them, also not on the way."""
    code = "import sys; sys.modules.update(dict.fromkeys(sys.argv[1:]));"
    code += "from ops import quality, artefact, suite, machine"
    blocked = ["mltrading_health", "mltrading_marketdata", "mltrading_dashboard"]
    blocked += ["pandas", "dash", "sqlalchemy", "fabric", "flask"]
    subprocess.run(
        [sys.executable, "-c", code, *blocked],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "tests").rglob("*.py")),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_test_never_skips(path: Path) -> None:
    # A smoke, a server or a browser that is missing is a failure that says so.
    skips = {"pytest.skip", "pytest.importorskip", "pytest.mark.skip"}
    assert "skip" not in path.read_text() or not read(path).calls & skips
