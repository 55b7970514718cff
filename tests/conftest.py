"""What all tests share: which of them need what not every machine has."""

from __future__ import annotations

import os

import pytest

NEED_ROOT = (
    "tests/fleet/",
    "tests/end_to_end/test_ssh.py",
    "tests/dashboard/test_watched.py",
)
_left_out: dict[str, list[pytest.Item]] = {}


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out what this user or machine can't run; it is counted and shown.

    Throw-away hosts are namespaces and mounts, which are for root; CI runs as root. A
    test module may say by a `why_not(item)` what else is missing.
    """
    _left_out.clear()
    kept = []
    for item in items:
        why = _why_not(item)
        (_left_out.setdefault(why, []) if why else kept).append(item)
    items[:] = kept
    for every in _left_out.values():
        config.hook.pytest_deselected(items=every)


def _why_not(item: pytest.Item) -> str:
    if item.nodeid.startswith(NEED_ROOT) and os.geteuid() != 0:
        return "throw-away hosts and disks need root"
    ask = getattr(getattr(item, "module", None), "why_not", None)
    return ask(item) if ask else ""


def pytest_report_collectionfinish() -> list[str]:
    return _told()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _left_out:
        terminalreporter.section("left out", yellow=True)
        for line in _told():
            terminalreporter.line(line)


def _told() -> list[str]:
    return [f"{len(items)} tests left out: {why}" for why, items in _left_out.items()]
