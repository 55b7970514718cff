"""No cached answer differs from a cold one, whatever is changed in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import mutations
from ops import grounds
from tests.ops.checkouts import checkout


@pytest.mark.integration
def test_no_change_gets_an_answer_of_before_it(tmp_path: Path) -> None:
    assert mutations.simple(60, 7, tmp_path) == []


@pytest.mark.integration
def test_no_change_gets_a_wrong_answer_of_the_real_tools(tmp_path: Path) -> None:
    assert mutations.real(24, 7, tmp_path, checkout) == []


@pytest.mark.integration
@pytest.mark.parametrize("part", ["config", "environment", "tools", "layout"])
def test_a_ground_that_is_left_out_is_found(
    tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search itself can fail: with one ground missing it does."""
    whole = grounds._base
    monkeypatch.setattr(grounds, "_base", lambda *a: {**whole(*a), part: {}})
    assert mutations.simple(150, 7, tmp_path)
