"""What can be fixed without asking: the format, the order of imports, the lock."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path

from ops import errors, inquiry, report, scheduler
from ops.cache import Store
from ops.command import Command
from ops.environment import ROOT
from ops.gates import BY_NAME
from ops.inquiry import Asking
from ops.judges import tool
from ops.scheduler import Job
from ops.shell import run
from ops.tree import Tree


def fmt(*, root: Path = ROOT) -> tuple[str, ...]:
    """Sort imports and format all Python files; say which changed.

    Files that are known to be in order are left alone.

    Raises:
        StepFailed: a file can't be parsed.
    """
    before = Tree(root)
    gates = (BY_NAME["isort"], BY_NAME["black"])
    with contextlib.closing(Store.open()) as store:
        questions = inquiry.look_up(gates, before, store, Asking(root))
    every = BY_NAME["black"].judges(before)
    todo = sorted({path for question in questions for path in _doubtful(question)})
    digests = {path: before.digest(path) for path in todo}
    failed = []
    for gate in gates:
        jobs = [
            Job(gate.name, partial(tool, gate.fixer + lot, root), size / 100_000)
            for lot, size in inquiry.lots(todo, before)
        ]
        for _, result in scheduler.side_by_side(jobs):
            failed += [] if result.ok else [result.tail(10)]
    after = Tree(root)
    changed = tuple(path for path in todo if after.digest(path) != digests[path])
    for path in changed:
        report.data(f"formatted {path}")
    report.say(f"{len(changed)} of {len(every)} files changed")
    if failed:
        raise errors.StepFailed("a file can't be formatted", detail="\n".join(failed))
    return changed


def _doubtful(question: inquiry.Question) -> list[str]:
    """Return the files of a gate that are not known to be green."""
    if question.verdict is not None and question.verdict.state == "green":
        return []
    known = question.known
    return [
        path
        for path in question.paths
        if path not in known or known[path].state != "green"
    ]


def relock(*, root: Path = ROOT) -> None:
    """Bring uv.lock and requirements.txt in line with the pyproject.toml files.

    Raises:
        StepFailed: the requirements can't be resolved.
    """
    from ops import artefact

    result = run(Command(("uv", "lock"), cwd=root))
    if not result.ok:
        raise errors.StepFailed("uv lock failed", detail=result.tail())
    (root / "requirements.txt").write_text(artefact.export(root))
    report.say("uv.lock and requirements.txt are in line with pyproject.toml")
