"""Read the logs of one host from where their reader left off.

The reader keeps the positions: which file it was, and how far it was read. So a cut
connection loses and repeats nothing, and nothing is kept here. Standard library only.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ops.lines import Line, chosen, grouped, redacted, stamp

# Bytes: of one answer and source, of a first look, and of a line before it is cut.
PIECE = 256 * 1024
FIRST = 4 * 1024 * 1024
_LONGEST = 16 * 1024
_HEAD = 64
_POLL = 0.1

# (inode, bytes of the head, their checksum, offset)
Position = Sequence[int]


def look(
    logs: Mapping[str, Path],
    positions: Mapping[str, Position] | None,
    *,
    since: float = 0.0,
    grep: str = "",
    last: int | None = None,
    torn: bool = False,
    wait: float = 0.0,
    secrets: Collection[str] = (),
) -> dict[str, Any]:
    """Return what was written to each log after its position, and the new positions.

    Without positions it is a first look: at the end of each log, for its `last`
    entries, those `since` a moment, those that hold a text. A log that has no position
    among others is new, and read from its beginning. Where nothing is new it waits up
    to `wait` seconds. `torn`: a last line without its end is looked at too, by a
    reader who will not come back for it.
    """
    until = time.monotonic() + wait
    while True:
        found = {
            name: piece
            for name, path in logs.items()
            if (
                piece := (
                    _first(path, since, grep, last, torn)
                    if positions is None
                    else _next(path, positions.get(name))
                )
            )
        }
        fresh = any(piece["lines"] for piece in found.values())
        if fresh or positions is None or time.monotonic() >= until:
            break
        time.sleep(_POLL)
    for piece in found.values():
        piece["lines"] = [
            [at, redacted(text, secrets)] for at, text in piece.pop("lines")
        ]
    return {"logs": found, "now": time.time()}


def _first(
    path: Path, since: float, grep: str, last: int | None, torn: bool
) -> dict[str, Any] | None:
    """Return the end of a log."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            begin = _begin(file, size, last if not since and not grep else None)
            file.seek(begin)
            data = file.read(size - begin)
            position = _position(file, begin + _whole(data))
    except OSError:
        return None
    lines = _lines(data if torn else data[: _whole(data)])
    wanted = chosen(grouped(lines), since=since, grep=grep, last=last)
    older = begin > 0 and (bool(since) or bool(grep))
    # What is left out is told only where it might have been wanted.
    partly = older and (last is None or len(wanted) < last)
    if partly and since and lines and lines[0][0] is not None:
        partly = lines[0][0] > since
    return {"position": position, "lines": wanted, "partly": partly}


def _begin(file: BinaryIO, size: int, last: int | None) -> int:
    """Return where to begin for the last lines, at the beginning of one."""
    floor = max(0, size - FIRST)
    if last is None:
        begin = floor
    else:
        begin, found = size, 0
        while begin > floor and found <= last:
            step = min(PIECE // 4, begin - floor)
            begin -= step
            file.seek(begin)
            found += file.read(step).count(b"\n")
    if begin:
        file.seek(begin - 1)
        before = file.read(1)
        if before != b"\n":
            file.seek(begin)
            begin += len(file.readline())
    return begin


def _next(path: Path, position: Position | None) -> dict[str, Any] | None:
    """Return what a log holds after a position, of a rotated file first."""
    try:
        if position is not None and not _same(path, position):
            old = _rotated(path, position)
            if old is not None:
                piece = _read(old, position[3])
                # The writer has gone over to the new file once that holds something.
                if piece["lines"] or not path.exists() or not path.stat().st_size:
                    return piece
            position = None
        return _read(path, position[3] if position else 0)
    except OSError:
        return None


def _read(path: Path, offset: int) -> dict[str, Any]:
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(PIECE)
        whole = _whole(data)
        if not whole and len(data) == PIECE:
            # A line without an end is handed on in pieces.
            whole = len(data)
        position = _position(file, offset + whole)
    return {"position": position, "lines": _lines(data[:whole]), "partly": False}


def _same(path: Path, position: Position) -> bool:
    """Say whether a path still is the file that was read: not another, not cut."""
    inode, head, checksum, offset = position
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_ino != inode or status.st_size < offset:
                return False
            return zlib.crc32(file.read(head)) == checksum
    except OSError:
        return False


def _rotated(path: Path, position: Position) -> Path | None:
    """Return the file that was read, where it has another name now."""
    for other in sorted(path.parent.glob(f"{path.name}?*")):
        if other.is_file() and _same(other, position):
            return other
    return None


def _position(file: BinaryIO, offset: int) -> list[int]:
    # What a file begins with tells it from a later one in the same place.
    head = min(offset, _HEAD)
    file.seek(0)
    checksum = zlib.crc32(file.read(head))
    return [os.fstat(file.fileno()).st_ino, head, checksum, offset]


def _whole(data: bytes) -> int:
    return data.rfind(b"\n") + 1


def _lines(data: bytes) -> list[Line]:
    east = time.localtime().tm_gmtoff
    found: list[Line] = []
    for line in data.removesuffix(b"\n").split(b"\n") if data else ():
        text = line[:_LONGEST].decode(errors="replace").rstrip("\r")
        text += "…" if len(line) > _LONGEST else ""
        found.append((stamp(text, east), text))
    return found
