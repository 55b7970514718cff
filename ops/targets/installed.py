"""Whether installed dependencies still are what was installed. Standard library only.

`FILES` in an environment names its files, one a line: sha256, size, x or -, path.
`SEEN` says how each looked when the environment was made: size and date. Only what
looks otherwise is read, as to read all takes as long as a start.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ops.errors import StepFailed

MANIFEST = "FILES"
SEEN = "SEEN"
READY = "READY"
_SHA = re.compile(r"[0-9a-f]{64}")
# What Python would import, or obey; beside it a library may keep what it wants.
_IMPORTED = (".py", ".pth", ".so")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a tree: what it holds, its size in bytes, where it is."""

    sha: str
    size: int
    executable: bool
    path: str

    def __str__(self) -> str:
        return f"{self.sha} {self.size} {'x' if self.executable else '-'} {self.path}"


def parse(manifest: str) -> tuple[Entry, ...]:
    """Return the files that a manifest names.

    Raises:
        StepFailed: a line is none, or its path leads out of the tree.
    """
    entries = []
    for text in manifest.splitlines():
        sha, size, mode, path = text.split(" ", 3)
        inside = PurePosixPath(path)
        if not _SHA.fullmatch(sha) or inside.is_absolute() or ".." in inside.parts:
            raise StepFailed("a manifest names a file that can't be", where=path)
        entries.append(Entry(sha, int(size), mode == "x", path))
    return tuple(entries)


def entries(site: Path) -> list[Entry]:
    """Return the files below a site-packages folder, without byte-code, by path."""
    found = []
    for name, status in sorted(_below(site)):
        if name.endswith(".pyc") or name.rpartition("/")[2] == ".lock":
            continue
        executable = bool(status.st_mode & 0o100)
        found.append(Entry(sha_of(site / name), status.st_size, executable, name))
    return found


def note(home: Path, listed: Iterable[Entry]) -> None:
    """Write down what an environment holds and how it looks, before it is READY."""
    (home / MANIFEST).write_text("".join(f"{entry}\n" for entry in listed))
    looks = {name: _look(status) for name, status in _below(site_of(home))}
    (home / SEEN).write_text(json.dumps(looks))


def altered(home: Path) -> str:
    """Return which file of an environment is not as it was installed, "" if all are.

    One that an older engine has made, without a note of how it looked, is taken as it
    is.
    """
    try:
        looks = json.loads((home / SEEN).read_text())
        site = site_of(home)
        there = {name: _look(status) for name, status in _below(site)}
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        return f"{home.name}/{SEEN} can't be read: {error}"
    if there == looks:
        return ""
    gone = sorted(looks.keys() - there.keys())
    if gone:
        return f"{gone[0]} is gone"
    added = sorted(name for name in there.keys() - looks if name.endswith(_IMPORTED))
    if added:
        return f"{added[0]} was added"
    other = sorted(name for name, look in looks.items() if there[name] != look)
    return _first_altered(home, site, other)


def _first_altered(home: Path, site: Path, names: Iterable[str]) -> str:
    """Return the first of these files that holds something else than was installed."""
    try:
        shas = {entry.path: entry.sha for entry in parse((home / MANIFEST).read_text())}
        for name in names:
            if name in shas and sha_of(site / name) != shas[name]:
                return f"{name} holds something else"
    except (OSError, ValueError, StepFailed) as error:
        return f"{home.name} can't be read: {error}"
    return ""


def beside(home: Path) -> Callable[[], str]:
    """Begin to ask what `altered` does; return what waits for the answer."""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(altered(home)), daemon=True)
    thread.start()

    def answer() -> str:
        thread.join()
        return found[0]

    return answer


def place(scratch: Path, home: Path) -> None:
    """Give a finished environment its name, in place of one that is not whole.

    What runs in that one is without its files for a moment only, not for as long as it
    takes to remove them.
    """
    if home.exists():
        old = home.with_name(f".{home.name}-old-{os.getpid()}")
        os.rename(home, old)
        os.rename(scratch, home)
        shutil.rmtree(old, ignore_errors=True)
        return
    os.rename(scratch, home)


def distrust(home: Path) -> None:
    """Let the next deploy install an environment anew; what runs goes on running."""
    (home / READY).unlink(missing_ok=True)


def site_of(home: Path) -> Path:
    """Return the folder that an environment's modules are in.

    Raises:
        FileNotFoundError: it has none.
    """
    for site in home.glob("lib/python*/site-packages"):
        return site
    raise FileNotFoundError(2, "no site-packages", str(home))


def sha_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _look(status: os.stat_result) -> list[int]:
    # Not the inode and its change time: files are linked into other environments.
    return [status.st_size, status.st_mtime_ns]


def _below(top: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the files below a folder, without the folders of byte-code."""
    # Strings, not paths: there are thousands, and a release waits for its start.
    folders = [""]
    while folders:
        below = folders.pop()
        with os.scandir(f"{top}/{below}") as found:
            for each in found:
                name = below + each.name
                if not each.is_dir(follow_symlinks=False):
                    yield name, each.stat(follow_symlinks=False)
                elif each.name != "__pycache__":
                    folders.append(f"{name}/")
