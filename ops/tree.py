"""The files of a checkout, by content: what the gates judge and verdicts rest on."""

from __future__ import annotations

import ast
import fnmatch
import hashlib
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

# Folders at the root whose content is made by tasks.
MADE = ("build", "dist", "reports")
SKIPPED = ("__pycache__", "node_modules")
READ = (".py", ".toml", ".lock", ".txt", ".md", ".yml", ".yaml")


@dataclass(frozen=True)
class Tree:
    """The files of a checkout: relative path to content, read once."""

    root: Path

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every file that is not hidden or made by tasks, sorted, by relative path."""
        found: list[str] = []
        top = str(self.root)
        for folder, folders, files in os.walk(top):
            if folder == top:
                folders[:] = [name for name in folders if name not in MADE]
            folders[:] = [
                name
                for name in folders
                if name not in SKIPPED
                and not name.endswith(".egg-info")
                and (name[0] != "." or name == ".github")
            ]
            prefix = f"{folder[len(top) + 1 :]}/" if folder != top else ""
            found += [prefix + name for name in files if name[:9] != ".coverage"]
        return tuple(sorted(found))

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Every file that a gate may read, sorted, by relative path."""
        return tuple(name for name in self.names if name.endswith(READ))

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {}

    def digest(self, path: str) -> str:
        """Return the sha256 of a file's content, "" where there is no file."""
        if path not in self._digests:
            try:
                content = (self.root / path).read_bytes()
                self._digests[path] = hashlib.sha256(content).hexdigest()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                self._digests[path] = ""
            except OSError as error:
                # What it holds is unknown, which is not the same as empty.
                self._digests[path] = f"unreadable: {error.strerror}"
        return self._digests[path]

    def matching(
        self, globs: Sequence[str], excluded: Sequence[str] = ()
    ) -> tuple[str, ...]:
        """Return the files that one of the globs matches and none of the excluded."""
        return tuple(
            path
            for path in self.paths
            if any(fnmatch.fnmatchcase(path, glob) for glob in globs)
            and not any(fnmatch.fnmatchcase(path, glob) for glob in excluded)
        )

    @cached_property
    def _project(self) -> dict[str, Any]:
        return tomllib.loads((self.root / "pyproject.toml").read_text())

    def config(self, name: str) -> Any:
        """Return what identifies a configuration file, or one table of it."""
        file, _, table = name.partition("#")
        if not table:
            return self.digest(file)
        value: Any = self._project
        for part in table.split("."):
            value = value.get(part, {})
        return value

    @cached_property
    def layout(self) -> tuple[str, ...]:
        """The modules at the root, by which isort tells our modules from others."""
        found = []
        for place in ("", "src"):
            folder = self.root / place
            for entry in os.scandir(folder) if folder.is_dir() else ():
                if entry.name.endswith(".py") or entry.is_dir():
                    found.append(f"{place}/{entry.name}".lstrip("/"))
        return tuple(
            sorted(n for n in found if n[0] != "." and n not in (*MADE, *SKIPPED))
        )


def imported(source: bytes) -> str:
    """Return the import statements of a module, "" where it can't be parsed.

    One that only a type checker reads is marked: the contracts may leave it out.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return ""
    typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    statements = [
        ast.unparse(node) + "  # typing" * (id(node) in typing)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    return "\n".join(["#", *sorted(set(statements))])
