"""Several hosts as one environment: the lease of enough of them."""

from __future__ import annotations

from typing import Any

import pytest

from ops.errors import Locked, Refused
from ops.targets.ssh import SshTarget
from tests.ops.fleets import Fleet, fleet

__all__ = ["fleet"]


def take(target: SshTarget, *, minority: bool = False) -> SshTarget:
    target.take("a deploy", "ann@laptop", 0.0, lambda text: None, minority=minority)
    return target


def event(run: str, phase: str, **more: Any) -> dict[str, Any]:
    facts = more.pop("facts", {})
    base = {"run": run, "op": "deploy", "phase": phase, "at": 1.0, "release": 1}
    return {**base, "facts": facts, **more}


def test_two_deployers_that_reach_different_parts_never_both_act(fleet: Fleet) -> None:
    fleet.pull("c")
    first = take(fleet.target())
    fleet.pull("a")
    with pytest.raises(Locked, match="ann@laptop is doing a deploy"):
        take(fleet.target())
    first.release()


def test_too_few_hosts_in_reach_are_refused_and_none_is_kept(fleet: Fleet) -> None:
    fleet.pull("a", "b")
    with pytest.raises(Refused, match="2 of 3 hosts") as refused:
        take(fleet.target())
    assert refused.value.where.startswith("a: no connection")
    assert fleet.agent("c").lease.held_by() is None


def test_a_minority_acts_where_a_person_takes_it_on_himself(fleet: Fleet) -> None:
    fleet.pull("a", "b")
    target = take(fleet.target(), minority=True)
    target.record(event("r", "begin"))
    assert len(fleet.agent("c").journal.events()[0]) == 1
    fleet.pull("a", "b", "c")
    with pytest.raises(Refused, match="3 of 3 hosts"):
        take(fleet.target(), minority=True)


def test_what_too_few_hosts_have_noted_is_not_done(fleet: Fleet) -> None:
    target = take(fleet.target())
    fleet.pull("b", "c")
    with pytest.raises(OSError, match="reached 1 of 3 hosts, 2 of 3"):
        target.record(event("r", "intent", step="switch"))


def test_a_deployer_that_lost_most_hosts_is_fenced_off_by_the_next(
    fleet: Fleet,
) -> None:
    first = take(fleet.target())
    fleet.pull("b", "c")
    with pytest.raises(OSError, match="of 3 hosts"):
        first.record(event("r", "intent"))
    fleet.pull("a")
    second = take(fleet.target())
    fleet.pull()
    with pytest.raises(Locked):
        first.record(event("r", "intent"))
    second.record(event("s", "begin"))
