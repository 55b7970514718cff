"""What a test process reads is noted, as far as a verdict can rest on it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ops.reads import Reads


def noted(root: Path, event: str, *args: object) -> list[str]:
    """Return what is noted of an event; the hook itself would stay for ever."""
    reads = Reads(str(root))
    reads._heard(event, args)
    taken = reads.take()
    return [name for _, name in (*taken["files"], *taken["folders"])]


@pytest.fixture
def root() -> Path:
    """A checkout where homes are: not below the folder of temporary files."""
    return Path("/home/ann/checkout")


@pytest.mark.parametrize(
    ("event", "path", "name"),
    [
        ("open", "ops/plan.py", "ops/plan.py"),
        ("os.listdir", "docs", "docs"),
        ("os.listdir", "", "."),
        ("sqlite3.connect", "data/bars.db", "data/bars.db"),
        ("open", "ops/__pycache__/plan.cpython-313.pyc", "ops/plan.py"),
        ("open", "../shared/advisories/insecure.json",
         "../shared/advisories/insecure.json"),
    ],
)  # fmt: skip
def test_what_is_read_of_a_checkout_or_beside_it_is_noted(
    root: Path, event: str, path: str, name: str
) -> None:
    assert noted(root, event, os.path.normpath(root / path)) == [name]


@pytest.mark.parametrize("event", ["open", "os.listdir", "os.scandir"])
@pytest.mark.parametrize("path", ["/proc", "/proc/1/stat", "/usr", "/dev/null", "/tmp"])
def test_what_the_system_makes_is_not_noted(root: Path, event: str, path: str) -> None:
    assert noted(root, event, path) == []


def test_what_a_checkout_makes_is_not_noted(root: Path) -> None:
    assert noted(root, "open", f"{root}/reports/tests.json") == []
    assert noted(root, "open", f"{root}/.git/HEAD") == []


@pytest.mark.parametrize(
    ("argv", "folder", "starts"),
    [
        (["/usr/bin/true"], "/", False),
        (["/usr/bin/true"], "/home/ann/checkout", True),
        (["python3", "-c", "pass"], "/", True),
        (["cat", "/home/ann/checkout/README.md"], "/", True),
    ],
)
def test_a_program_that_could_read_the_checkout_is_noted(
    root: Path, argv: list[str], folder: str, starts: bool
) -> None:
    reads = Reads(str(root))
    reads._heard("subprocess.Popen", (argv[0], argv, folder, None))
    assert bool(reads.take()["starts"]) == starts
