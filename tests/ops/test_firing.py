"""Which alerts fire, from what the watch and Alertmanager say."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest

from ops.alerts import firing

LOW = {"alert": "LowDisk", "severity": "critical", "labels": [["disk", "data"]]}
HIGH = {"alert": "HighMemory", "severity": "warning", "labels": []}


def book(folder: Path, *alerts: dict[str, Any]) -> None:
    document = {"format": 1, "alerts": list(alerts), "waiting": []}
    (folder / "watch.json").write_text(json.dumps(document))


def test_what_fires_is_told_while_somebody_watches(tmp_path: Path) -> None:
    phases = ("firing", "pending", "")
    book(tmp_path, *({**LOW, "phase": phase} for phase in phases))
    assert firing.watched(tmp_path) == ()
    with (tmp_path / "watch.lock").open("w") as seat:
        fcntl.flock(seat, fcntl.LOCK_EX)
        assert firing.watched(tmp_path) == ("critical LowDisk (disk data)",)
    assert firing.watched(tmp_path) == ()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"alerts": [1]}', "null"])
def test_a_book_that_is_none_tells_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "watch.json").write_text(text)
    with (tmp_path / "watch.lock").open("w") as seat:
        fcntl.flock(seat, fcntl.LOCK_EX)
        assert firing.watched(tmp_path) == ()


def test_alertmanager_is_read_without_what_it_silences() -> None:
    def alert(name: str, state: str) -> dict[str, Any]:
        labels = {"alertname": name, "severity": "warning", "env": "x", "disk": "d"}
        return {"labels": labels, "status": {"state": state}}

    said = [alert("A", "active"), alert("B", "suppressed"), alert("A", "active")]
    assert firing.listed(json.dumps(said).encode()) == ("warning A (disk d)",)
    for odd in (b"", b"{}", b"[1]", b"null"):
        assert firing.listed(odd) == ()
