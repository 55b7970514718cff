"""Tell which alerts fire, by what the watch of a folder has written down.

Apart from the watch itself: whoever only reads its book imports nothing of it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from pathlib import Path


def firing(folder: Path, *, labels: bool) -> tuple[str, ...] | None:
    """Return the alerts that fire by the watch of a folder, the critical ones first.

    Each as "critical LowDisk (disk data)", without the brackets where `labels` is
    false. None where nobody sits in the watch's seat, or its book can't be read: what
    is in it then was true once.
    """
    try:
        seat = os.open(folder / "watch.lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(seat, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        pass  # somebody sits there
    else:
        return None
    finally:
        os.close(seat)
    try:
        said = json.loads((folder / "watch.json").read_text())
        return tuple(sorted(set(_sentences(said["alerts"], labels))))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sentences(alerts: Iterable[dict], labels: bool) -> Iterable[str]:
    for each in alerts:
        if each["phase"] != "firing":
            continue
        names = {"env", "service"}
        more = [f"{k} {v}" for k, v in sorted(each["labels"]) if k not in names]
        tail = f" ({', '.join(more)})" if labels and more else ""
        yield f"{each['severity']} {each['alert']}{tail}"
