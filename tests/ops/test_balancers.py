"""Balancers of a fleet without machines, and what HAProxy is told on its socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops.errors import Locked, StepFailed
from ops.targets import balancers, ssh
from ops.targets.haproxy import HAProxy
from ops.world import Balancer, Server
from tests.ops.fleets import Fleet, Link, fleet

__all__ = ["fleet"]

EPOCH = 7


class Rotation:
    """HAProxy in the smallest form: hosts, whether they are drained, weights."""

    def __init__(self, *names: str) -> None:
        self.seen = {name: Server(name) for name in names}

    def servers(self) -> list[Server]:
        return list(self.seen.values())

    def turn(self, name: str, state: str, well: bool = False) -> Server:
        self.seen[name] = replace(self.seen[name], state=state)
        return self.seen[name]

    def weigh(self, weights: dict[str, int]) -> list[Server]:
        for name, weight in weights.items():
            self.seen[name] = replace(self.seen[name], weight=weight)
        return self.servers()


@pytest.fixture
def rotation() -> Rotation:
    return Rotation("a", "b", "c")


@pytest.fixture
def target(
    fleet: Fleet, rotation: Rotation, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ssh.SshTarget]:
    """Three hosts; one of them, a, runs the balancer too; the lease is held."""
    real = ssh.Link

    def link(address: Any, root: str, options: Any) -> Link:
        made = real(address, root, options)
        made.session.verbs.balancer = rotation
        return made

    monkeypatch.setattr(ssh, "Link", link)
    monkeypatch.setattr(balancers, "UNSEEN", 0.0)
    variables = {"HOSTS": "a,b,c", "URL": "http://192.0.2.1", "BALANCERS": "a"}
    found = ssh.SshTarget(fleet.environment, variables)
    found.take("a deploy", "ann@laptop", 0.0, print)
    yield found
    found.release()


def states(rotation: Rotation) -> dict[str, str]:
    return {server.name: server.state for server in rotation.servers()}


def resting(target: ssh.SshTarget) -> set[str]:
    return {host.name for host in target.observe().hosts if host.resting}


def run_folder(fleet: Fleet, name: str) -> Path:
    folder = fleet[name].root / "releases/v1/run"
    folder.mkdir(parents=True)
    return folder


def test_a_host_leaves_at_the_balancer_and_says_so_itself(
    fleet: Fleet, target: ssh.SshTarget, rotation: Rotation
) -> None:
    run_folder(fleet, "b")
    said = target.act("b", "leave", numbers=[1, 2], timeout=1.0)
    assert said == {"missed": {}, "busy": 0}
    assert (states(rotation)["b"], resting(target)) == ("drain", {"b"})
    assert target.act("b", "join", well=True) == {"missed": {}}
    assert (states(rotation)["b"], resting(target)) == ("ready", set())


def test_a_host_that_is_still_answering_is_waited_for_no_longer_than_allowed(
    target: ssh.SshTarget, rotation: Rotation
) -> None:
    rotation.seen["b"] = replace(rotation.seen["b"], sessions=2)
    assert target.act("b", "leave", numbers=[1], timeout=0.05)["busy"] == 2


def test_a_balancer_that_is_missed_is_named_and_the_host_says_so_itself(
    fleet: Fleet, target: ssh.SshTarget
) -> None:
    run_folder(fleet, "b")
    fleet.pull("a")
    missed = target.act("b", "leave", numbers=[1], timeout=0.05)["missed"]
    assert list(missed) == ["a"]
    assert resting(target) == {"b"}


def test_shares_are_given_and_taken_back(
    target: ssh.SshTarget, rotation: Rotation
) -> None:
    target.act("b", "share", share=10)
    assert {s.name: s.weight for s in rotation.servers()} == {
        "a": 100,
        "b": 22,
        "c": 100,
    }
    target.act("b", "share", share=None)
    assert {s.weight for s in rotation.servers()} == {100}


def test_a_host_that_gets_nothing_does_not_count_in_a_share() -> None:
    servers = [Server("a"), Server("b"), Server("c", up=False), Server("d", "drain")]
    assert balancers.shared(servers, "a", 50) == {
        "a": 100,
        "b": 100,
        "c": 100,
        "d": 100,
    }


def test_the_world_holds_what_balancers_see(
    fleet: Fleet, target: ssh.SshTarget, rotation: Rotation
) -> None:
    (seen,) = target.observe().balancers
    assert seen == Balancer("a", tuple(rotation.servers()))
    fleet.pull("a")
    (gone,) = target.observe().balancers
    # It was cut; or that was noticed before, and there is no new one.
    assert "connection" in gone.unreachable


def test_an_older_deployer_is_not_obeyed(target: ssh.SshTarget) -> None:
    verbs = target.members["a"].link.session.verbs
    verbs.turn("b", "drain", False, EPOCH)
    with pytest.raises(Locked, match="under epoch 6, the last one is 7"):
        verbs.turn("b", "ready", False, EPOCH - 1)


def test_hosts_come_back_by_themselves_when_their_deployer_is_gone(
    fleet: Fleet, target: ssh.SshTarget, rotation: Rotation
) -> None:
    run_folder(fleet, "b")
    target.act("b", "leave", numbers=[1], timeout=0.05)
    for member in target.members.values():
        member.link.session.verbs.come_back()
    assert (set(states(rotation).values()), resting(target)) == ({"ready"}, set())


def test_what_a_later_deployer_has_done_is_left_alone(
    target: ssh.SshTarget, rotation: Rotation
) -> None:
    verbs = target.members["a"].link.session.verbs
    verbs.turn("b", "drain", False, EPOCH)
    verbs.agent.lease.adopt(EPOCH + 1)
    verbs.come_back()
    assert states(rotation)["b"] == "drain"


# HAProxy's socket ---------------------------------------------------------------------

SEEN = """\
1
# be_id be_name srv_id srv_name srv_op_state srv_admin_state srv_uweight srv_iweight
3 staging 1 10.0.0.1:2222 2 0 100 100
3 staging 2 b 2 8 11 100
3 staging 3 c 0 1 100 100

