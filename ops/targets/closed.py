"""Maintenance on one host: files that its front door looks at, so nothing is reloaded.

    closed/on           while it is there, people get the page, with status 503
    closed/page.html    stays when it is over, so that no request meets half of it
    closed/pass-<hex>   whoever sends this word is let through: our own questions

Probes (/livez, /readyz, /startupz, /health, /version) and metrics are answered all the
time: who watches is not people. Standard library only: this runs on the hosts too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ops.command import Request

FOLDER = "closed"
# The header of whoever is let through, and that of an answer which is the page.
PASS = "X-MLTrading-Pass"  # nosec B105 - the name of a header
MARK = "x-maintenance"


def shut(root: Path, page: str) -> None:
    """Show a page to people from now on, also after a reboot.

    Other users of the host may read the page and stat the pass, whose name they can't
    list: the web server is one of them.
    """
    folder = root / FOLDER
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711)
    _write(folder / "page.html", page)
    if not _passes(root):
        _write(folder / f"pass-{os.urandom(16).hex()}", "")
    _write(folder / "on", "")
    _sync(folder)


def reopen(root: Path) -> None:
    """Let people in again."""
    folder = root / FOLDER
    if folder.is_dir():
        (folder / "on").unlink(missing_ok=True)
        for path in _passes(root):
            path.unlink()
        _sync(folder)


def is_shut(root: Path) -> bool:
    """Say whether people get the page."""
    return (root / FOLDER / "on").exists()


def passing(root: Path, requests: Iterable[Request]) -> list[Request]:
    """Return requests that are let through; one that has a pass of its own keeps it."""
    words = [path.name.removeprefix("pass-") for path in _passes(root)]
    if not words:
        return list(requests)
    return [
        replace(request, headers={PASS: words[0], **request.headers})
        for request in requests
    ]


def _passes(root: Path) -> list[Path]:
    return sorted((root / FOLDER).glob("pass-*"))


def _write(path: Path, text: str) -> None:
    """Replace a file in one step, readable by all; on the disk when this returns."""
    scratch = path.with_name(f".{path.name}-{os.getpid()}")
    with scratch.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    scratch.chmod(0o644)
    os.replace(scratch, path)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
