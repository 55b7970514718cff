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


PARSE = (
    "error: cannot parse for target version Python 3.11: b.py:1:4\n    def (:\n       ^"
)


@pytest.mark.parametrize(
    ("err", "path"),
    [(PARSE, "b.py"), ("error: cannot format a.py: unknown encoding: x", "a.py")],
)
def test_what_black_cannot_parse_is_a_finding_of_that_file(err: str, path: str) -> None:
    found = findings.black(Result(123, "", err, 0.1), ("a.py", "b.py"), "/")
    assert found.understood and found.text == {path: err}


def test_an_error_of_black_about_no_file_is_not_understood() -> None:
    out = "--- a.py\tnow\n+++ a.py\tnow\n"
    found = findings.black(
        Result(123, out, "error: out of memory", 0.1), ("a.py",), "/"
    )
    assert not found.understood


@pytest.mark.parametrize("read", ["black", "isort", "flake8", "bandit"])
@pytest.mark.parametrize(("code", "timed_out"), [(-9, False), (-15, True), (1, True)])
def test_a_tool_that_was_ended_is_not_understood(
    read: str, code: int, timed_out: bool
) -> None:
    out = {"bandit": '{"errors": [], "results": [], "metrics": {"a.py": {}}}'}
    shown = out.get(read, "a.py:1:1: E1 x" if read == "flake8" else "--- a.py\tnow")
    ended = Result(code, shown, "", 0.1, timed_out)
    assert not getattr(findings, read)(ended, ("a.py",), "/").understood