# pxname,svname,qcur,qmax,scur,
staging,10.0.0.1:2222,0,0,3,
staging,b,0,0,,
staging,c,0,0,0,

"""


class Haproxy:
    """A socket that answers as HAProxy does, and keeps what it is told."""

    def __init__(self, path: Path) -> None:
        self.told: list[str] = []
        self.refusal = ""
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                caller, _ = self.listener.accept()
            except OSError:
                return
            with caller:
                words = caller.recv(65536).decode().strip()
                if words.startswith("show"):
                    caller.sendall(SEEN.encode())
                else:
                    self.told += words.split(";")
                    caller.sendall(f"{self.refusal}\n".encode())

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[tuple[HAProxy, Haproxy]]:
    double = Haproxy(tmp_path / "admin.sock")
    yield HAProxy("staging", tmp_path / "admin.sock"), double
    double.close()


def test_hosts_are_read_as_haproxy_sees_them(haproxy: tuple[HAProxy, Haproxy]) -> None:
    assert haproxy[0].servers() == [
        Server("10.0.0.1:2222", "ready", True, 100, 100, 3),
        Server("b", "drain", True, 11, 100, 0),
        Server("c", "maint", False, 100, 100, 0),
    ]


def test_only_what_differs_is_told(haproxy: tuple[HAProxy, Haproxy]) -> None:
    door, double = haproxy
    door.turn("b", "ready", well=True)
    door.turn("b", "drain")
    door.weigh({"10.0.0.1:2222": 100, "b": 50})
    assert double.told == [
        "set server staging/b state ready",
        "set weight staging/b 50",
    ]


def test_a_host_in_maintenance_is_left_there(haproxy: tuple[HAProxy, Haproxy]) -> None:
    door, double = haproxy
    assert door.turn("c", "ready", well=True).state == "maint"
    assert double.told == []


def test_a_host_that_haproxy_does_not_know_is_named(
    haproxy: tuple[HAProxy, Haproxy],
) -> None:
    with pytest.raises(StepFailed, match="no host z") as failed:
        haproxy[0].turn("z", "drain")
    assert failed.value.next == "inv host-setup --env staging --role balancer"


def test_an_order_that_is_not_obeyed_is_a_failure(
    haproxy: tuple[HAProxy, Haproxy],
) -> None:
    haproxy[1].refusal = "Permission denied"
    with pytest.raises(StepFailed, match="Permission denied"):
        haproxy[0].turn("b", "ready")


def test_no_haproxy_is_a_failure_that_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="does not answer"):
        HAProxy("staging", tmp_path / "admin.sock").servers()
