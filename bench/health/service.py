"""A gunicorn with metrics whose workers can be ended, to see what is counted."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

CONF = """
bind = "unix:app.sock"
workers = {workers}
threads = 4
worker_class = "gthread"
preload_app = True
control_socket_disable = True
graceful_timeout = 10
def post_worker_init(worker):
    # Only now a SIGTERM is its own: before, it is lost in what the master would do.
    open(f"ready_{{worker.pid}}", "w").close()
from mltrading_health.gunicorn import install
install(globals())
"""
APP = """
import os
from mltrading_health import Health, Metrics, wsgi
health = Health("bench", release="r1", runtime_dir=os.environ["MLTRADING_RUNTIME_DIR"])
metrics = Metrics()
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "6")])
    return [b"hello\\n"]
app = wsgi(app, health, metrics, route=lambda environ: environ["PATH_INFO"])
# Beside the requests, so that each worker stores some 200 values.
names = [f"S{number}" for number in range(170)]
symbols = metrics.counter("symbols", "Symbols", {"symbol": names})
def used():
    for name in names:
        symbols.labels(name).inc()
"""
# Each worker counts what the master has prepared, once it is there.
USED = """
_post_fork = post_fork
def post_fork(server, worker):
    _post_fork(server, worker)
    import served
    served.used()
"""


class Gunicorn:
    """A gunicorn that listens on a unix socket in a folder."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder, self.workers = folder, workers
        (folder / "conf.py").write_text(CONF.format(workers=workers) + USED)
        (folder / "served.py").write_text(APP)
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "-c", "conf.py", "served:app"],
                cwd=folder,
                env={**os.environ, "MLTRADING_RUNTIME_DIR": str(folder / "run")},
                stderr=log,
            )
        self.metrics = folder / "run" / "metrics" / str(self.process.pid)

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of one request on a connection of its own."""
        connection = http.client.HTTPConnection("localhost", timeout=30)
        try:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(30)
            connection.sock.connect(str(self.folder / "app.sock"))
            connection.request("GET", path, headers={"Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def counted(self, path: str) -> int:
        """Return how many answers to a path the workers say they gave."""
        found = re.search(
            rf'requests_total{{.*"{path}",status="2xx"}} (\S+)', self.get("/metrics")[1]
        )
        return int(float(found[1])) if found else 0

    def ready(self) -> dict[str, int]:
        """Return the workers that listen to signals, by slot."""
        found = {}
        for path in self.metrics.glob("worker_*.pid"):
            try:
                pid = path.read_text().strip()
            except FileNotFoundError:
                continue  # its worker has just ended
            if pid and (self.folder / f"ready_{pid}").exists():
                found[path.stem] = int(pid)
        return found

    def wait_ready(self, gone: int = 0) -> None:
        """Wait until all workers are there, and one that was ended is not."""
        wait_for(
            lambda: len(self.ready()) == self.workers
            and gone not in self.ready().values()
        )

    def restart_worker(self, number: int, signum: int) -> None:
        """End one of the workers, each in its turn, and wait for its successor."""
        workers = self.ready()
        victim = workers[sorted(workers)[number % len(workers)]]
        os.kill(victim, signum)
        self.wait_ready(gone=victim)
        (self.folder / f"ready_{victim}").unlink()

    def reload(self) -> None:
        """Replace all workers, as HUP does, and wait for the new ones."""
        before = set(self.ready().values())
        self.process.send_signal(signal.SIGHUP)
        wait_for(
            lambda: len(self.ready()) == self.workers
            and not before & set(self.ready().values())
        )

    def stop(self) -> None:
        """End it and all its workers."""
        self.process.terminate()
        self.process.wait(60)


def wait_for(fact: Callable[[], bool], seconds: float = 120.0) -> None:
    """Poll a fact until it is true."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not fact():
        if time.monotonic() > deadline:
            raise SystemExit("the service did not come to rest in time")
        pause.wait(0.005)
