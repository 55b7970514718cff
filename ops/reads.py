"""Note what a process reads of a checkout: files, folders, and programs it starts.

Put into a test process by `ops.forks`, so that a test's verdict is kept under all that
the test looked at. What a program that is started reads can't be seen; that it was
started is noted.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Sequence
from types import FrameType
from typing import Any

# What is made in a checkout, not written.
MADE = (
    *(".git", ".venv", ".ci", "build", "dist", "reports", "node_modules"),
    *(".pytest_cache", ".import_linter_cache", ".hypothesis", "__pycache__"),
)
_STARTS = {
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "pty.spawn",
}
_FILES = {"open", "sqlite3.connect"}
_FOLDERS = {"os.listdir", "os.scandir"}
_SYSTEM = ("/bin", "/dev", "/etc", "/lib", "/opt", "/proc", "/run", "/sbin", "/sys")


class Reads:
    """What was read since the last `take`, as paths relative to the checkout.

    `files` and `folders` are pairs (our file that asked for it, what it read); the
    first is "" where none of ours is on the stack.
    """

    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root)
        self._inside = self._root + os.sep
        places = (sys.prefix, sys.base_prefix, tempfile.gettempdir(), "/usr", "/var")
        self._elsewhere = tuple(
            os.path.realpath(place) + os.sep for place in (*places, *_SYSTEM)
        )
        self._caches = tuple(
            path + os.sep
            for path in (sys.pycache_prefix, os.path.expanduser("~/.cache"))
            if path
        )
        self.files: set[tuple[str, str]] = set()
        self.folders: set[tuple[str, str]] = set()
        self.starts: set[str] = set()

    def install(self) -> None:
        """Listen from now on, to the end of the process."""
        sys.addaudithook(self._heard)

    def take(self) -> dict[str, list[Any]]:
        """Return what was read, sorted, and begin anew."""
        taken = {
            "files": sorted(self.files),
            "folders": sorted(self.folders),
            "starts": sorted(self.starts),
        }
        self.files, self.folders, self.starts = set(), set(), set()
        return taken

    def _heard(self, event: str, args: tuple[Any, ...]) -> None:
        if event in _FILES:
            self._note(self.files, args[0])
        elif event in _FOLDERS:
            self._note(self.folders, args[0] if args[0] is not None else ".")
        elif event == "subprocess.Popen":
            if self._ours(args[0], args[1], args[2]):
                self.starts.add(self._asker())
        elif event in _STARTS:
            self.starts.add(self._asker())

    def _note(self, seen: set[tuple[str, str]], path: object) -> None:
        if isinstance(path, int):
            return
        try:
            text = os.fsdecode(path)  # type: ignore[arg-type]
        except TypeError:
            return
        if not text.startswith("/"):
            text = os.path.abspath(text)
        if not text.startswith(self._inside):
            if text == self._root:
                seen.add((self._asker(), "."))
            elif not f"{text}{os.sep}".startswith(self._elsewhere + self._caches):
                # Such as a folder of advisories beside the checkout.
                seen.add((self._asker(), os.path.relpath(text, self._root)))
            return
        name = text[len(self._inside) :]
        if name.partition("/")[0].startswith(MADE):
            return
        if name.endswith(".pyc"):
            try:
                name = importlib.util.source_from_cache(name)
            except ValueError:
                return
        seen.add((self._asker(), os.path.normpath(name)))

    def _ours(self, program: Any, arguments: Any, folder: Any) -> bool:
        """Say whether a program could read the checkout or run code of it."""
        words = arguments if isinstance(arguments, (list, tuple)) else [arguments]
        place = os.path.realpath(os.fsdecode(folder) if folder else os.getcwd())
        if f"{place}{os.sep}".startswith(self._inside):
            return True
        for word in (program, *words):
            try:
                text = os.fsdecode(word)
            except TypeError:
                return True
            if self._root in text or sys.prefix in text or "python" in text:
                return True
        return False

    def _asker(self) -> str:
        """Return our innermost file on the stack."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            name = frame.f_code.co_filename
            if name.startswith(self._inside):
                inner = name[len(self._inside) :]
                if inner not in _MACHINERY and not inner.startswith(MADE):
                    return inner
            frame = frame.f_back
        return ""


_MACHINERY = ("ops/reads.py", "ops/forks.py")


def merged(taken: Sequence[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """Return what several processes read, as one."""
    names = ("files", "folders", "starts")
    return {
        name: sorted(
            {tuple(p) if isinstance(p, list) else p for t in taken for p in t[name]}
        )
        for name in names
    }
