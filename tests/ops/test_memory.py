"""One history from several journals: tests/cases/memory.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ops.history import fold
from ops.memory import lacking, ordered, union

CASES = json.loads((Path(__file__).parent.parent / "cases" / "memory.json").read_text())


def event(text: str) -> dict[str, Any]:
    """Return the event in "6 r2 end good caught": epoch, run, phase, outcome."""
    epoch, run, phase, *rest = text.removesuffix(" caught").split()
    base = {"run": run, "op": "deploy", "phase": phase, "at": 1.0, "release": 1}
    facts = {"outcome": rest[0]} if rest else {}
    known = {"epoch": int(epoch), "id": f"{epoch}-{run}-{phase}", "facts": facts}
    return {**base, **known, **({"origin": "x"} if text.endswith("caught") else {})}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_history_of_a_case(case: dict[str, Any]) -> None:
    journals = {
        name: [event(text) for text in texts]
        for name, texts in case["journals"].items()
    }
    expect, whole = case["expect"], union(journals.values())
    ids = [event(text)["id"] for text in expect["order"]]
    assert [each["id"] for each in whole] == ids
    for name, journal in journals.items():
        assert len(lacking(journal, whole)) == expect["lacking"][name]
        caught_up = [*journal, *({**e, "origin": "x"} for e in lacking(journal, whole))]
        assert [each["id"] for each in ordered(caught_up)] == ids
    found = fold(whole)
    assert (found.open.id if found.open else None) == expect["open"]
    outcomes = {run.id: run.outcome for run in found.runs}
    assert outcomes.items() >= expect.get("outcomes", {}).items()
