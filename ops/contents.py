"""What a release unpacks to, file by file, and whether it still holds that.

Standard library only: the deployer lists what is in the wheels, the host what is on its
disk. `FILES` beside a release is the list; `SEEN` says how each file looked to the
kernel when it was read last, so that a file nobody touched need not be read again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

FILES = "FILES"
SEEN = "SEEN"
LIB = "lib"


def of_wheels(wheels: Iterable[Path]) -> str:
    """Return the list of what wheels unpack to: sha256, size, path; one file a line."""
    import zipfile

    found = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    content = archive.read(member)
                    found[member.filename] = _line(content, member.filename)
    return "".join(found[name] for name in sorted(found))


def of_folder(folder: Path) -> str:
    """Return the list of the files below a folder, byte-code left out."""
    names = sorted(name for name, _ in _below(folder))
    return "".join(_line((folder / name).read_bytes(), name) for name in names)


def digest(listed: str) -> str:
    """Return what a release's record says of a list."""
    return hashlib.sha256(listed.encode()).hexdigest()


def differs(wanted: str, there: str) -> str:
    """Return the first path in which two lists differ, "" where they agree."""
    lines = sorted({*wanted.splitlines()} ^ {*there.splitlines()}, key=_path)
    return _path(lines[0]) if lines else ""


def note(slot: Path, listed: str) -> None:
    """Write the list of a release's files, and how they look until one is touched."""
    (slot / FILES).write_text(listed)
    (slot / SEEN).write_text(json.dumps(dict(_below(slot / LIB))))


def altered(slot: Path, wanted: str, *, whole: bool = False) -> str:
    """Return what of a release is not as it was staged, "" when all is.

    `wanted` is the digest of its list. A file that looks as it did is not read again,
    unless the `whole` of it is to be read.
    """
    try:
        listed = (slot / FILES).read_text()
        if digest(listed) != wanted:
            return f"{FILES} is not the list that the record names"
        return _first_altered(slot, listed, whole)
    except OSError as error:
        return f"{Path(error.filename or slot).name} can't be read: {error.strerror}"


def _first_altered(slot: Path, listed: str, whole: bool) -> str:
    looks = _looks(slot)
    there = dict(_below(slot / LIB))
    for line in listed.split("\n")[:-1]:
        name = _path(line)
        look = there.pop(name, None)
        if look is None:
            return f"{LIB}/{name} is gone"
        if whole or looks.get(name) != look:
            if _line((slot / LIB / name).read_bytes(), name) != f"{line}\n":
                return f"{LIB}/{name} holds something else"
    return f"{LIB}/{min(there)} was added" if there else ""


def _looks(slot: Path) -> dict[str, list[int]]:
    try:
        found = json.loads((slot / SEEN).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _line(content: bytes, name: str) -> str:
    return f"{hashlib.sha256(content).hexdigest()} {len(content)} {name}\n"


def _path(line: str) -> str:
    return line.split(" ", 2)[2]


def _below(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Yield the files below a folder and how each looks to the kernel.

    Byte-code is left out: Python makes it, not we.
    """
    # Strings, not paths: this is done for each release whenever a host is looked at.
    folders = [""]
    while folders:
        below = folders.pop()
        with os.scandir(f"{folder}/{below}") as entries:
            for entry in entries:
                name = below + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != "__pycache__":
                        folders.append(f"{name}/")
                    continue
                said = entry.stat(follow_symlinks=False)
                # The kernel sets the change time, whatever a program says of the other.
                look = [said.st_size, said.st_mtime_ns, said.st_ctime_ns, said.st_ino]
                yield name, look
