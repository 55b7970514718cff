"""The progress of a run: drawn on a terminal, printed line by line elsewhere."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from ops.board import drawn
from ops.environment import ROOT
from ops.scheduler import Job

JOBS = [Job("black", int), Job("black", int), Job("lock", int)]


def test_a_step_prints_one_line_when_its_last_job_has_ended(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with drawn(JOBS, shown=True) as board:
        for job, state in zip(JOBS, ("failed", "ok", "warned"), strict=True):
            board.begun(job)
            board.ended(job, state)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[:2] for line in lines] == [["✗", "black"], ["!", "lock"]]


def test_nothing_is_printed_where_nobody_asked_to_see(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with drawn(JOBS, shown=False) as board:
        board.begun(JOBS[2])
        board.ended(JOBS[2], "ok")
        assert board.tick is None
    assert capsys.readouterr().err == ""


LIVE = """
from ops.board import drawn
from ops.scheduler import Job
jobs = [Job("black", int), Job("lock", int)]
with drawn(jobs, shown=True) as board:
    for job in jobs:
        board.begun(job)
        board.tick()
        board.ended(job, "failed")
        board.tick()
"""


@pytest.mark.integration
def test_a_terminal_sees_the_table_drawn_over() -> None:
    parent, child = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-c", LIVE]
    subprocess.run(argv, stderr=child, cwd=ROOT, env=environ, check=True)
    os.close(child)
    said = os.read(parent, 65536).decode()
    os.close(parent)
    assert "black" in said and "✗" in said and "\x1b[1A" in said
