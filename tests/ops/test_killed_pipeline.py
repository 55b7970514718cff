"""`inv ci` killed at any moment: no report, no child left, and a right next run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.environment import ROOT
from tests.ops.checkouts import write

pytestmark = pytest.mark.integration

# The real pipeline and the real tests; quality and build stop where they are told to.
PROGRAM = """
import pathlib, sys
from ops import artefact, pipeline, quality, shell
from ops.command import Command
root, stop = pathlib.Path(sys.argv[1]), sys.argv[2]

def part(name, value):
    def act(**_):
        if stop == name:
            (root.parent / "reached").write_text("0")
            shell.run(Command(('sleep', '60')))
        return value
    return act

made = artefact.Artefact("d", root, "c", False, (), root, "l", "3", 1.0, False)
quality.quality = part("quality", ())
artefact.build_task = part("build", made)
pipeline.ci(root=root, environ={})
"""
TEST = """
import os, pathlib, time
def test_slow():
    stop = os.environ.get("STOP_AT")
    if stop:
        pathlib.Path(stop).write_text(str(os.getpid()))
        time.sleep(60)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    tree = tmp_path / "checkout"
    settings = '[tool.pytest.ini_options]\njunit_family = "xunit1"\n'
    write(tree, "pyproject.toml", settings + 'addopts = "-p no:dash"\n')
    write(tree, "test_slow.py", TEST)
    write(tree, "test_fast.py", "def test_fast():\n    pass\n")
    write(tree, ".gitignore", "reports/\n.ci/\n.coverage\n__pycache__/\n")
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    return tree


def start(tree: Path, stop: str) -> subprocess.Popen[bytes]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    environ |= {"MLTRADING_CACHE": str(tree.parent / "cache")}
    environ |= {"MLTRADING_STATE": str(tree.parent / "state")}
    environ |= {"STOP_AT": str(tree.parent / "reached")} if stop == "tests" else {}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tree), stop],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_for(what: Iterator[bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    for there in what:
        if there:
            return
        assert time.monotonic() < until, "it did not come"


def alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


@pytest.mark.parametrize("stop", ["quality", "build", "tests"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_is_forgotten_and_the_next_is_right(
    checkout: Path, stop: str, number: signal.Signals
) -> None:
    write(checkout, ".ci/report.json", '{"ok": true}')
    reached = checkout.parent / "reached"
    run = start(checkout, stop)
    wait_for(reached.is_file() and bool(reached.read_text()) for _ in iter(int, 1))
    run.send_signal(number)
    assert run.wait(60) != 0
    worker = int(reached.read_text())
    wait_for(not (worker and alive(worker)) for _ in iter(int, 1))
    assert not (checkout / ".ci/report.json").exists()
    assert start(checkout, "").wait(120) == 0
    said = json.loads((checkout / ".ci/report.json").read_text())
    (tests,) = said["parts"]["tests"]["pythons"]
    assert said["ok"] and (tests["passed"], tests["failed"]) == (2, 0)
