"""Deploys and rollbacks under load: failed requests, seconds, memory."""

from __future__ import annotations

import json
import re
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from bench.checkout import Checkout
from bench.load import Load, Request, Result
from bench.run import figure, timed
from ops.command import Answer
from ops.probe import callbacks


def measure(runs: int) -> dict[str, Any]:
    """Do pairs of deploy and rollback at 300 requests a second (10 by default)."""
    deploys, rollbacks, idle = [], [], []
    with tempfile.TemporaryDirectory(prefix="mlt-") as folder:
        checkout = Checkout(Path(folder))
        environ, root = checkout.environ(), checkout.root
        begin = checkout.inv("deploy", "--env", "local", "--port", "0")
        again = checkout.inv("deploy", "--env", "local")
        back = checkout.inv("rollback")
        try:
            timed(begin, cwd=root, environ=environ)
            url = checkout.status()["url"]
            for _ in range(5):
                checkout.change()
                timed(again, cwd=root, environ=environ)
                idle.append(timed(back, cwd=root, environ=environ))
            client = Load(url, requests=requests(url)).start()
            try:
                for _ in range(runs or 10):
                    checkout.change()
                    deploys.append(timed(again, cwd=root, environ=environ))
                    rollbacks.append(timed(back, cwd=root, environ=environ))
            finally:
                found = client.stop()
            rows = windows(found, switches(checkout))
            memory = memory_of(checkout)
        finally:
            checkout.down()
    return {
        "requests": len(found.answers),
        "failures": found.failures,
        "figures": [
            figure("failed requests", [found.failed], "requests", 0),
            figure("idle connections closed", [found.idle_closed], "connections"),
            figure("deploy under load, whole command", deploys, "s", 4),
            figure("rollback under load, whole command", rollbacks, "s"),
            figure("rollback, whole command", idle, "s", 0.5),
            figure(
                "rename to first answer of the new", [row[0] for row in rows], "s", 0.05
            ),
            figure(
                "rename to last request that got the old",
                [row[1] for row in rows],
                "s",
                0.05,
            ),
            figure("answers, median", [found.latency(0.5)], "s"),
            figure("answers, 99 of 100", [found.latency(0.99)], "s"),
            figure("worker, resident", memory["workers"], "MB", 120),
            figure("front door, resident", memory["front"], "MB", 25),
        ],
    }


def requests(url: str) -> list[Request]:
    """Return what browsers ask: pages, their parts, and the callbacks that draw.

    A visit is a page, its layout and dependencies, some assets, one or two callbacks.
    """
    with urllib.request.urlopen(f"{url}_dash-dependencies") as answer:
        described = Answer(200, {}, answer.read())
    drawn = [
        Request("POST", probe.request.path, probe.request.body, probe.request.headers)
        for probe in callbacks(described, ["/", "/charts/AAPL"])
    ]
    with urllib.request.urlopen(url) as answer:
        assets = re.findall(r'(?:href|src)="(/[^"]+)"', answer.read().decode())
    gets = ["/", "/charts/AAPL", "/_dash-layout", "/_dash-dependencies", "/version"]
    return [*(Request("GET", path) for path in [*gets, *assets[:5]]), *drawn]


def switches(checkout: Checkout) -> list[tuple[float, str]]:
    """Return when traffic moved (seconds since the epoch) and to which release."""
    journal = Path(checkout.status()["state"]) / "state" / "journal.jsonl"
    found = []
    for line in journal.read_text().splitlines():
        event = json.loads(line)
        if event.get("step") == "switch" and event["phase"] == "done":
            found.append((event["facts"]["moved"], f"v{event['release']}"))
    return found


def windows(found: Result, moves: list[tuple[float, str]]) -> list[tuple[float, float]]:
    """Return, for each switch under load, seconds to the first new answer and to the
    last request that the old release still answered (0 when there was none)."""
    shift = time.time() - time.monotonic()
    begun = min(answer.sent for answer in found.answers)
    ended = max(answer.sent for answer in found.answers)
    times = [(at - shift, release) for at, release in moves]
    rows = []
    for number, (at, new) in enumerate(times):
        if not begun < at < ended:
            continue
        until = times[number + 1][0] if number + 1 < len(times) else ended
        inside = [a for a in found.answers if at < a.ended and a.sent < until]
        first = min(a.ended - at for a in inside if a.release == new)
        # Of those that end before the next switch: it may overtake a request.
        old = [
            a.sent - at
            for a in inside
            if a.release not in ("", new) and a.sent > at and a.ended < until
        ]
        rows.append((first, max([0.0, *old])))
    return rows


def memory_of(checkout: Checkout) -> dict[str, list[float]]:
    """Return resident megabytes of the current release's workers and of the front."""
    status = checkout.status()
    master, *workers = sorted(status["processes"])
    return {
        "workers": [resident(pid) for pid in workers],
        "front": [resident(status["hosts"][0]["front"]["pid"])],
    }


def resident(pid: int) -> float:
    """Return a process's resident memory in MB (10⁶ bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0
