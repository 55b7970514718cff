"""The append-only record of intents and outcomes.

One JSON object a line, flushed to the disk before the effect it announces. Each line
holds the hash of the line before it, so a line that was changed or lost is seen. A
line torn by a crash is passed over, never believed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops.history import Event, History, fold

START = "0" * 16
# Bytes; a rollback writes some 5 kB.
RESERVE = 256 * 1024


class Journal:
    """The journal file of one environment on one host."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reserve = path.with_name("reserve")
        self._events: list[Event] = []
        self._offset = self._broken = 0

    def append(self, event: dict[str, Any]) -> None:
        """Write one event and wait until it is on the disk.

        On a full disk the reserve is given up first: a rollback is small, and a full
        disk may be why it is needed.

        Raises:
            OSError: the disk is full, read-only or gone; nothing may be done then.
        """
        try:
            self._append(event)
        except OSError as error:
            if error.errno != errno.ENOSPC or not self.give_up_reserve():
                raise
            self._append(event)

    def keep_reserve(self) -> None:
        """Hold back some disk space for the day on which there is none."""
        if self.reserve.exists():
            return
        try:
            self.reserve.write_bytes(os.urandom(RESERVE))
        except OSError:
            self.reserve.unlink(missing_ok=True)

    def give_up_reserve(self) -> bool:
        """Free the reserve; False when it is gone already."""
        try:
            self.reserve.unlink()
        except FileNotFoundError:
            return False
        return True

    def _append(self, event: dict[str, Any]) -> None:
        last, torn = self._tail()
        line = dict(event, prev=last)
        line["hash"] = _digest(line)
        text = json.dumps(line, sort_keys=True, separators=(",", ":"))
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            # A torn tail is closed off, so that this line stands alone.
            line_bytes = (("\n" if torn else "") + text + "\n").encode()
            before = os.fstat(descriptor).st_size
            if os.write(descriptor, line_bytes) != len(line_bytes):
                # A disk that fills up in the middle of a line takes half of it.
                os.ftruncate(descriptor, before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def events(self) -> tuple[tuple[Event, ...], int]:
        """Return all whole events, and how many lines are torn, changed or missing.

        Only what was written since the last call is read again.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return (), 0
        # A last line without its end may still be growing: not counted as read.
        whole = text.rfind(b"\n") + 1
        last = self._events[-1]["hash"] if self._events else START
        for line in filter(None, text[:whole].splitlines()):
            event = _parse(line)
            if event is None:
                self._broken += 1
                continue
            self._broken += event.get("prev") != last
            last = event["hash"]
            self._events.append(event)
        self._offset += whole
        return tuple(self._events), self._broken + (whole < len(text))

    def history(self) -> History:
        """Return the history that this journal tells."""
        return fold(*self.events())

    def _tail(self) -> tuple[str, bool]:
        """Return the hash of the last whole line, and whether the tail is torn."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 65_536))
                tail = file.read()
        except FileNotFoundError:
            return START, False
        for line in reversed(tail.splitlines()):
            event = _parse(line)
            if event:
                return event["hash"], not tail.endswith(b"\n")
        return START, bool(tail) and not tail.endswith(b"\n")


def _digest(line: Mapping[str, Any]) -> str:
    body = {key: value for key, value in line.items() if key != "hash"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or event.get("hash") != _digest(event):
        return None
    return event
