"""The real dashboard under gunicorn, and a real browser that looks at it."""

import os
import shutil

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.served import address, database, serve

__all__ = ["address", "database", "serve"]

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
