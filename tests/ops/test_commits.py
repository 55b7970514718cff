"""Conventional Commits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ops import commits, errors
from tests.ops.checkouts import write

CASES = json.loads((Path(__file__).parents[1] / "cases/commits.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=[case["message"][:40] for case in CASES])
def test_commit_message(tmp_path: Path, case: dict) -> None:
    write(tmp_path, "message", case["message"])
    try:
        commits.check(tmp_path / "message")
        assert case["good"]
    except errors.Refused as refused:
        assert not case["good"]
        assert "type(scope)" in refused.allowed
