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
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ops.history import Event, History, fold
from ops.memory import identity, ordered

START = "0" * 16
# Bytes; a rollback writes some 5 kB.
RESERVE = 256 * 1024


class Journal:
    """The journal file of one environment on one host."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reserve = path.with_name("reserve")
        self._events: list[Event] = []
        self._offset = self._broken = self._digest = self.highest = 0
        self._ids: set[str] = set()

    def append(self, event: dict[str, Any]) -> None:
        """Write one event and wait until it is on the disk.

        On a full disk the reserve is given up first: a rollback is small, and a full
        disk may be why it is needed.

        One that is here already, as a deployer that lost the answer sends it again, is
        not written twice.

        Raises:
            OSError: the disk is full, read-only or gone; nothing may be done then.
        """
        if event.get("id"):
            self.events()
            if event["id"] in self._ids:
                return
        self._append_from_reserve(event)

    def catch_up(self, events: Iterable[Event]) -> int:
        """Append what other hosts' journals hold and this one lacks; return how many.

        Each keeps its content and gets its place in the chain of this journal; `origin`
        is its hash where it comes from.
        """
        self.events()
        missing = []
        for event in events:
            if identity(event) not in self._ids:
                body = {k: event[k] for k in event if k not in ("prev", "hash")}
                origin = event.get("origin") or event["hash"]
                missing.append({**body, "origin": origin})
        if missing:
            self._append_from_reserve(*missing)
        return len(missing)

    @property
    def digest(self) -> str:
        """Return what is the same for journals that hold the same events."""
        return f"{len(self._ids)}-{self._digest:016x}"

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

    def _append_from_reserve(self, *events: dict[str, Any]) -> None:
        try:
            self._append(*events)
        except OSError as error:
            if error.errno != errno.ENOSPC or not self.give_up_reserve():
                raise
            self._append(*events)

    def _append(self, *events: dict[str, Any]) -> None:
        last, torn = self._tail()
        text = ""
        for event in events:
            line = dict(event, prev=last)
            last = line["hash"] = _digest(line)
            text += json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            # A torn tail is closed off, so that this line stands alone.
            line_bytes = (("\n" if torn else "") + text).encode()
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
            self._know(event)
        self._offset += whole
        return tuple(self._events), self._broken + (whole < len(text))

    def _know(self, event: Event) -> None:
        """Keep what tells quickly whether two journals hold the same events."""
        known = identity(event)
        if known not in self._ids:
            self._ids.add(known)
            said = hashlib.blake2b(known.encode(), digest_size=8).digest()
            # The order does not matter: a host that was away has them in another one.
            self._digest ^= int.from_bytes(said)
        self.highest = max(self.highest, event.get("epoch", 0))

    def history(self) -> History:
        """Return the history that this journal tells."""
        events, torn = self.events()
        return fold(ordered(events), torn)

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
