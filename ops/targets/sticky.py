"""Secrets that follow their newest value, whichever release is gone back to.

A password that was rotated is dead for ever: a release that is rolled back to gets its
own configuration, and in it the value of today. `state/sticky.json` (0600) holds the
values of the newest release that was given traffic, and since which release each is as
it is. Standard library only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ops.errors import StepFailed
from ops.release import Release

# Beside a release: as of which release the values were that it was started with.
STARTED = "STARTED"
SCRATCH = ".sticky.json.new"


class Sticky:
    """The newest values on one host."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def adopt(self, release: Release, own: Mapping[str, str]) -> bool:
        """Take over the values of a release that is about to get traffic.

        One that is older than what is known changes nothing: going back never brings
        an old value. Returns whether something was written.
        """
        known, values = self._read()
        if release.number <= known:
            return False
        fresh: dict[str, dict[str, Any]] = {}
        for name in release.sticky:
            before = values.get(name)
            value = own.get(name) if name in release.secrets else None
            if value is not None and (before is None or before["value"] != value):
                fresh[name] = {"value": value, "since": release.number}
            elif before is not None:
                fresh[name] = before
        if not fresh and not values:
            return False
        _write(self.path, {"release": release.number, "values": fresh})
        return True

    def over(self, release: Release) -> dict[str, str]:
        """Return the values that a release gets instead of its own."""
        known, values = self._read()
        if known <= release.number:
            return {}
        return {n: values[n]["value"] for n in release.secrets if n in values}

    def note_start(self, slot: Path, release: Release) -> None:
        """Note that a release starts now, with the values of now.

        A disk that is full keeps nobody from starting what is gone back to: without
        the note a release is only started once more than it had to be.
        """
        known, _ = self._read()
        with suppress(OSError):
            (slot / STARTED).write_text(str(max(known, release.number)))

    def stale(
        self, slot: Path, release: Release, own: Mapping[str, str]
    ) -> tuple[str, ...]:
        """Return the names of which a release that runs has an old value."""
        known, values = self._read()
        try:
            started = int((slot / STARTED).read_text())
        except (OSError, ValueError):
            started = release.number
        if known <= started:
            return ()
        return tuple(
            name
            for name in release.secrets
            if name in values and values[name]["since"] > started
            # It may have been born with the value of today.
            if started != release.number or own.get(name) != values[name]["value"]
        )

    def _read(self) -> tuple[int, dict[str, dict[str, Any]]]:
        """Return the newest release that had traffic, and its values."""
        try:
            said = json.loads(self.path.read_text())
            return int(said["release"]), dict(said["values"])
        except FileNotFoundError:
            return 0, {}
        except (ValueError, KeyError, TypeError) as error:
            raise StepFailed(
                f"the newest values of secrets can't be read: {error}",
                where=str(self.path),
                next="move the file away; until the next deploy each release that is "
                "rolled back to then gets its own values",
            ) from None


def _write(path: Path, said: Mapping[str, Any]) -> None:
    """Replace a file of this user alone in one step, and wait for the disk."""
    # One name, under the lease: what a crash leaves is written over by the next.
    scratch = path.with_name(SCRATCH)
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(said, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)
