"""What all tests share: which of them need to be root."""

from __future__ import annotations

import os

import pytest

NEED_ROOT = ("tests/fleet/", "tests/end_to_end/test_ssh.py")
_left_out: list[pytest.Item] = []


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave throw-away hosts to root: namespaces and mounts are not for others.

    CI runs as root, so there nothing is left out.
    """
    if os.geteuid() == 0:
        return
    _left_out[:] = [item for item in items if item.nodeid.startswith(NEED_ROOT)]
    items[:] = [item for item in items if not item.nodeid.startswith(NEED_ROOT)]
    config.hook.pytest_deselected(items=_left_out)


def pytest_report_collectionfinish() -> str:
    if not _left_out:
        return ""
    return f"{len(_left_out)} tests of throw-away hosts left out: they need root"
