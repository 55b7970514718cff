"""The verdict on an environment, from what was found."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from ops import status
from ops.command import Answer, Request
from ops.environment import Fleet as Row
from ops.errors import Refused, StepFailed
from ops.history import History, Run
from ops.world import World
from tests.ops import worlds

HOST = {
    "name": "one",
    "unreachable": "",
    "current": "v2",
    "alive": True,
    "drift": False,
    "behind": 0,
    "shut": False,
    "rotation": {},
}
SEEN = {"state": "ready", "up": True, "weight": 100, "usual": 100}
FOUND: dict[str, Any] = {
    "environment": "staging",
    "url": "http://x/",
    "current": "v2",
    "problem": "",
    "checks": {"database": True},
    "hosts": [HOST, {**HOST, "name": "two"}],
    "balancers": {"lb": "ok"},
    "alerts": [],
    "unfinished": None,
    "lease": None,
    "torn_journal_lines": 0,
    "maintenance": None,
    "traffic": {"since": 0.0, "by": "ann@laptop", "op": "deploy", "run": "r"},
}
SHUT = {"maintenance": {"message": "soon"}, "hosts": [{**HOST, "shut": True}]}


@pytest.mark.parametrize(
    ("found", "verdict", "said"),
    [
        ({}, "healthy", "v2 serves on 2 hosts"),
        ({"hosts": [HOST]}, "healthy", "v2 serves"),
        (SHUT, "maintenance", "v2 serves behind the maintenance page"),
        ({"current": None}, "nothing", "nothing is deployed on staging"),
        ({"problem": "GET /readyz: status 503"}, "down", "GET /readyz: status 503"),
        ({"unfinished": "r9"}, "degraded", "run r9 was left unfinished"),
        ({"torn_journal_lines": 1}, "degraded", "1 lines of the journal are damaged"),
        ({"checks": {"database": False}}, "degraded", "its check database fails"),
        ({"alerts": ["critical A (disk b)"]}, "degraded", "critical A (disk b) fires"),
        ({"alerts": ["warning A"]}, "healthy", "v2 serves on 2 hosts"),
    ],
)
def test_the_verdict_of_an_environment(
    found: dict[str, Any], verdict: str, said: str
) -> None:
    there = status.judge({**FOUND, **found})
    assert there[0] == verdict and there[1].endswith(said)


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ({"unreachable": "no connection"}, "two is out of reach"),
        ({"alive": False}, "nothing serves on two"),
        ({"drift": True, "current": "v1"}, "two serves v1"),
        ({"behind": 4}, "two lacks 4 lines of the journal"),
        ({"shut": True}, "two shows the maintenance page"),
    ],
)
def test_one_host_that_is_not_as_the_others_is_named(
    host: dict[str, Any], said: str
) -> None:
    hosts = [HOST, {**HOST, "name": "two", **host}]
    assert status.judge({**FOUND, "hosts": hosts}) == (
        "degraded",
        f"v2 serves, but {said}",
    )


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({"state": "drain"}, "two has left balancer lb"),
        ({"up": False}, "two is not ready for balancer lb"),
        ({"weight": 11}, "two has weight 11, usually 100 at balancer lb"),
    ],
)
def test_a_host_that_gets_less_than_the_others_is_named(
    server: dict[str, Any], said: str
) -> None:
    hosts = [HOST, {**HOST, "name": "two", "rotation": {"lb": {**SEEN, **server}}}]
    found = {**FOUND, "hosts": hosts}
    assert status.judge(found) == ("degraded", f"v2 serves, but {said}")
    assert status.judge({**found, "lease": {"by": "ann"}})[0] == "healthy"


def test_what_a_person_has_put_into_maintenance_is_well() -> None:
    seen = {"lb": {**SEEN, "state": "maint", "up": False}}
    found = {**FOUND, "hosts": [HOST, {**HOST, "rotation": seen}]}
    assert status.judge(found)[0] == "healthy"


def test_a_balancer_out_of_reach_is_named() -> None:
    said = status.judge({**FOUND, "balancers": {"lb": "no connection"}})
    assert said == ("degraded", "v2 serves, but balancer lb is out of reach")


def test_no_host_is_behind_while_its_journal_is_being_written() -> None:
    hosts = [HOST, {**HOST, "name": "two", "behind": 1}]
    found = {**FOUND, "hosts": hosts, "lease": {"by": "ann@laptop"}}
    assert status.judge(found)[0] == "healthy"


def test_a_host_that_missed_something_is_sent_to_up_and_all_else_to_the_doctor() -> (
    None
):
    missed = [({"drift": True}, "inv up"), ({"behind": 1}, "inv up")]
    for host, command in (*missed, ({"shut": True}, "inv doctor")):
        found = {**FOUND, "verdict": "degraded", "said": "x", "hosts": [HOST | host]}
        with pytest.raises(StepFailed) as raised:
            status._raise(found)
        assert raised.value.next.startswith(command)


def test_all_that_is_not_well_ends_with_1() -> None:
    for verdict, kind in (("nothing", Refused), ("down", StepFailed)):
        with pytest.raises(kind) as raised:
            status._raise({**FOUND, "verdict": verdict, "said": "x"})
        assert raised.value.code == 1 and "--env staging" in raised.value.next
    status._raise({**FOUND, "verdict": "maintenance", "said": "x"})


def test_a_release_has_traffic_since_the_last_run_that_gave_it_some() -> None:
    def run(id: str, op: str, release: int, outcome: str = "good") -> Run:
        return Run(id, op, release, None, 10.0, by="ann", outcome=outcome, seconds=2.0)

    runs = (run("a", "deploy", 1), run("b", "deploy", 2), run("c", "rollback", 1))
    history = History(
        (*runs, run("d", "deploy", 3, "reverted"), run("e", "restart", 1))
    )
    assert status._traffic(history.arrival(1)) == {
        "since": 12.0,
        "by": "ann",
        "op": "rollback",
        "run": "c",
    }
    assert status._traffic(history.arrival(3)) is None


class Gone:
    """Two hosts, of which the one that people's address leads to is gone."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.asked: list[str] = []

    def ask_front(self, requests: list[Request]) -> list[Answer]:
        self.asked += [request.path for request in requests]
        self.begun.set()
        return [Answer(0, error="timed out") for _ in requests]

    def observe(self) -> World:
        # Whoever asks one after the other comes to no end here.
        assert self.begun.wait(10)
        hosts = [{"name": "one", "unreachable": "no connection"}, {"name": "two"}]
        said = {"current": 1, "slots": {"1": "alive a"}, "front": 80, "traffic": [1]}
        return worlds.world({**said, "hosts": hosts})

    def holder(self) -> None:
        return None

    def url(self) -> str:
        return "http://192.0.2.1/"


