"""What can be fixed without asking: the format, the order of imports, the lock."""

from __future__ import annotations

from pathlib import Path

from ops import errors, report
from ops.command import Command
from ops.environment import ROOT
from ops.gates import BY_NAME, batches, tool
from ops.shell import run
from ops.tree import Tree


def fmt(*, root: Path = ROOT) -> tuple[str, ...]:
    """Sort imports and format all Python files; say which changed.

    Raises:
        StepFailed: a file can't be parsed.
    """
    before = Tree(root)
    paths = BY_NAME["black"].judges(before)
    digests = {path: before.digest(path) for path in paths}
    failed = []
    for name in ("isort", "black"):
        for batch in batches(paths):
            result = tool(BY_NAME[name].fixer + batch, root)
            failed += [] if result.ok else [result.tail(10)]
    after = Tree(root)
    changed = tuple(path for path in paths if after.digest(path) != digests[path])
    for path in changed:
        report.data(f"formatted {path}")
    report.say(f"{len(changed)} of {len(paths)} files changed")
    if failed:
        raise errors.StepFailed("a file can't be formatted", detail="\n".join(failed))
    return changed


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
