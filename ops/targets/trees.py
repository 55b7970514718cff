"""Installed dependencies for another machine's Python, made here without running it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from ops import folders
from ops.command import Command
from ops.errors import Refused, StepFailed
from ops.shell import run
from ops.targets.installed import MANIFEST, entries

KEPT = 3
# What uv knows: the newest C library that it can choose wheels for, and the oldest.
_NEWEST, _OLDEST = 40, 28
_ONE = threading.Lock()


@dataclass(frozen=True, slots=True)
class Tree:
    """Files to be put into a site-packages folder, and the manifest of them.

    `cached`: nothing was asked of the package index for it.
    """

    site: Path
    manifest: str
    cached: bool = True


def platform(python: str) -> tuple[str, str]:
    """Return uv's words for a host's Python: its version and its platform.

    Raises:
        Refused: no wheels are made for such a host.
    """
    match = re.fullmatch(r"cpython-(3\.\d+)-(\w+)-glibc_2\.(\d+)", python)
    known = match and match[2] in ("x86_64", "aarch64") and int(match[3]) >= _OLDEST
    if not match or not known:
        raise Refused(
            f"a host runs {python}, for which nothing can be installed",
            allowed=f"CPython on x86_64 or aarch64 with glibc 2.{_OLDEST} or newer",
        )
    glibc = min(int(match[3]), _NEWEST)
    if glibc < 31:
        glibc = 28
    return match[1], f"{match[2]}-manylinux_2_{glibc}"


def build(name: str, requirements: Path, python: str, uv: str, timeout: float) -> Tree:
    """Return the tree `name`, made now or found where it was made before.

    What the cache of uv holds is used without asking the network.
    """
    folder = folders.cache() / "trees"
    home = folder / name
    with _ONE:
        cached = (home / MANIFEST).exists()
        if not cached:
            cached = _make(folder, home, requirements, python, uv, timeout)
    os.utime(home)
    return Tree(home / "site", (home / MANIFEST).read_text(), cached)


def _make(
    folder: Path, home: Path, requirements: Path, python: str, uv: str, timeout: float
) -> bool:
    """Make a tree; return whether the cache had all of it."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".{home.name}-{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    version, wheels = platform(python)
    command = (
        *(
            uv,
            "pip",
            "install",
            "--quiet",
            "--no-config",
            "--target",
            str(scratch / "site"),
        ),
        *("--python-version", version, "--python-platform", wheels),
        # Nothing is built here: it would be built for this machine.
        *("--no-deps", "--require-hashes", "--only-binary", ":all:"),
        *("-r", str(requirements)),
    )
    environ = {"VIRTUAL_ENV": None, "UV_PYTHON": None, "UV_NO_PROGRESS": "1"}
    made = run(Command((*command, "--offline"), timeout=timeout, env=environ))
    cached = made.ok
    if not cached:
        made = run(Command(command, timeout=timeout, env=environ))
    if not made.ok:
        shutil.rmtree(scratch, ignore_errors=True)
        raise StepFailed(
            f"the locked dependencies could not be installed for {python}",
            where=" ".join(command[:3]),
            detail=made.tail(12),
            next="inv doctor",
        )
    # Programs in it name this machine's Python; none of them is used.
    shutil.rmtree(scratch / "site" / "bin", ignore_errors=True)
    listed = entries(scratch / "site")
    (scratch / MANIFEST).write_text("".join(f"{entry}\n" for entry in listed))
    _place(scratch, home)
    trees = [path for path in folder.iterdir() if not path.name.startswith(".")]
    for old in sorted(trees, key=lambda path: path.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return cached


def _place(scratch: Path, home: Path) -> None:
    """Give a tree its name, unless another deployer was first: that one is in use."""
    if home.exists() and not (home / MANIFEST).exists():
        shutil.rmtree(home)
    try:
        os.rename(scratch, home)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        shutil.rmtree(scratch)
