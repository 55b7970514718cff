"""A fleet behind HAProxy: hosts leave it before they change, and always come back."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from bench import load
from bench.load import Load, Request
from ops import command, wire
from ops.hosts import host_setup
from tests.doubles import slack
from tests.end_to_end.conftest import copy_checkout
from tests.end_to_end.test_ssh import CANARY, Staging, soon
from tests.fleet.machines import Fleet, Host
from tests.postgres import postgres

pytestmark = pytest.mark.e2e

SOCKET = "run/mltrading-staging-balancer/admin.sock"


class Balanced(Staging):
    """A checkout, two hosts that serve, and the one whose HAProxy people ask."""

    def __init__(self, folder: Path, state: Path, fleet: Fleet, database: str) -> None:
        *_, self.balancer = fleet.hosts
        super().__init__(folder, state, fleet, database, served=2)
        self.variables |= {
            "MLTRADING_STAGING_BALANCERS": f"deploy@{self.balancer.address}",
            "STAGING_URL": f"http://{self.balancer.address}",
        }

    def rotation(self) -> dict[str, tuple[str, int]]:
        """Return what HAProxy says of each host, read past the engine."""
        said = ask(self.balancer, "show servers state staging")
        head, *rows = [line.split() for line in said.splitlines()[1:] if line.strip()]
        found = {}
        for row in rows:
            server = dict(zip(head[1:], row, strict=False))
            out = int(server["srv_admin_state"]) or server["srv_op_state"] != "2"
            weight = int(server["srv_uweight"])
            found[server["srv_name"]] = ("out" if out else "in", weight)
        return found

    def all_in(self) -> bool:
        return set(self.rotation().values()) == {("in", 100)}

    def traffic(self, rps: float = 60.0) -> Traffic:
        return Traffic(self.balancer, rps)


class Traffic:
    """People who ask for pages through the balancer while a block runs."""

    def __init__(self, balancer: Host, rps: float) -> None:
        self.load = Load(
            f"http://{balancer.address}/",
            keepalive_rps=rps * 2 / 3,
            keepalive_connections=8,
            new_rps=rps / 3,
            requests=[Request("GET", "/"), Request("GET", "/charts/AAPL")],
        )

    def __enter__(self) -> Traffic:
        self.load.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.found = self.load.stop()


def ask(host: Host, words: str) -> str:
    """Ask HAProxy on a host through its socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(f"/proc/{host.pid}/root/{SOCKET}")
        sock.sendall(f"{words}\n".encode())
        return b"".join(iter(lambda: sock.recv(65536), b"")).decode()


@contextlib.contextmanager
def half_a_request(balancer: Host) -> Iterator[None]:
    """Begin to send a body: whoever answers has to wait for the rest."""
    with socket.create_connection((balancer.address, 80)) as sock:
        head = "POST /_dash-update-component HTTP/1.1\r\nHost: a\r\n"
        sock.sendall(f"{head}Content-Length: 9\r\n\r\n{{".encode())
        yield


def kill(deployer: subprocess.Popen[str], *hosts: Host) -> None:
    """Kill a deployer and its agents, so that nothing comes back by itself."""
    deployer.send_signal(signal.SIGSTOP)
    for host in hosts:
        host.inside("pkill", "-KILL", "-f", "agent/[0-9a-f]{64}")
    deployer.kill()
    deployer.communicate()


