"""Who may act with a part of the hosts: tests/cases/quorum.json, and why it is safe."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from ops import quorum

CASES = json.loads((Path(__file__).parent.parent / "cases" / "quorum.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_answer_of_a_case(case: dict[str, Any]) -> None:
    assert quorum.enough(case["hosts"], case["held"]) == case["enough"]


@pytest.mark.parametrize("count", range(1, 8))
def test_any_two_who_may_act_share_a_host(count: int) -> None:
    hosts = [f"host{number}" for number in range(count)]
    parts = [
        {*chosen}
        for size in range(count + 1)
        for chosen in itertools.combinations(hosts, size)
        if quorum.enough(hosts, chosen)
    ]
    assert all(one & other for one in parts for other in parts)
    assert {*hosts} in parts


def test_the_refusal_names_who_is_away_what_is_allowed_and_the_way_out() -> None:
    refused = quorum.refuse(["a", "b", "c"], {"a": "no route", "c": "no SSH"}, "prod")
    assert (refused.code, refused.where) == (1, "a: no route; c: no SSH")
    assert refused.allowed == "to act with the lease of 2 of 3 hosts"
    assert "inv doctor --env prod" in refused.next and "--minority" in refused.next


def test_where_no_host_is_left_there_is_no_way_out() -> None:
    refused = quorum.refuse(["a", "b"], {"a": "x", "b": "x"}, "prod")
    assert "--minority" not in refused.next
    assert refused.allowed.endswith("2 of 2 hosts, or 1 with a among them")
