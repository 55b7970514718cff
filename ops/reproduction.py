"""Build an artefact's packages again, elsewhere, and compare every byte.

Each time from copies in another folder, with other times and permissions on the
files, by an interpreter that is named: nothing of these may show in what is built.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ops import artefact, errors, scheduler
from ops.artefact import Artefact
from ops.scheduler import Job

TIMES = 2


def reproduce(
    made: Artefact, root: Path, pythons: Sequence[tuple[str, str]] = ()
) -> dict[str, Any]:
    """Build all packages twice, and once more by each Python (version, executable).

    Returns how often and by what, for the manifest.

    Raises:
        StepFailed: a file is not the same, or a package does not build.
    """
    files = json.loads((made.path / "manifest.json").read_text())["files"]
    built = {
        n: said["sha256"] for n, said in files.items() if n[-4:] in (".whl", "r.gz")
    }
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    every = [(here, sys.executable)] * TIMES + list(pythons)
    with tempfile.TemporaryDirectory(prefix="mltrading-again-") as scratch:
        jobs = [
            # A path of another length each time.
            Job(
                f"{n} on {name}", partial(digests, root, Path(scratch, "x" * n), python)
            )
            for n, (name, python) in enumerate(every, 1)
        ]
        for job, found in scheduler.side_by_side(jobs):
            _compare(built, found, job.name)
    return {"builds": len(every), "pythons": sorted({name for name, _ in every})}


def digests(root: Path, folder: Path, python: str) -> dict[str, str]:
    """Build copies of all packages in a new folder by a Python that has hatchling.

    Returns the sha256 of each wheel and sdist by its name.

    Raises:
        StepFailed: a package does not build.
    """
    copy, out = folder / "copy", folder / "out"
    for package in artefact.PACKAGES:
        shutil.copytree(
            root / package,
            copy / package,
            ignore=shutil.ignore_patterns("__pycache__"),
            copy_function=shutil.copyfile,
        )
    shutil.copyfile(root / ".gitignore", copy / ".gitignore")
    for file in copy.rglob("*"):
        os.utime(file, (1_000_000_000 + len(folder.name), 1_000_000_000))
    for package in artefact.PACKAGES:
        artefact.build_package(copy, package, out, ("--wheel", "--sdist"), python)
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in out.iterdir()
    }


def _compare(built: Mapping[str, str], found: Mapping[str, str], name: str) -> None:
    differing = sorted(
        file for file in {*built, *found} if built.get(file) != found.get(file)
    )
    if differing:
        raise errors.StepFailed(
            f"{len(differing)} files are not the same when built again",
            where=f"build {name}",
            detail="\n".join(differing),
            next="look for a clock, a path or an order in what its build reads",
        )
