"""Whether hosts are fit: tests/cases/preflight.json holds one case a rule."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops import delivery, environment, wire
from ops.errors import Refused, Usage
from ops.hands import Hands
from ops.preflight import Facts, clocks, failed, judge, mends, server
from ops.targets.agent import Agent
from tests.ops import worlds

CASES = json.loads(
    (Path(__file__).parent.parent / "cases" / "preflight.json").read_text()
)


def facts(name: str, said: dict[str, Any]) -> Facts:
    """Return the facts of a host that is fit but for what a case says of it."""
    if "unreachable" in said:
        return Facts(name, unreachable=said["unreachable"], mend=said.get("mend", ""))
    host = worlds.host({"name": name, "front": 8050, **said})
    return Facts(
        name,
        replace(host, python=said.get("python", "cpython-3.11")),
        f"deploy@{name}",
        round_trip=said.get("round_trip", 0.01),
        skew=said.get("skew", 0.0),
        inodes=said.get("inodes", 10**6),
        database=said.get("database"),
        faults=said.get("faults", {}),
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_checks_of_a_case(case: dict[str, Any]) -> None:
    environment = replace(
        worlds.ENVIRONMENT,
        name="staging",
        target=case.get("target", "ssh"),
        max_unavailable=case.get("max_unavailable", 0),
    )
    found = [facts(name, said) for name, said in case["hosts"].items()]
    checks = judge(found, environment, "DATABASE_URL_STAGING")
    wrong = {f"{c.name} {c.where}": c for c in checks if c.state != "ok"}
    assert wrong.keys() == case["expect"].keys()
    for name, (state, said, mend) in case["expect"].items():
        assert wrong[name].state == state
        assert said in wrong[name].said and mend in wrong[name].mend
    assert {c.name for c in checks} >= {"reach"}


def test_what_fails_is_told_apart_and_each_command_is_named_once() -> None:
    found = [facts("a", {"free_disk": 1}), facts("b", {"free_disk": 1, "skew": 9})]
    checks = judge(found, worlds.ENVIRONMENT)
    assert [check.where for check in failed(checks)] == ["a", "b"]
    assert mends(failed(checks)) == "inv prune --env local"


@pytest.mark.parametrize(
    ("moments", "expected"),
    [
        ((10.0, 10.1, 10.1, 10.2), (0.0, 0.2)),
        ((10.0, 40.1, 40.1, 10.2), (30.0, 0.2)),
        # Long work on the other side is no part of the way.
        ((10.0, 5.1, 8.1, 13.2), (-5.0, 0.2)),
    ],
)
def test_a_clock_is_measured_with_the_way_taken_into_account(
    moments: tuple[float, float, float, float], expected: tuple[float, float]
) -> None:
    assert clocks(*moments) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("postgresql://u:p@db/x", ("db", 5432)),
        ("postgres://u:p@10.0.0.1:6000/x?sslmode=require", ("10.0.0.1", 6000)),
        ("postgresql:///x?host=db2&port=7000", ("db2", 7000)),
        ("postgresql:///x?host=/run/postgresql", None),
        ("postgresql://a,b/x", None),
        ("postgresql://db:port/x", None),
        ("sqlite:////x.db", None),
    ],
)
def test_the_server_of_an_address(url: str, found: tuple[str, int] | None) -> None:
    assert server(url) == found


# What is asked of a host --------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def says(listener: socket.socket, word: bytes) -> tuple[str, int]:
    """Answer one caller with a word, and return where to call."""

    def serve() -> None:
        caller, _ = listener.accept()
        with caller:
            assert caller.recv(8) == bytes.fromhex("0000000804d2162f")
            caller.sendall(word)

    threading.Thread(target=serve, daemon=True).start()
    return "127.0.0.1", listener.getsockname()[1]


@pytest.mark.parametrize("word", [b"S", b"N"])
def test_a_server_that_speaks_postgresql_answers(
    listener: socket.socket, word: bytes
) -> None:
    assert wire.postgres(*says(listener, word)) == ""


def test_who_answers_something_else_is_no_database(listener: socket.socket) -> None:
    assert "no PostgreSQL" in wire.postgres(*says(listener, b"H"))


def test_a_server_that_is_silent_or_gone_is_said_so(listener: socket.socket) -> None:
    where = ("127.0.0.1", listener.getsockname()[1])
    assert wire.postgres(*where, timeout=0.05) == "nothing came within 0.05 s"
    listener.close()
    assert wire.postgres(*where) == "Connection refused"
    assert wire.postgres("no-such-host.invalid", 1) == "its name is not known there"


def test_a_host_is_examined_without_a_change(tmp_path: Path) -> None:
    said = Hands(Agent(tmp_path / "staging")).examine(0, None)
    assert said["came"] <= said["left"] and said["database"] is None
    assert said["host"].current is None and said["faults"] == {}
    assert list(tmp_path.iterdir()) == []


# What people see ----------------------------------------------------------------------


def test_where_all_is_fine_one_line_says_what_was_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    checks = judge([facts("a", {}), facts("b", {})], worlds.ENVIRONMENT)
    delivery._show_checks(checks, ["a", "b"], 0.1)
    (line,) = capsys.readouterr().err.splitlines()
    assert "fine on 2 hosts: reach, python, disk, inodes, clock, front door" in line


def test_a_table_holds_what_is_not_fine_and_the_refusal_each_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = [facts("a", {"free_disk": 1}), facts("b", {"skew": 99, "round_trip": 2})]
    with pytest.raises(Refused, match="disk of a, clock of b; nothing") as refused:
        delivery._show_checks(judge(found, worlds.ENVIRONMENT), ["a", "b"], 0.1)
    assert "inv prune" in refused.value.next and "timedatectl" in refused.value.next
    rows = [line.split()[:3] for line in capsys.readouterr().err.splitlines()[2:]]
    assert rows == [
        ["disk", "a", "failed"],
        ["speed", "b", "warned"],
        ["clock", "b", "failed"],
    ]


def test_every_variable_that_is_missing_is_in_one_message() -> None:
    with pytest.raises(Usage) as refused:
        environment.load("staging").require({"STAGING_URL": " "})
    names = "MLTRADING_STAGING_HOSTS, STAGING_URL, DATABASE_URL_STAGING"
    assert refused.value.what == f"{names} are not set"
    assert refused.value.next.count("export ") == 3
