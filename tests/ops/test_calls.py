"""What pages and workflows say about the menu is held against the menu."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ops import calls
from ops.environment import ROOT

PAGE = """
Type `inv deploy --env staging` or `uv run inv fmt`; `import os` is none.
```console
uv run inv setup && inv quality   # both
$ inv status | head
```
A typo such as `inv deplyo` is shown.
"""
FLOW = """
    - uses: actions/checkout@0123456789012345678901234567890123456789 # v5.0.0
    - uses: actions/cache@v4
    - run: uv run --locked inv ci
    - run: |
        make one
        make two
      name: x
"""


def test_calls_are_found_in_the_code_of_a_page() -> None:
    assert [call for _, call in calls.in_page(PAGE)] == [
        "deploy --env staging",
        "fmt",
        "setup",
        "quality",
        "status | head",
    ]


def test_commands_of_a_workflow_are_found_in_blocks_too() -> None:
    assert [command for _, command in calls.in_workflow(FLOW)] == [
        "uv run --locked inv ci",
        "make one",
        "make two",
    ]
    assert list(calls.unpinned(FLOW)) == [(3, "actions/cache@v4")]


@pytest.mark.parametrize(
    ("target", "good"),
    [
        ("b.md", True),
        ("../README.md#start", True),
        ("../ops", True),
        ("https://example.org", True),
        ("#here", True),
        ("none.md", False),
        ("../none/", False),
    ],
)
def test_a_link_must_lead_to_a_file_or_folder(target: str, good: bool) -> None:
    names = frozenset({"README.md", "docs/b.md", "ops/a.py"})
    found = list(calls.broken_links("docs/a.md", f"[x]({target})", names))
    assert found == ([] if good else [(1, target)])


@pytest.mark.integration
def test_invoke_itself_says_what_it_does_not_know() -> None:
    asked = [
        "quality --explain",
        "exec",
        "rollback [--to v7]",
        "bench menu|switch",
        "setup test --unit",
        "qualty",
        "test --smok",
    ]
    # In a process of its own, as the gate does: Invoke uses a task's help up.
    argv = [sys.executable, calls.__file__, json.dumps(asked)]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    said = json.loads(ended.stdout)
    assert [bool(answer) for answer in said] == [False] * 5 + [True] * 2


def test_a_fault_names_file_and_line() -> None:
    found = [("a.md", 3, "qualty"), ("a.md", 4, "fmt")]
    assert calls.problems(found, ["no idea", ""]) == ["a.md:3: inv qualty: no idea"]