def test_who_is_gone_is_waited_for_once_and_beside_the_hosts() -> None:
    target = Gone()
    row = Row("HOSTS", "URL", "mltrading/staging", 512, "BALANCERS", 80, 1, 60)
    environment = replace(worlds.ENVIRONMENT, name="staging", target="ssh", fleet=row)
    _, found = status._observed(environment, target)
    assert target.asked == ["/livez"]
    assert found["said"] == "GET /livez: timed out; one is out of reach"
    assert found["state"] == "~/mltrading/staging"


def test_every_environment_has_a_row_also_without_hosts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    monkeypatch.setenv("MLTRADING_STATE", str(tmp_path))
    for name in ("MLTRADING_STAGING_HOSTS", "MLTRADING_PROD_HOSTS"):
        monkeypatch.delenv(name, raising=False)
    status.show_all()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["local", "staging", "prod"]
    assert "nothing is deployed on local" in lines[1]
    assert lines[3].endswith("not set up: MLTRADING_PROD_HOSTS is not set")


class Front:
    """What people reach: a release that is well, and what it says of its bars."""

    def __init__(self, told: Answer) -> None:
        said = {"release": "v1", "artefact": "a"}
        self.answers = {
            "/version": Answer(200, body=json.dumps(said).encode()),
            "/health": Answer(200, body=b'{"checks": {"database": true}}'),
            "/provenance": told,
        }

    def ask_front(self, requests: Sequence[Request]) -> list[Answer]:
        return [self.answers.get(each.path, Answer(200)) for each in requests]


@pytest.mark.parametrize(
    ("told", "sources"),
    [
        (
            Answer(200, body=b'{"sources": ["SYNTHETIC, seed 1"]}'),
            ("SYNTHETIC, seed 1",),
        ),
        (Answer(404, body=b"<html>"), ()),
        (Answer(503, body=b'{"sources": null}'), ()),
        (Answer(200, body=b"<html>"), ()),
    ],
)
def test_where_the_bars_come_from_is_what_the_release_says(
    told: Answer, sources: tuple[str, ...]
) -> None:
    said = {"current": 1, "slots": {"1": "alive a"}, "front": 8050}
    found = status._asked(Front(told), worlds.world(said), {})
    assert found == ("", {"database": True}, sources)
