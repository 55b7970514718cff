"""What a host has already, by content: only what it lacks is sent to it.

A manifest names the files of an installed environment, one a line: sha256, size, x or
-, path. Files that another environment of the host has are linked, all others come in
one tar stream whose members are named by their sha256. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import shutil
import sys
import tarfile
import venv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ops.errors import StepFailed
from ops.targets import installed
from ops.targets.installed import MANIFEST, READY, Entry, parse, sha_of

# What is brought for the data layer: so many bytes at once, under such names.
_MOST = 1024**3
_NAME = re.compile(r"[a-z0-9]+\.(json|npz)")
_SHA = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1024 * 1024
# So many files may be new in an environment that still needs no warming up.
_FEW = 200


class Store:
    """The files below one environment's folder on a host."""

    def __init__(self, root: Path) -> None:
        self.environments = root / "envs"
        self.wheels = root / "wheels"
        self.arrivals = root / "incoming"
        self.expected: dict[str, tuple[Entry, ...]] = {}

    def lacking_files(self, name: str, manifest: str) -> list[str]:
        """Return the sha256 of the files of environment `name` that are not here."""
        self.expected[name] = parse(manifest)
        here = self._here()
        wanted = {entry.sha for entry in self.expected[name]}
        return sorted(wanted - here.keys())

    def make(self, name: str, stream: BinaryIO) -> dict[str, Any]:
        """Make environment `name` from a tar stream and from what is here.

        Made under another name and renamed, so a cut leaves nothing that looks whole.

        Raises:
            StepFailed: a file does not hold what its name says.
        """
        entries = self.expected.pop(name)
        home = self.environments / name
        scratch = self.environments / f".{name}-{os.getpid()}"
        shutil.rmtree(scratch, ignore_errors=True)
        venv.EnvBuilder(symlinks=True, with_pip=False).create(scratch)
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        site = scratch / "lib" / version / "site-packages"
        places: dict[str, list[Entry]] = {}
        for entry in entries:
            places.setdefault(entry.sha, []).append(entry)
            (site / entry.path).parent.mkdir(parents=True, exist_ok=True)
        sent = _received(stream, {sha: site / places[sha][0].path for sha in places})
        here = self._here()
        for sha, same in places.items():
            first = site / same[0].path
            if sha not in sent:
                source = here.get(sha)
                if source is None or sha_of(source) != sha:
                    self._distrust(source)
                    raise StepFailed(
                        "a file of an older environment was changed or removed",
                        where=str(source or first),
                        next="inv deploy, which sends it again",
                    )
                os.link(source, first)
                _link_bytecode(source, [site / each.path for each in same])
            first.chmod(0o700 if same[0].executable else 0o600)
            for other in same[1:]:
                os.link(first, site / other.path)
        installed.note(scratch, entries)
        if len(sent) <= _FEW and any(self.environments.glob("*/WARM")):
            # Hardly anything is left to compile.
            (scratch / "WARM").write_text("")
        (scratch / READY).write_text("")
        _sync_all(scratch)
        installed.place(scratch, home)
        _sync_all(self.environments)
        return {"made": True, "sent": len(sent), "files": len(entries)}

    def _distrust(self, source: Path | None) -> None:
        """Take no file any more from the environment that holds a changed one."""
        if source is not None:
            inside = source.relative_to(self.environments)
            installed.distrust(self.environments / inside.parts[0])

    def lacking_wheels(self, shas: Iterable[str]) -> list[str]:
        """Return which of these wheels are not here; a damaged one is not."""
        return [
            sha
            for sha in shas
            if not (self._wheel(sha).exists() and sha_of(self._wheel(sha)) == sha)
        ]

    def take_wheels(self, shas: Iterable[str], stream: BinaryIO) -> None:
        """Put wheels that were sent where `wheel` finds them."""
        self.wheels.mkdir(mode=0o700, exist_ok=True)
        scratch = {sha: self.wheels / f".{sha}-{os.getpid()}" for sha in shas}
        for sha in _received(stream, scratch):
            os.replace(scratch[sha], self._wheel(sha))

    @contextlib.contextmanager
    def incoming(self, stream: BinaryIO) -> Iterator[Path]:
        """Give a folder with the files of a tar stream while the block runs.

        Whoever asks holds the lease: what an earlier one left is removed.

        Raises:
            StepFailed: a member is no plain file, or is too much.
        """
        folder = self.arrivals / str(os.getpid())
        shutil.rmtree(self.arrivals, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        try:
            left = _MOST
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    source = archive.extractfile(member) if member.isreg() else None
                    left -= member.size
                    if source is None or not _NAME.fullmatch(member.name) or left < 0:
                        raise StepFailed(f"{member.name} was not to be sent")
                    with (folder / member.name).open("xb") as file:
                        shutil.copyfileobj(source, file, _CHUNK)
            yield folder
        finally:
            shutil.rmtree(self.arrivals, ignore_errors=True)

    def wheel(self, sha: str) -> Path:
        """Return a wheel that is here."""
        path = self._wheel(sha)
        os.utime(path)
        return path

    def _wheel(self, sha: str) -> Path:
        if not _SHA.fullmatch(sha):
            raise StepFailed(f"{sha} is not a sha256", where=str(self.wheels))
        return self.wheels / f"{sha}.whl"

    def _here(self) -> dict[str, Path]:
        """Return a place of each file that an environment here holds.

        One that is not READY, as something of it was found altered, is left out.
        """
        found: dict[str, Path] = {}
        for manifest in self.environments.glob("*/" + MANIFEST):
            if not (manifest.parent / READY).exists():
                continue
            for site in manifest.parent.glob("lib/python*/site-packages"):
                for entry in parse(manifest.read_text()):
                    path = site / entry.path
                    if entry.sha not in found and _size(path) == entry.size:
                        found[entry.sha] = path
        return found


def _received(stream: BinaryIO, places: dict[str, Path]) -> set[str]:
    """Write the members of a tar stream to their places; return those that came."""
    came = set()
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            source = archive.extractfile(member) if member.isreg() else None
            if source is None or member.name not in places:
                raise StepFailed(f"{member.name} was not asked for")
            digest = hashlib.sha256()
            with places[member.name].open("xb") as file:
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != member.name:
                raise StepFailed(
                    "a file arrived with other contents than were announced",
                    where=str(places[member.name]),
                    next="inv deploy, which sends it again",
                )
            came.add(member.name)
    return came


def _link_bytecode(source: Path, places: Iterable[Path]) -> None:
    """Take over the byte-code of a source that was linked from another environment.

    Byte-code is valid for its source's date and size, which links share.
    """
    name = f"{source.stem}.{sys.implementation.cache_tag}.pyc"
    compiled = source.parent / "__pycache__" / name
    if source.suffix != ".py" or not compiled.exists():
        return
    for place in places:
        if place.name == source.name:
            folder = place.parent / "__pycache__"
            folder.mkdir(exist_ok=True)
            os.link(compiled, folder / name)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _sync_all(folder: Path) -> None:
    """Wait until all of the file system that holds a folder is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)
