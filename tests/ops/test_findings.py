"""What the per-file tools print, read file by file."""

from __future__ import annotations

import json

import pytest

from ops import findings
from ops.shell import Result


@pytest.mark.parametrize("read", ["black", "isort", "flake8", "bandit"])
def test_a_crash_is_never_read_as_green(read: str) -> None:
    crash = Result(1, "", "Traceback: boom", 0.1)
    assert not getattr(findings, read)(crash, ("a.py",), "/root").understood


def test_bandit_must_account_for_every_file() -> None:
    empty = json.dumps({"errors": [], "results": [], "metrics": {}})
    assert not findings.bandit(Result(0, empty, "", 0.1), ("a.py",), "/").understood


def test_a_diff_line_that_looks_like_a_header_splits_nothing() -> None:
    out = "--- a.py\tnow\n+++ a.py\tnow\n@@ -1 +1 @@\n--- b.sql\n+-- b.sql\n"
    found = findings.black(Result(1, out, "", 0.1), ("a.py", "b.py"), "/")
    assert list(found.text) == ["a.py"]
    assert found.text["a.py"].endswith("--- b.sql\n+-- b.sql")
