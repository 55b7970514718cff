"""The backups of an environment on one host: listed, read part by part, taken in.

Beside each lies FILE.json, what the data layer knows of it. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ops.errors import Refused, StepFailed

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,200}")
_CHUNK = 1024 * 1024
# What people are told of a backup, of all that is known.
_KNOWN = ("sha256", "at", "database", "dialect", "schema", "marker", "rows", "proved")


class Vault:
    """The folder `backups` below an environment's folder."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "backups"

    def listed(self) -> list[dict[str, Any]]:
        """Return the backups, newest first: name, bytes, at, and what is known."""
        found = []
        for path in self.folder.glob("*"):
            if path.suffix == ".json" or not _NAME.fullmatch(path.name):
                continue
            try:
                status = path.stat()
                said = {"name": path.name, "bytes": status.st_size}
                known = {"at": status.st_mtime, **self._known(path)}
            except FileNotFoundError:
                # Pruned while we looked.
                continue
            found.append({**said, **known})
        return sorted(found, key=lambda one: float(one["at"]), reverse=True)

    def note(self, name: str) -> str:
        """Return all that is known of a backup, as text; "" for nothing."""
        try:
            return _beside(self.path(name)).read_text()
        except FileNotFoundError:
            return ""

    def path(self, name: str) -> Path:
        """Return a backup's file.

        Raises:
            Refused: there is none of that name.
        """
        path = self.folder / name
        if not _NAME.fullmatch(name) or name.endswith(".json") or not path.is_file():
            raise Refused(
                f"there is no backup {name}",
                where=str(self.folder),
                allowed=", ".join(one["name"] for one in self.listed()[:5]) or "none",
                next="inv db-backup --list",
            )
        return path

    def read(self, name: str, offset: int, size: int = _CHUNK) -> bytes:
        """Return a part of a backup, "" behind its end."""
        with self.path(name).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def keep(self, name: str, sha256: str, note: str, source: Path) -> dict[str, Any]:
        """Take a file of this machine in under a name; see `receive`."""
        with self._taken(name, sha256, note) as write, source.open("rb") as file:
            while chunk := file.read(_CHUNK):
                write(chunk)
        return {"name": name}

    def receive(
        self, name: str, sha256: str, note: str, stream: BinaryIO
    ) -> dict[str, Any]:
        """Take in the one file of a tar stream; it appears whole or not at all.

        Raises:
            Refused: the name is taken or none. StepFailed: it did not arrive as sent.
        """
        with (
            self._taken(name, sha256, note) as write,
            tarfile.open(fileobj=stream, mode="r|") as archive,
        ):
            for member in archive:
                source = archive.extractfile(member) if member.isreg() else None
                while source is not None and (chunk := source.read(_CHUNK)):
                    write(chunk)
        return {"name": name}

    @contextmanager
    def _taken(
        self, name: str, sha256: str, note: str
    ) -> Iterator[Callable[[bytes], None]]:
        """Give a function that writes the file, which gets its name when all came."""
        if not _NAME.fullmatch(name) or name.endswith(".json"):
            raise Refused(f"{name} can't be the name of a backup")
        path = self.folder / name
        if path.exists():
            raise Refused(f"there is a backup {name} already", where=str(self.folder))
        scratch = self.folder / f".{name}.partial"
        digest = hashlib.sha256()
        try:
            with scratch.open("wb") as file:

                def write(chunk: bytes) -> None:
                    digest.update(chunk)
                    file.write(chunk)

                yield write
                file.flush()
                os.fsync(file.fileno())
            if digest.hexdigest() != sha256:
                raise StepFailed(
                    f"{name} arrived with other contents than were sent",
                    where=str(self.folder),
                    next="the same command again",
                )
            if note:
                _beside(path).write_text(note)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)

    def _known(self, path: Path) -> Mapping[str, Any]:
        try:
            said = json.loads(_beside(path).read_text())
            return {key: said[key] for key in _KNOWN}
        except (OSError, ValueError, KeyError, TypeError):
            return {}


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
