"""The real dashboard under gunicorn, and a real browser that looks at it."""

import os
import shutil
import socket
import subprocess
import sys
import threading

import pytest
from playwright.sync_api import Page, sync_playwright

from mltrading_marketdata.preparation import prepare
from mltrading_marketdata.url import parse

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
START_S = 30
WAIT_MS = 10_000


def browser_path():
    named = os.environ.get("MLTRADING_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found or not os.access(found, os.X_OK):
        raise RuntimeError(
            f"no browser: MLTRADING_CHROMIUM is {named!r} and none of "
            f"{', '.join(BROWSERS)} is installed; run: inv setup"
        )
    return found


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


@pytest.fixture(scope="session")
def without_database(serve, tmp_path_factory):
    return serve(tmp_path_factory.mktemp("gone") / "no.db")


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=FLAGS)
        # One context, so that only the first page of all fetches the scripts.
        context = browser.new_context(reduced_motion="reduce")
        context.set_default_timeout(WAIT_MS)
        yield context
        browser.close()


@pytest.fixture
def open_page(browser, address):
    """Open a path of the dashboard; at the end nothing may be in the console."""
    pages, complaints, expected = [], [], []

    def open_(
        path="/", *, at=address, width=1440, height=860, scheme="dark", fails=False
    ) -> Page:
        page = browser.new_page()
        pages.append(page)
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        page.on("console", lambda said: _note(said, complaints, expected))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if fails:
            # A page with an error status is reported by the browser itself.
            expected.append(f"{at}{path}")
        page.goto(f"{at}{path}")
        page.locator("main").wait_for()
        return page

    yield open_
    for page in pages:
        page.close()
    assert not complaints


def _note(said, complaints, expected):
    if said.type in ("log", "info", "debug"):
        return
    if said.location.get("url") in expected and "status of" in said.text:
        return
    complaints.append(f"{said.type}: {said.text}")
