"""The licence gate: what is locked must be known and let in."""

from __future__ import annotations

import pytest

from ops.environment import ROOT
from ops.licences import permits, problems, read, stated

ALLOWED = ("MIT", "BSD-3-Clause")


@pytest.mark.parametrize(
    ("expression", "good"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT AND BSD-3-Clause", True),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("MIT AND (GPL-3.0-only OR BSD-3-Clause)", True),
        ("(MIT", False),
        ("MIT MIT", False),
        ("", False),
    ],
)
def test_an_expression_is_met_by_allowed_licences_alone(
    expression: str, good: bool
) -> None:
    assert permits(expression, ALLOWED) is good


def test_each_way_not_to_be_let_in_is_told() -> None:
    found = {"a": "MIT", "b": "GPL-3.0-only", "c": "", "d": "GPL-3.0-only"}
    said = problems("abcd", found, ALLOWED, {"e": "MIT"}, {"d": "a reason"})
    assert said == [
        "b: GPL-3.0-only is not allowed",
        "c: no licence is known",
        "e: in known, but not locked",
    ]


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("License-Expression: MIT OR X\nLicense: other\n\nbody", "MIT OR X"),
        ("Classifier: License :: OSI Approved :: MIT License\n", "MIT"),
        ("License: Apache-2.0\n", "Apache-2.0"),
        ("License: MPL-2.0 AND MIT\n", "MPL-2.0 AND MIT"),
        ("License: ask the author\n", ""),
        ("Name: x\n\nLicense: MIT\n", ""),
    ],
)
def test_a_licence_is_read_from_the_metadata(metadata: str, licence: str) -> None:
    assert stated(metadata) == licence


def test_nearly_all_that_is_locked_here_is_read_here() -> None:
    names, found = read(ROOT / "uv.lock")
    assert len(names) - len([name for name in found if found[name]]) < 20
    assert found["pandas"] == "BSD-3-Clause"
