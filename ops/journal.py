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
            os.write(descriptor, (("\n" if torn else "") + text + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def events(self) -> tuple[tuple[Event, ...], int]:
        """Return all whole events, and how many lines had to be passed over."""
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return (), 0
        read = [_parse(line) for line in lines if line.strip()]
        return tuple(event for event in read if event), read.count(None)

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
