"""What measuring a request costs, next to an exporter for Flask in the same process."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

from bench.health.apart import figures_of
from bench.run import figure
from ops import report

#: MIT; it needs Flask and prometheus-client, which are here. Never in the lock.
PEER = "prometheus-flask-exporter==0.23.2"
ROUNDS, REQUESTS = 300, 50
PATH = "/charts/AAPL"


def measure(runs: int = 0) -> dict[str, Any]:
    """Return the figures of `runs` rounds (300), each of 50 requests of each kind."""
    with tempfile.TemporaryDirectory(prefix="mlt-peer-") as folder:
        peer = install(Path(folder))
        return figures_of("overhead", str(runs or ROUNDS), peer)


def install(folder: Path) -> str:
    """Install the peer; return where, or nothing where that can't be done."""
    uv = os.environ.get("UV") or shutil.which("uv") or "uv"
    command = [uv, "pip", "install", "-q", "--no-deps", "--target", str(folder)]
    ended = subprocess.run(
        [*command, "--python", sys.executable, PEER], capture_output=True, text=True
    )
    if ended.returncode:
        report.say(f"  {PEER} is missing: {ended.stderr.strip()[-300:]}", "yellow")
        return ""
    return str(folder)


def compared(rounds: int, peer: str) -> list[dict[str, Any]]:
    """Return processor µs of a request that measuring adds, kind by kind.

    All kinds take turns in one process; a difference is one of the same round.
    """
    apps = {"bare": flask_app(), **measured_apps(peer)}
    # Each once before, so that all series are there.
    for app in apps.values():
        processor_us(app, 50)
    took: dict[str, list[float]] = {name: [] for name in apps}
    for _ in range(rounds):
        for name, app in apps.items():
            took[name].append(processor_us(app, REQUESTS))
    alone = [processor_us(empty_app, 2000) for _ in range(rounds)]
    around = [processor_us(measured(empty_app), 2000) for _ in range(rounds)]
    added = {
        name: [value - bare for value, bare in zip(values, took["bare"], strict=True)]
        for name, values in took.items()
        if name != "bare"
    }
    ours = "our metrics around Flask"
    rows = [
        figure(
            "our metrics around an empty app",
            [x - y for x, y in zip(around, alone, strict=True)],
            "µs",
            10.0,
        ),
        figure("a request of Flask without metrics", took["bare"], "µs"),
        *(
            figure(name, values, "µs", 10.0 if name == ours else None)
            for name, values in added.items()
        ),
    ]
    # Where others keep the processor busy, what is cold costs most: the quietest rounds
    # say what it is without them.
    quiet = {name: min(values) - min(took["bare"]) for name, values in took.items()}
    rows.append(figure(f"{ours}, quietest rounds", [quiet[ours]], "µs", 10.0))
    if peer:
        its = "its metrics around Flask"
        ratio = statistics.median(added[its]) / statistics.median(added[ours])
        rows.append(figure("its median to ours", [ratio], "×", least=3.0))
        ratio = quiet[its] / quiet[ours]
        rows.append(figure("the same of the quietest rounds", [ratio], "×", least=3.0))
    return rows


def measured_apps(peer: str) -> dict[str, Callable[..., Any]]:
    """Return Flask apps of which each request is counted and timed by its rule."""
    apps: dict[str, Callable[..., Any]] = {}
    if peer:
        sys.path.append(peer)
        from prometheus_client import CollectorRegistry
        from prometheus_flask_exporter.multiprocess import GunicornPrometheusMetrics

        exported = flask_app()
        # By rule, as ours: by default it makes a series of each path.
        GunicornPrometheusMetrics(
            exported, group_by="url_rule", registry=CollectorRegistry()
        )
        # Its series are made before ours change what prometheus-client makes them of.
        processor_us(exported, 50)
        apps["its metrics around Flask"] = exported
    from mltrading_health import Health, Metrics
    from mltrading_health.flask import flask

    server = flask_app()
    flask(server, Health("bench", release="r1"), Metrics())
    return {"our metrics around Flask": server, **apps}


def flask_app() -> Any:
    """Return a Flask app with one view."""
    from flask import Flask

    server = Flask("bench")
    server.add_url_rule("/charts/<symbol>", "chart", lambda symbol: "hello\n")
    return server


def empty_app(environ: Any, start: Any) -> list[bytes]:
    """Answer a request, at no cost."""
    start("200 OK", [("Content-Length", "6")])
    return [b"hello\n"]


def measured(app: Any) -> Any:
    """Return an app with our middleware around it."""
    from mltrading_health import Health, Metrics, wsgi

    health = Health("bench", release="r1")
    return wsgi(app, health, Metrics(), route=lambda environ: "/charts/<symbol>")


def processor_us(app: Any, times: int) -> float:
    """Return µs of processor time per request, its answer read and closed."""
    template: dict[str, Any] = {"PATH_INFO": PATH, "QUERY_STRING": ""}
    setup_testing_defaults(template)
    begun = time.thread_time_ns()
    for _ in range(times):
        parts = app(dict(template), lambda *_: None)
        for _ in parts:
            pass
        close = getattr(parts, "close", None)
        if close is not None:
            close()
    return (time.thread_time_ns() - begun) / times / 1000


if __name__ == "__main__":
    print(json.dumps(compared(int(sys.argv[1]), sys.argv[2])))