@pytest.fixture(scope="module")
def staging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balanced]:
    """Three hosts, all set up by `inv host-setup`, where a first release serves."""
    folder = tmp_path_factory.mktemp("checkout")
    copy_checkout(folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    with Fleet(3) as fleet, postgres(fleet.gateway) as database:
        database = database.replace("postgres@", f"postgres:{CANARY}@")
        state = tmp_path_factory.mktemp("state")
        project = Balanced(folder, state, fleet, database)
        asked = {"key": f"{fleet.key}.pub", "yes": True, "environ": project.environ()}
        host_setup("staging", **asked)
        host_setup("staging", role="balancer", **asked)
        file = folder / "ops" / "environments.toml"
        text = file.read_text().replace('gates = ["quality"]', "gates = []")
        text = text.replace("canary = 60", "canary = 4")
        file.write_text(text.replace("smoke = 30", "smoke = 5"))
        project.commit()
        first = project.deploy()
        assert first.returncode == 0, first.stderr
        # It is on this machine, if not on its loopback.
        address = project.balancer.address
        with mock.patch.object(load, "loopback", lambda host: host == address):
            yield project


def test_setup_again_changes_nothing(staging: Balanced) -> None:
    asked = {"key": f"{staging.fleet.key}.pub", "environ": staging.environ()}
    done = host_setup("staging", **asked)
    done |= host_setup("staging", role="balancer", **asked)
    assert set(done.values()) == {()} and len(done) == 3


def test_hosts_leave_one_after_the_other_and_no_request_fails(
    staging: Balanced,
) -> None:
    before, seen = staging.current(), len(staging.events(staging.one))
    staging.change()
    with staging.traffic() as traffic:
        out = staging.deploy()
        after = staging.current()
        back = staging.rollback()
    assert (out.returncode, back.returncode) == (0, 0), out.stderr + back.stderr
    assert after != before and staging.current() == before
    found = traffic.found
    assert found.failures == {} and len(found.answers) > 100
    told = [
        (e["host"], e["step"])
        for e in staging.events(staging.one)[seen:]
        if e["phase"] == "done" and e["step"] in ("leave", "switch", "smoke", "join")
    ]
    steps = ("leave", "switch", "smoke", "join")
    names = [host.address for host in staging.served]
    assert told[:8] == [(name, step) for name in names for step in steps]
    # Going back waits for nobody.
    assert [step for _, step in told[8:]] == ["switch", "smoke"] * 2
    assert staging.all_in()


def test_a_canary_gets_its_shares_and_then_the_same_as_all(staging: Balanced) -> None:
    one, two = (host.address for host in staging.served)
    staging.change()
    with staging.traffic(rps=90):
        deploying = staging.start("deploy", "--env", "staging", "--canary", "10%,50%")
        for share in (11, 100):
            wanted = {one: ("in", share), two: ("in", 100)}
            assert soon(lambda: wanted == staging.rotation(), 120)
        _, said = deploying.communicate(timeout=150)
    assert deploying.returncode == 0, said
    assert said.count("PASS") == 2
    assert staging.all_in() and len(set(staging.current())) == 1


def test_maintenance_reaches_people_through_the_balancer_and_the_team_is_told(
    staging: Balanced,
) -> None:
    def person() -> command.Answer:
        url = f"http://{staging.balancer.address}"
        return wire.ask(command.Request("GET", "/"), url=url)

    words = ("maintenance", "on", "--env", "staging", "--message", "Back soon.")
    with slack.serving() as channel:
        told = {"SLACK_WEBHOOK_URL_STAGING": channel.url}
        on = staging.inv(*words, **told)
        shut, there = person(), staging.all_in()
        off = staging.inv("maintenance", "off", "--env", "staging", **told)
        assert soon(lambda: len(channel.messages) == 2)
    assert (on.returncode, off.returncode) == (0, 0), on.stderr + off.stderr
    assert (shut.status, "Back soon." in shut.body.decode()) == (503, True)
    # Health checks go on behind the page: no host is taken out for it.
    assert there and staging.all_in()
    assert person().status == 200
    assert [message["text"] for message in channel.messages] == [
        "staging: maintenance is on: people read a page",
        "staging: maintenance is over: people are let in",
    ]


def test_a_killed_deployer_leaves_nobody_out(staging: Balanced) -> None:
    staging.change()
    # Half a request: the host that is to leave still has something to answer.
    with contextlib.ExitStack() as held:
        for _ in staging.served:
            held.enter_context(half_a_request(staging.balancer))
        deploying = staging.start("deploy", "--env", "staging")
        assert soon(lambda: "out" in dict(staging.rotation().values()), 60)
        kill(deploying, *staging.fleet.hosts)
        assert "out" in dict(staging.rotation().values())
    again = staging.rollback()
    assert "left unfinished" in again.stderr
    assert staging.all_in()
    assert again.returncode in (0, 1) and len(set(staging.current())) == 1


def test_a_host_without_power_leaves_and_a_deploy_goes_on_without_it(
    staging: Balanced,
) -> None:
    text = (staging.folder / "ops/environments.toml").read_text()
    allowed = text.replace("max_unavailable = 0", "max_unavailable = 1")
    (staging.folder / "ops/environments.toml").write_text(allowed)
    staging.change()
    staging.two.power_off()
    assert soon(lambda: staging.rotation()[staging.two.address][0] == "out", 30)
    with staging.traffic() as traffic:
        deployed = staging.deploy()
    assert deployed.returncode == 0, deployed.stderr
    assert "is left out" in deployed.stderr
    assert traffic.found.failures == {}
    staging.two.boot()
    assert soon(staging.all_in, 60)
    assert staging.deploy().returncode == 0
    assert len(set(staging.current())) == 1
