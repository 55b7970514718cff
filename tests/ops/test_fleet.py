"""Several hosts as one environment: the lease of enough of them."""

from __future__ import annotations

from typing import Any

import pytest

from ops.delivery import acting
from ops.errors import Locked, Refused
from ops.targets.link import Unreachable
from ops.targets.ssh import SshTarget
from tests.ops.fleets import Fleet, fleet

__all__ = ["fleet"]
# Three agents with state folders, asked from threads.
pytestmark = pytest.mark.integration


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


# What hosts remember ----------------------------------------------------------------


def deploy(target: SshTarget, run: str, number: int, outcome: str = "good") -> None:
    facts = {"previous": number - 1 or None, "by": "ann@laptop"}
    target.record(event(run, "begin", release=number, facts=facts))
    target.record(event(run, "intent", release=number, step="switch", host="a"))
    if outcome:
        target.record(
            event(run, "end", release=number, facts={"outcome": outcome, "reason": ""})
        )


def act(fleet: Fleet, run: str, number: int, outcome: str = "good") -> None:
    """Take the lease as a command does, catch up, journal one deploy, end."""
    target = take(fleet.target())
    target.observe()
    target.catch_up()
    try:
        deploy(target, run, number, outcome)
    finally:
        target.release()


def test_a_host_that_was_away_gets_what_it_missed_with_its_chain_whole(
    fleet: Fleet,
) -> None:
    act(fleet, "r1", 1)
    fleet.pull("c")
    act(fleet, "r2", 2)
    fleet.pull()
    assert [host.behind for host in fleet.target().observe().hosts] == [0, 0, 3]
    act(fleet, "r3", 3)
    histories = [fleet.agent(name).journal.history() for name in "abc"]
    assert histories[2] == histories[0]
    assert (histories[2].traffic, histories[2].torn) == ((1, 2, 3), 0)
    assert [host.behind for host in fleet.target().observe().hosts] == [0, 0, 0]


def test_what_is_brought_over_keeps_its_content_and_says_where_it_is_from(
    fleet: Fleet,
) -> None:
    fleet.pull("c")
    act(fleet, "r1", 1)
    fleet.pull()
    act(fleet, "r2", 2)
    (there, _), (here, _) = (fleet.agent(name).journal.events() for name in "ac")
    own = ("prev", "hash", "origin")
    bare = [{k: e[k] for k in e if k not in own} for e in there]
    assert bare == [{k: e[k] for k in e if k not in own} for e in here]
    assert [e.get("origin") for e in here[:3]] == [e["hash"] for e in there[:3]]


def test_a_line_whose_answer_was_lost_is_written_once(fleet: Fleet) -> None:
    target = take(fleet.target())
    fleet["a"].loses = fleet["b"].loses = "record"
    with pytest.raises(OSError, match="of 3 hosts"):
        target.record(event("r1", "begin"))
    assert [len(fleet.agent(name).journal.events()[0]) for name in "abc"] == [1, 1, 1]


def test_catching_up_again_after_it_was_cut_off_adds_nothing(fleet: Fleet) -> None:
    fleet.pull("c")
    act(fleet, "r1", 1)
    fleet.pull()
    fleet["c"].loses = "catch_up"
    act(fleet, "r2", 2)
    fleet["c"].loses = ""
    act(fleet, "r3", 3)
    journals = [fleet.agent(name).journal for name in "ac"]
    assert [len(each.events()[0]) for each in journals] == [9, 9]
    assert journals[0].digest == journals[1].digest


def test_a_run_that_only_one_host_knows_as_open_counts_as_aborted(
    fleet: Fleet,
) -> None:
    act(fleet, "r1", 1)
    first = take(fleet.target())
    fleet.pull("b", "c")
    with pytest.raises(OSError, match="of 3 hosts"):
        first.record(event("r2", "begin", release=2, facts={"previous": 1}))
    first.release()
    fleet.pull("a")
    act(fleet, "r3", 2)
    fleet.pull()
    act(fleet, "r4", 3)
    found = fleet.agent("a").journal.history()
    assert found == fleet.agent("b").journal.history()
    assert [(run.id, run.outcome) for run in found.runs][1] == ("r2", "aborted")
    assert (found.open, found.traffic, found.good(2)) == (None, (1, 2, 3), True)


def test_what_a_later_holder_said_of_a_run_has_the_last_word(fleet: Fleet) -> None:
    act(fleet, "r1", 1)
    first = take(fleet.target())
    deploy(first, "r2", 2, "")
    fleet.pull("b", "c")
    with pytest.raises(OSError, match="of 3 hosts"):
        first.record(event("r2", "end", release=2, facts={"outcome": "good"}))
    first.release()
    fleet.pull("a")
    second = take(fleet.target())
    facts = {"outcome": "reverted", "reason": "its deployer died"}
    second.record(event("r2", "end", release=2, facts=facts))
    second.release()
    fleet.pull()
    act(fleet, "r3", 3)
    for name in "abc":
        found = fleet.agent(name).journal.history()
        assert (found.traffic, found.standing[2]) == ((1, 3), "bad")


def test_an_epoch_file_that_a_power_cut_took_is_made_good_by_the_journal(
    fleet: Fleet,
) -> None:
    act(fleet, "r1", 1)
    act(fleet, "r2", 2)
    for name in "abc":
        fleet.agent(name).lease.epoch_file.write_text("")
    act(fleet, "r3", 3)
    assert fleet.agent("a").journal.history().traffic == (1, 2, 3)
    assert fleet.agent("a").lease.last_epoch() == 3


def test_a_host_whose_agent_dies_while_it_tells_is_asked_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = fleet.target()
    target.observe()
    link = target.members["a"].link

    def die(verb: str, **_: Any) -> Any:
        link.close("the agent ended")
        raise Unreachable("the agent ended")

    monkeypatch.setattr(link, "request", die)
    assert not any(host.unreachable for host in target.observe().hosts)


def test_a_host_that_is_lost_while_its_journal_is_read_is_out_of_reach(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = fleet.target()
    read = target._journal

    def lose(name: str, said: Any) -> Any:
        if name == "a":
            raise Unreachable("the agent ended")
        return read(name, said)

    monkeypatch.setattr(target, "_journal", lose)
    found = {host.name: host.unreachable for host in target.observe().hosts}
    assert found["a"] == "the agent ended"
    assert not found["b"]


# Connections -------------------------------------------------------------------------


def test_whatever_ends_a_command_its_connections_are_closed(fleet: Fleet) -> None:
    for dry_run in (False, True):
        target = fleet.target()
        with pytest.raises(Refused, match="changed"):
            with acting(target, fleet.environment, "a deploy", 0.0, dry_run):
                raise Refused("changed my mind")
        assert [m.link.lost for m in target.members.values()] == ["closed"] * 3


def test_a_command_that_is_kept_out_closes_its_connections_too(fleet: Fleet) -> None:
    first, second = take(fleet.target()), fleet.target()
    with pytest.raises(Locked):
        with acting(second, fleet.environment, "a deploy", 0.0, False):
            raise AssertionError("two act")
    assert all(m.link.lost for m in second.members.values())
    assert not any(m.link.lost for m in first.members.values())
