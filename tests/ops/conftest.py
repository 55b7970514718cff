"""What the tests of the engine share."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.advisories import DATABASE
from tests.ops.checkouts import checkout


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLTRADING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(DATABASE, str(tmp_path / "here" / "advisories"))
    return checkout(tmp_path / "here")
