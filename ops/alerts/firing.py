"""Which alerts fire: as a release that judges itself has written, or by Alertmanager.

Standard library only: hosts use it too.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# What says nothing new to whoever asked for one environment.
_KNOWN = ("alertname", "severity", "env", "service", "job", "monitor")


def watched(folder: Path) -> tuple[str, ...]:
    """Return the alerts that fire by the watch of the releases that share a folder.

    Nothing where nobody holds its seat: what is in the file then was true once.
    """
    try:
        seat = os.open(folder / "watch.lock", os.O_RDONLY)
    except OSError:
        return ()
    try:
        fcntl.flock(seat, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        pass  # somebody sits there
    else:
        return ()
    finally:
        os.close(seat)
    try:
        said = json.loads((folder / "watch.json").read_text())
        every = [each for each in said["alerts"] if each["phase"] == "firing"]
        found = [
            sentence(each["severity"], each["alert"], dict(each["labels"]))
            for each in every
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return told(found)


def listed(body: bytes) -> tuple[str, ...]:
    """Return the alerts in an answer of Alertmanager's v2 API that are not silenced."""
    try:
        found = [
            sentence(
                each["labels"].get("severity", "?"),
                each["labels"]["alertname"],
                each["labels"],
            )
            for each in json.loads(body)
            if each["status"]["state"] == "active"
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()
    return told(found)


def sentence(severity: str, alert: str, labels: Mapping[str, Any]) -> str:
    """Return an alert in one line: "critical LowDisk (disk data)"."""
    more = [f"{name} {labels[name]}" for name in sorted({*labels} - {*_KNOWN})]
    return f"{severity} {alert}" + (f" ({', '.join(more)})" if more else "")


def told(found: Iterable[str]) -> tuple[str, ...]:
    """Return each once, the critical ones first: the alphabet does it."""
    return tuple(sorted(set(found)))
