"""The real dashboard under gunicorn, on a database of its own: fixtures to import."""

import os
import socket
import subprocess
import sys
import threading
import urllib.request

import pytest

from mltrading_marketdata.preparation import prepare
from mltrading_marketdata.url import parse

START_S = 30


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "sample.db"
    prepare(parse(f"sqlite:///{path}"), seed="sample")
    return path


@pytest.fixture(scope="session")
def serve(tmp_path_factory):
    """Start the dashboard on a database; return its address."""
    running = []

    def start(database):
        folder = tmp_path_factory.mktemp("run")
        # gunicorn takes over a listening socket, so the port is known and cannot be
        # taken, and requests wait in it until the first worker is there.
        listener = socket.create_server(("127.0.0.1", 0))
        descriptor = listener.fileno()
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "ENVIRONMENT": "test",
            "DATABASE_URL": f"sqlite:///{database}",
            "MLTRADING_RUNTIME_DIR": str(folder),
            "WEB_WORKERS": "1",
            "LOG_LEVEL": "warning",
            "COMPARISON_MODE": "true",
        }
        command = [sys.executable, "-m", "gunicorn", "mltrading_dashboard.wsgi:server"]
        command += ["--config", "python:mltrading_dashboard.gunicorn_conf"]
        process = subprocess.Popen(
            [*command, "--bind", f"fd://{descriptor}"],
            pass_fds=[descriptor],
            env=environ,
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = []
        reader = threading.Thread(target=lambda: said.extend(process.stderr))
        reader.start()
        running.append((process, reader, said))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.close()
        # Whoever opens a page has seconds for it, and importing all that is not its.
        with urllib.request.urlopen(f"{address}/livez", timeout=2 * START_S) as answer:
            assert answer.status == 200
        return address

    yield start
    for process, reader, said in running:
        process.terminate()
        process.wait(START_S)
        reader.join()
        process.stderr.close()
    errors = [line for *_, said in running for line in said if "Traceback" in line]
    assert not errors, "".join(line for *_, said in running for line in said)


@pytest.fixture(scope="session")
def address(serve, database):
    return serve(database)
