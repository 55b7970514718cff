"""From bare hosts to prod, by the commands of docs/how-to: two fleets over SSH."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import load
from bench.load import Load, Request
from tests.end_to_end.conftest import Project, copy_checkout
from tests.end_to_end.test_ssh import version
from tests.fleet.machines import Fleet, Host

pytestmark = pytest.mark.e2e


class Fleets(Project):
    """A checkout, one host of staging, and two of prod; each has a database."""

    def __init__(self, folder: Path, state: Path, fleet: Fleet) -> None:
        super().__init__(folder, state)
        self.fleet = fleet
        self.qa, *self.live = fleet.hosts
        first = self.live[0].address
        self.variables = {
            "MLTRADING_STAGING_HOSTS": f"deploy@{self.qa.address}",
            "STAGING_URL": f"http://{self.qa.address}",
            "MLTRADING_PROD_HOSTS": ",".join(f"deploy@{h.address}" for h in self.live),
            "PRODUCTION_URL": f"http://{first}",
            "MLTRADING_KNOWN_HOSTS": str(fleet.known_hosts),
            "MLTRADING_SSH_KEY": str(fleet.key),
        }

    def environ(self, **more: str) -> dict[str, str]:
        return super().environ(**{**self.variables, **more})

    def setup(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        key = f"{self.fleet.key}.pub"
        return self.inv("host-setup", "--env", name, "--yes", "--key", key, *words)

    def make_database(self, name: str, host: Host) -> None:
        """Make a database on a host, and read in the file that says where it is."""
        where = ("--role", "database", "--hosts", host.address)
        made = self.setup(name, *where)
        assert made.returncode == 0, made.stderr
        (line,) = (self.state / name / "database.env").read_text().splitlines()
        variable, _, url = line.removeprefix("export ").partition("=")
        self.variables[variable] = url.strip("'")

    def to(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.inv("deploy", "--env", name, *words)

    def promote(self) -> subprocess.CompletedProcess[str]:
        """Let what staging serves onto prod, and bring it there."""
        artefact = self.state_of("staging")["release"]["artefact"]
        said = self.inv("approve", "--env", "prod", "--artefact", artefact[:8])
        assert said.returncode == 0 and "staging passed it as v" in said.stderr
        return self.to("prod")

    def state_of(self, name: str) -> dict:
        return json.loads(self.inv("status", "--env", name, "--json").stdout)

    def runs(self, name: str) -> list[dict]:
        said = self.inv("history", "--env", name, "--json").stdout
        return json.loads(said)["runs"]


@pytest.fixture(scope="module")
def fleets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleets]:
    """Bare hosts that become two fleets, where nothing is deployed yet."""
    folder = tmp_path_factory.mktemp("checkout")
    copy_checkout(folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    file = folder / "ops" / "environments.toml"
    # The gates of the source are asked by the tests of the local target.
    file.write_text(file.read_text().replace('gates = ["quality"]', "gates = []"))
    with Fleet(3) as fleet:
        project = Fleets(folder, tmp_path_factory.mktemp("state"), fleet)
        project.commit()
        for name, host in (("staging", project.qa), ("prod", project.live[0])):
            prepared = project.setup(name)
            assert prepared.returncode == 0, prepared.stderr
            project.make_database(name, host)
        yield project


def test_prepared_hosts_are_fit_and_need_nothing_more(fleets: Fleets) -> None:
    for name in ("staging", "prod"):
        again = fleets.setup(name)
        fit = fleets.inv("doctor", "--env", name)
        assert "nothing to do" in again.stderr
        assert fit.returncode == 0, fit.stdout + fit.stderr


def test_prod_gets_what_staging_has_passed_and_a_person_has_approved(
    fleets: Fleets,
) -> None:
    early = fleets.to("prod")
    assert early.returncode == 1 and "inv deploy --env staging" in early.stderr
    first = fleets.to("staging")
    assert first.returncode == 0, first.stderr
    unasked = fleets.to("prod")
    assert unasked.returncode == 1 and "inv approve --env prod" in unasked.stderr
    came = fleets.promote()
    assert came.returncode == 0, came.stderr
    assert [version(host) for host in fleets.fleet.hosts] == ["v1"] * 3
    (run,) = fleets.runs("prod")
    assert run["approval"]["how"] == "stored"
    assert "approved by" in fleets.inv("history", "--env", "prod").stdout


def test_the_next_version_goes_out_and_back_and_no_request_of_prod_fails(
    fleets: Fleets, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is on this machine, if not on its loopback.
    address = fleets.live[0].address
    monkeypatch.setattr(load, "loopback", lambda host: host == address)
    fleets.change()
    out = fleets.to("staging")
    traffic = Load(
        f"http://{address}/",
        keepalive_rps=30,
        keepalive_connections=6,
        new_rps=15,
        requests=[Request("GET", "/")],
    ).start()
    try:
        came = fleets.promote()
        served = [version(host) for host in fleets.live]
        back = fleets.inv("rollback", "--env", "prod")
    finally:
        found = traffic.stop()
    codes = (out.returncode, came.returncode, back.returncode)
    assert codes == (0, 0, 0), out.stderr + came.stderr + back.stderr
    assert served == ["v2", "v2"]
    assert [version(host) for host in fleets.fleet.hosts] == ["v2", "v1", "v1"]
    assert found.failures == {} and len(found.answers) > 50
    assert fleets.state_of("prod")["verdict"] == "healthy"
    told = [(run["op"], run["release"], run["outcome"]) for run in fleets.runs("prod")]
    assert told == [
        *(("deploy", 1, "good"), ("deploy", 2, "good")),
        ("rollback", 1, "good"),
    ]


def test_the_logs_of_both_hosts_are_followed(fleets: Fleets) -> None:
    words = ("logs", "--env", "prod", "--follow", "--lines", "5")
    follower = fleets.start(*words)
    watchdog = threading.Timer(60, follower.kill)
    watchdog.start()
    seen: set[str] = set()
    while line := follower.stdout.readline():
        seen |= {host.address for host in fleets.live if host.address in line}
        if len(seen) == len(fleets.live):
            break
    follower.send_signal(signal.SIGINT)
    _, said = follower.communicate(timeout=20)
    watchdog.cancel()
    assert (follower.returncode, len(seen)) == (130, 2), said
