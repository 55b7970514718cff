"""The scheduler: longest first, after what is needed, ended as a whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ops.command import Command
from ops.environment import ROOT
from ops.scheduler import Job, order, side_by_side
from ops.shell import run


def job(name: str, expected: float = 1.0, *after: str) -> Job:
    return Job(name, lambda: name, expected, after)


def test_the_longest_of_what_may_begin_is_first() -> None:
    jobs = [job("a"), job("b", 3), job("c", 9, "a"), job("d", 2)]
    assert [j.name for j in order(jobs, frozenset())] == ["b", "d", "a"]
    assert order(jobs, frozenset("a"))[0].name == "c"


def test_a_job_begins_after_all_jobs_of_the_names_it_needs() -> None:
    seen: list[str] = []
    jobs = [job("c", 9, "a", "b"), job("a"), job("b"), job("a", 0.5)]
    for done, _ in side_by_side(jobs, 4, begun=lambda j: seen.append(j.name)):
        seen.append(f"{done.name} ended")
    assert seen[-2:] == ["c", "c ended"] and seen.count("a ended") == 2


def test_no_more_than_the_limit_run_at_once() -> None:
    together = threading.Barrier(2)

    def act() -> int:
        return together.wait(timeout=10)

    done = side_by_side([Job("a", act), Job("b", act)], 2)
    assert sorted(result for _, result in done) == [0, 1]


@pytest.mark.parametrize("after", [("b",), ("a",), ("nothing",)])
def test_a_graph_without_an_end_is_refused(after: tuple[str, ...]) -> None:
    jobs = [job("a", 1, *after), job("b", 1, "a")]
    with pytest.raises(ValueError, match="wait for each other|no job is named"):
        list(side_by_side(jobs))


def test_what_a_job_raises_reaches_the_caller() -> None:
    def act() -> None:
        raise LookupError("boom")

    with pytest.raises(LookupError, match="boom"):
        list(side_by_side([Job("a", act), job("b")]))


def test_whoever_stops_reading_ends_the_programs_that_run(tmp_path: Path) -> None:
    started = threading.Event()
    code = "import time; time.sleep(600)"

    def long() -> int:
        started.set()
        return run(Command((sys.executable, "-c", code), cwd=tmp_path)).code

    def short() -> bool:
        return started.wait(timeout=10)

    for done, _ in side_by_side([Job("long", long, 9), Job("short", short)], 2):
        assert done.name == "short"
        break


INTERRUPTED = r"""
import sys
from ops.command import Command
from ops.scheduler import Job, side_by_side
from ops.shell import run
inner = "import os, time; os.write(1, b'%d\\n' % os.getpid()); time.sleep(600)"
act = lambda: run(Command((sys.executable, "-c", inner)), stream=True)
list(side_by_side([Job("a", act), Job("b", act)], 2))
"""


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_program_behind(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    inner = [int(process.stdout.readline()) for _ in range(2)]
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode and "KeyboardInterrupt" in said
    for pid in inner:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
