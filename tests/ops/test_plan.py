"""Decisions: plan.json and rotation.json in tests/cases hold one case a rule."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops.environment import Fleet
from ops.errors import OpsError
from ops.history import History, Run
from ops.plan import (
    Plan,
    plan_deploy,
    plan_down,
    plan_recover,
    plan_rollback,
    plan_up,
    retained,
)
from tests.ops import worlds

FOLDER = Path(__file__).parent.parent / "cases"
CASES = [
    case
    for name in ("plan", "rotation")
    for case in json.loads((FOLDER / f"{name}.json").read_text())
]


SHORT = (
    *("install", "stage", "migrate", "front", "prune", "close"),
    *("leave", "join", "share", "even"),
)


def decide(case: dict[str, Any]) -> Plan | None:
    world, ask = worlds.world(case["world"]), case["ask"]
    keys = {key: ask[key] for key in ("batch", "max_unavailable") if key in ask}
    budget = replace(worlds.ENVIRONMENT.budget, watch=ask.get("watch", 0))
    fleet = Fleet("HOSTS", "URL", "a/b", 512, "BALANCERS", 80, 5, 60)
    environment = replace(worlds.ENVIRONMENT, budget=budget, fleet=fleet, **keys)
    match ask["op"]:
        case "deploy":
            wanted = worlds.release(ask["number"], ask["artefact"])
            wanted = replace(wanted, schema=worlds.schema(ask.get("schema")))
            force = ask.get("force", False)
            canary = tuple(ask.get("canary", ()))
            return plan_deploy(world, wanted, environment, force=force, canary=canary)
        case "rollback":
            return plan_rollback(world, environment, ask.get("to"))
        case "recover":
            return plan_recover(world, environment)
        case "up":
            return plan_up(world, worlds.ENVIRONMENT)
    return plan_down(world, worlds.ENVIRONMENT)


def named(case: dict[str, Any]) -> str:
    return case["name"]


@pytest.mark.parametrize(
    "case", [c for c in CASES if "steps" in c["expect"]], ids=named
)
def test_the_plan_of_a_case(case: dict[str, Any]) -> None:
    plan, expect = decide(case), case["expect"]
    assert plan is not None
    steps = [
        step.verb if step.verb in SHORT else f"{step.verb} v{step.release}"
        for step in plan.steps
    ]
    assert steps == expect["steps"]
    assert expect.get("says", "") in " ".join(step.text for step in plan.steps)
    assert (plan.release, plan.previous) == (expect["release"], expect["previous"])
    assert expect.get("note", "") in " ".join(plan.notes)


@pytest.mark.parametrize(
    "case", [c for c in CASES if "stages" in c["expect"]], ids=named
)
def test_the_stages_of_a_case(case: dict[str, Any]) -> None:
    plan, expect = decide(case), case["expect"]
    assert plan is not None
    stages: dict[int, list[str]] = {}
    for step in plan.steps:
        release = "" if step.verb in SHORT else f" v{step.release}"
        if step.share:
            release += f" {step.share} %"
        stages.setdefault(step.stage, []).append(f"{step.host}: {step.verb}{release}")
    assert [", ".join(stage) for stage in stages.values()] == expect["stages"]
    assert (plan.release, plan.previous) == (expect["release"], expect["previous"])
    assert expect.get("note", "") in " ".join(plan.notes)
    assert plan.op == expect.get("op", plan.op)


@pytest.mark.parametrize(
    "case", [c for c in CASES if "refused" in c["expect"]], ids=named
)
def test_the_refusal_of_a_case(case: dict[str, Any]) -> None:
    with pytest.raises(OpsError, match=case["expect"]["refused"]) as refused:
        decide(case)
    assert case["expect"].get("allowed", "") in refused.value.allowed
    assert refused.value.code == case["expect"].get("code", 1)
    assert refused.value.next


@pytest.mark.parametrize(
    "case", [c for c in CASES if "within" in c["expect"]], ids=named
)
def test_a_migration_may_go_as_far_as_every_kept_release_can_follow(
    case: dict[str, Any],
) -> None:
    plan = decide(case)
    (step,) = [step for step in plan.steps if step.verb == "migrate"]
    assert step.within == case["expect"]["within"]


def test_a_migration_hears_of_every_host_also_of_those_out_of_reach() -> None:
    (case,) = [case for case in CASES if "database_hosts" in case["expect"]]
    plan = decide(case)
    (step,) = [step for step in plan.steps if step.verb == "migrate"]
    assert step.hosts == case["expect"]["database_hosts"]


def test_nothing_left_open_needs_no_plan() -> None:
    (case,) = [case for case in CASES if "nothing" in case["expect"]]
    assert decide(case) is None


def test_failures_do_not_push_a_good_release_out() -> None:
    said = {str(n): "dead x" for n in range(1, 9)}
    standing = {"1": "good", "2": "good", **{str(n): "bad" for n in range(3, 9)}}
    world = worlds.world({"current": 2, "slots": said, "standing": standing})
    assert retained(world, world.hosts[0], 2, {2}) == {1, 2}


def test_the_current_and_the_previous_release_are_always_kept() -> None:
    world = worlds.world({"current": 5, "slots": {"4": "dead x", "5": "alive y"}})
    assert retained(world, world.hosts[0], 2, {4, 5, None}) == {4, 5}


def test_what_rollbacks_lead_to_is_kept_though_newer_good_ones_are_there() -> None:
    said = {str(n): "dead x" for n in (1, 2, 3, 8, 11)}
    world = worlds.world(
        {
            "current": 2,
            "slots": said,
            "standing": dict.fromkeys(said, "good"),
            "traffic": [1, 2],
        }
    )
    assert retained(world, world.hosts[0], 3, {2}) == {1, 2, 3, 8, 11}


def test_every_step_before_the_switch_leaves_traffic_alone() -> None:
    for case in CASES:
        if case["ask"]["op"] != "deploy" or "steps" not in case["expect"]:
            continue
        plan = decide(case)
        verbs = [step.verb for step in plan.steps]
        if plan.op == "deploy" and verbs:
            assert verbs.index("gate") < verbs.index("switch") < verbs.index("smoke")


def test_what_was_left_going_back_stands_by_until_a_deploy_ends_well() -> None:
    runs = (
        Run("a", "deploy", 2, 1, 0.0, outcome="good"),
        Run("b", "rollback", 1, 2, 1.0, outcome="good"),
    )
    assert History(runs).left == {1, 2}
    assert History((*runs, Run("c", "deploy", 3, 1, 2.0, outcome="good"))).left == {1}
