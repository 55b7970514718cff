"""Who may import whom: what the import contracts can't say."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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


def imports(path: Path, *, top: bool = False) -> Iterator[str]:
    """Yield what a module imports; `top` leaves out what functions import."""
    tree = ast.parse(path.read_text())
    for node in tree.body if top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", OPS, ids=name)
def test_the_engine_imports_the_standard_library_at_the_top(path: Path) -> None:
    known = {*sys.stdlib_module_names, "ops"}
    known |= {"menu": {"invoke"}, "forks": {"pytest", "_pytest"}}.get(name(path), set())
    assert {module.split(".")[0] for module in imports(path, top=True)} <= known


@pytest.mark.parametrize(
    "path", [path for path in OPS if name(path) not in DOORS], ids=name
)
def test_only_a_door_opens_addresses_or_processes(path: Path) -> None:
    assert not [m for m in imports(path) if m.startswith(NETWORK)]
    text = ast.unparse(ast.parse(path.read_text()))
    for call in ("os.system(", "os.popen(", "os.fork(", "os.posix_spawn("):
        assert call not in text


@pytest.mark.parametrize("module", PURE)
def test_what_decides_reads_no_clock_and_no_environment(module: str) -> None:
    path = ROOT / "ops" / f"{module.replace('.', '/')}.py"
    tops = {found.split(".")[0] for found in imports(path)}
    assert not tops & {"os", "time", "random", "sys", "shutil", "tempfile", "logging"}
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"open", "print", "input"}


def test_the_menu_imports_nothing_but_what_all_tasks_share() -> None:
    assert set(imports(ROOT / "tasks.py", top=True)) == {
        "ops.menu.contract_usage_errors",
        "ops.menu.keep_bytecode",
        "ops.menu.verb",
    }


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
    calls = {
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    }
    # A smoke, a server or a browser that is missing is a failure that says so.
    assert not calls & {"pytest.skip", "pytest.importorskip", "pytest.mark.skip"}
