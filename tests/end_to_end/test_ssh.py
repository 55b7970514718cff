"""Deploys to hosts over SSH, and what can go wrong on the way: a fleet of two."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import load
from bench.load import Load, Request
from tests.end_to_end.conftest import Project, copy_checkout
from tests.end_to_end.test_deploy import FAILS_IN_PUBLIC, HANGS, RAISES
from tests.fleet.machines import Fleet, Host
from tests.postgres import postgres

pytestmark = pytest.mark.e2e

ROOT = "/home/deploy/mltrading/staging"
CANARY = "canary-password"


class Staging(Project):
    """A checkout, and the fleet that it is deployed to."""

    def __init__(
        self, folder: Path, state: Path, fleet: Fleet, database: str, served: int = 2
    ) -> None:
        super().__init__(folder, state)
        self.fleet = fleet
        self.served = fleet.hosts[:served]
        self.one, self.two = self.served
        self.variables = {
            "MLTRADING_STAGING_HOSTS": f"deploy@{self.one.address},"
            f"deploy@{self.two.address}",
            "STAGING_URL": f"http://{self.one.address}",
            "DATABASE_URL_STAGING": database,
            "MLTRADING_KNOWN_HOSTS": str(fleet.known_hosts),
            "MLTRADING_SSH_KEY": str(fleet.key),
        }

    def environ(self, **more: str) -> dict[str, str]:
        return super().environ(**{**self.variables, **more})

    def configure(self, old: str, new: str) -> None:
        """Commit a change of environments.toml, and with it a new artefact."""
        file = self.folder / "ops" / "environments.toml"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
        self.change()

    def deploy(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return self.inv("deploy", "--env", "staging", *words, **more)

    def rollback(self) -> subprocess.CompletedProcess[str]:
        return self.inv("rollback", "--env", "staging")

    def begin(self, step: str) -> subprocess.Popen[str]:
        """Start a deploy and return when a step begins on the second host."""
        seen = len(self.events(self.two))
        process = self.start("deploy", "--env", "staging")

        def told() -> bool:
            events = self.events(self.two)[seen:]
            wanted = (step, "intent", self.two.address)
            return wanted in [
                (e.get("step"), e["phase"], e.get("host")) for e in events
            ]

        soon(lambda: told() or process.poll() is not None, 60)
        assert process.poll() is None, process.communicate()
        return process

    def events(self, host: Host) -> list[dict]:
        """Return a host's journal, read past the engine."""
        text = (host.root / ROOT[1:] / "state" / "journal.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def current(self) -> list[str]:
        """Return what both hosts serve, asked as a user and read from the pointer."""
        served = []
        for host in self.served:
            link = os.readlink(host.root / ROOT[1:] / "current")
            assert version(host) == link.removeprefix("releases/")
            served.append(version(host))
        return served

    def units(self, host: Host) -> list[str]:
        """Return the releases that systemd runs, or is about to run, on a host."""
        shown = host.ssh(
            "systemctl --user list-units --plain --no-legend 'mltrading-staging@*'"
        )
        lines = [line.split() for line in shown.stdout.splitlines()]
        live = [words[0] for words in lines if words[2] != "failed"]
        return sorted(name.partition("@")[2].partition(".")[0] for name in live)


def soon(true: Callable[[], bool], seconds: float = 20) -> bool:
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.02)
    return true()


def version(host: Host) -> str:
    """Return the release that answers behind a host's web server, "" if none does."""
    try:
        url = f"http://{host.address}/version"
        with urllib.request.urlopen(url, timeout=5) as said:
            return json.load(said)["release"]
    except (OSError, ValueError):
        return ""


@pytest.fixture(scope="module")
def staging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staging]:
    """Two hosts, set up as `inv host-setup` does, where a first release serves."""
    from ops.hosts import host_setup

    folder = tmp_path_factory.mktemp("checkout")
    copy_checkout(folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    with Fleet(2) as fleet, postgres(fleet.gateway) as database:
        database = database.replace("postgres@", f"postgres:{CANARY}@")
        state = tmp_path_factory.mktemp("state")
        project = Staging(folder, state, fleet, database)
        host_setup(
            "staging", key=f"{fleet.key}.pub", yes=True, environ=project.environ()
        )
        # The gates of the source are asked by the tests of the local target.
        file = folder / "ops" / "environments.toml"
        text = file.read_text().replace('gates = ["quality"]', "gates = []")
        file.write_text(text.replace("smoke = 30", "smoke = 5"))
        project.commit()
        first = project.deploy()
        assert first.returncode == 0, first.stderr
        assert project.current() == ["v1", "v1"]
        yield project


def test_a_second_version_goes_out_and_back_under_load_without_a_failed_request(
    staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is on this machine, if not on its loopback.
    monkeypatch.setattr(load, "loopback", lambda host: host == staging.one.address)
    before = version(staging.one)
    staging.change()
    traffic = Load(
        f"http://{staging.one.address}/",
        keepalive_rps=40,
        keepalive_connections=8,
        new_rps=20,
        requests=[Request("GET", "/"), Request("GET", "/charts/AAPL")],
    ).start()
    try:
        out = staging.deploy()
        after = version(staging.one)
        back = staging.rollback()
    finally:
        found = traffic.stop()
    assert (out.returncode, back.returncode) == (0, 0), out.stderr + back.stderr
    assert after != before
    assert staging.current() == [before, before]
    assert found.failures == {}
    assert len(found.answers) > 100


def test_the_same_again_changes_nothing(staging: Staging) -> None:
    staging.change()
    assert staging.deploy().returncode == 0
    before = staging.current()
    again = staging.deploy()
    assert again.returncode == 0 and "already serves" in again.stderr
    assert staging.current() == before


def test_bars_of_this_machine_reach_the_fleet_s_database_and_come_back(
    staging: Staging, tmp_path: Path
) -> None:
    rows = "2020-01-02,1,3,1,2,10\n2020-01-03,2,3,1,2,10\n"
    (tmp_path / "ACME.csv").write_text("date,open,high,low,close,volume\n" + rows)
    words = ("--env", "staging", "--source", "csv", "--path", str(tmp_path), "--json")
    ended = staging.inv("ingest", *words)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["inserted"] == 2
    assert json.loads(staging.inv("ingest", *words).stdout)["inserted"] == 0
    out = tmp_path / "out"
    ended = staging.inv("data-export", "--env", "staging", "--path", str(out))
    assert ended.returncode == 0, ended.stderr
    assert (out / "ACME.csv").read_text().splitlines()[1:] == [
        "2020-01-02,1.0,3.0,1.0,2.0,10",
        "2020-01-03,2.0,3.0,1.0,2.0,10",
    ]
    for host in staging.served:
        assert not list((host.root / ROOT[1:] / "incoming").glob("*"))


def test_the_fleet_s_database_is_backed_up_emptied_and_brought_back(
    staging: Staging,
) -> None:
    env = ("--env", "staging")
    count = ("psql", *env, "--command", "select count(*) from bars")

    def bars() -> int:
        ended = staging.inv(*count)
        assert ended.returncode == 0, ended.stderr
        return int(next(w for w in ended.stdout.split() if w.isdigit()))

    before = bars()
    made = staging.inv("db-backup", *env, "--json")
    assert made.returncode == 0, made.stderr
    said = json.loads(made.stdout)
    assert said["proved"] and before > 10_000
    assert staging.inv("db-reset", *env).returncode == 1
    assert bars() == before
    ended = staging.inv(
        "exec", *env, "--command", "python -m mltrading_marketdata reset"
    )
    assert ended.returncode == 0 and bars() == 0, ended.stderr
    ended = staging.inv("db-restore", *env, "--backup", said["name"], "--yes")
    assert ended.returncode == 0, ended.stderr
    assert bars() == before
    assert CANARY not in made.stdout + made.stderr + ended.stdout + ended.stderr


def test_an_approval_for_prod_says_what_the_hosts_of_staging_say(
    staging: Staging,
) -> None:
    listed = staging.inv("status", "--env", "staging", "--json").stdout
    digest = json.loads(listed)["release"]["artefact"]
    words = ("approve", "--env", "prod", "--artefact", digest[:8])
    by_journal = staging.inv(*words)
    by_proof = staging.inv(*words, MLTRADING_STAGING_HOSTS="")
    assert (by_journal.returncode, by_proof.returncode) == (0, 0), by_proof.stderr
    assert "staging passed it as v" in by_journal.stderr
    assert "its journal says" in by_journal.stderr
    assert "its proof says" in by_proof.stderr


@pytest.mark.parametrize("fault", [RAISES, HANGS], ids=["raises", "hangs"])
def test_a_release_that_does_not_boot_never_gets_traffic(
    staging: Staging, fault: str
) -> None:
    before = staging.current()
    text = (staging.folder / "ops/environments.toml").read_text()
    (staging.folder / "ops/environments.toml").write_text(
        text.replace("boot = 60", "boot = 4")
    )
    staging.plant(fault)
    broken = staging.deploy()
    (staging.folder / "ops/environments.toml").write_text(text)
    staging.mend()
    assert broken.returncode == 1, broken.stderr
    assert staging.current() == before
    for host in staging.fleet.hosts:
        folders = (host.root / ROOT[1:] / "releases").glob("v*")
        newest = max(int(folder.name[1:]) for folder in folders)
        assert f"v{newest}" not in staging.units(host)
        assert f"v{newest}" not in before


def test_a_release_that_fails_in_public_goes_back_on_both_hosts(
    staging: Staging,
) -> None:
    before = staging.current()
    staging.plant("import os  # noqa: E402\n\n" + FAILS_IN_PUBLIC)
    broken = staging.deploy()
    staging.mend()
    assert broken.returncode == 4, broken.stderr
    assert staging.current() == before


def test_a_killed_deployer_is_finished_by_the_next_command(staging: Staging) -> None:
    staging.change()
    killed = staging.begin("boot")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    again = staging.deploy("--wait", "60")
    assert again.returncode == 0, again.stderr
    assert "left unfinished" in again.stderr
    assert len(set(staging.current())) == 1


def test_a_killed_agent_leaves_the_old_release_and_a_free_lease(
    staging: Staging,
) -> None:
    before = staging.current()
    staging.change()
    deployer = staging.begin("boot")
    staging.two.inside("pkill", "-KILL", "-f", "agent/[0-9a-f]{64}")
    _, said = deployer.communicate(timeout=120)
    # Before the step's request was on its way, a new agent has carried it out.
    assert deployer.returncode in (0, 1), said
    assert (staging.current() == before) == (deployer.returncode == 1)
    again = staging.deploy("--wait", "60")
    assert again.returncode == 0, again.stderr
    assert len(set(staging.current())) == 1


def test_a_second_deployer_is_told_who_is_first(staging: Staging) -> None:
    staging.change()
    first = staging.begin("boot")
    second = staging.deploy()
    assert second.returncode == 3, second.stderr
    assert "is doing a deploy" in second.stderr
    _, said = first.communicate(timeout=120)
    assert first.returncode == 0, said


def test_a_host_that_loses_power_comes_back_with_the_right_release(
    staging: Staging,
) -> None:
    staging.change()
    assert staging.deploy().returncode == 0
    assert staging.rollback().returncode == 0
    wanted = version(staging.two)
    staging.two.reboot()
    assert soon(lambda: version(staging.two) == wanted, 10)
    assert staging.units(staging.two) == [wanted]


def test_a_host_that_is_out_of_reach_stops_a_deploy_before_anything_is_touched(
    staging: Staging,
) -> None:
    before = staging.current()
    staging.change()
    staging.two.unplug()
    try:
        begun = time.monotonic()
        refused = staging.deploy()
        took = time.monotonic() - begun
    finally:
        staging.two.plug()
    assert refused.returncode == 1, refused.stderr
    assert staging.two.address in refused.stderr
    assert took < 40
    assert soon(lambda: version(staging.two) == before[1])
    assert staging.deploy().returncode == 0


def test_a_host_that_was_away_is_told_what_it_missed_and_brought_along(
    staging: Staging,
) -> None:
    staging.configure("max_unavailable = 0", "max_unavailable = 1")
    old = version(staging.two)
    staging.two.unplug()
    try:
        without = staging.deploy()
    finally:
        staging.two.plug()
    assert without.returncode == 0, without.stderr
    assert f"{staging.two.address} is left out" in without.stderr
    assert soon(lambda: version(staging.two) == old)
    new = version(staging.one)
    shown = staging.inv("status", "--env", "staging")
    assert shown.returncode == 1 and new != old
    assert f"{staging.two.address} serves {old}" in shown.stderr
    assert "drifted, lacks" in shown.stdout
    refused = staging.inv("up", "--env", "staging")
    assert "inv deploy --env staging" in refused.stderr
    brought = staging.deploy()
    staging.configure("max_unavailable = 1", "max_unavailable = 0")
    assert brought.returncode == 0, brought.stderr
    assert staging.current() == [new, new]
    told = [[e["id"] for e in staging.events(host)] for host in staging.fleet.hosts]
    assert sorted(told[0]) == sorted(told[1])
    assert staging.inv("status", "--env", "staging").returncode == 0


def test_a_cable_that_is_pulled_during_a_deploy_leaves_the_old_release(
    staging: Staging,
) -> None:
    before = staging.current()
    staging.change()
    deployer = staging.begin("boot")
    staging.two.unplug()
    try:
        _, said = deployer.communicate(timeout=120)
    finally:
        staging.two.plug()
    assert deployer.returncode in (1, 5), said
    assert soon(lambda: version(staging.two) == before[1])
    assert staging.current() == before
    # Our old agent there gives the lease up when it has heard nothing for a while.
    again = staging.deploy("--wait", "30")
    assert again.returncode == 0, again.stderr
    assert len(set(staging.current())) == 1


def test_people_read_a_page_while_a_deploy_goes_on_behind_it(staging: Staging) -> None:
    def person(host: Host) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{host.address}/", timeout=5) as said:
                return said.status, said.read().decode()
        except urllib.error.HTTPError as said:
            return said.code, said.read().decode()

    words = ("maintenance", "on", "--env", "staging", "--message", "Back <soon>")
    assert staging.inv(*words).returncode == 0
    staging.change()
    out = staging.deploy()
    assert out.returncode == 0 and "maintenance is on" in out.stderr, out.stderr
    assert len(set(staging.current())) == 1
    for host in staging.served:
        status, page = person(host)
        assert status == 503 and "Back &lt;soon&gt;" in page
    found = json.loads(staging.inv("status", "--env", "staging", "--json").stdout)
    assert (found["verdict"], found["maintenance"]["message"]) == (
        "maintenance",
        "Back <soon>",
    )
    assert staging.inv("maintenance", "off", "--env", "staging").returncode == 0
    assert [person(host)[0] for host in staging.served] == [200, 200]


def test_following_the_logs_survives_a_cut_without_loss_or_repeats(
    staging: Staging,
) -> None:
    def write(*numbers: int) -> None:
        for number in numbers:
            at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
            for host in staging.served:
                log = host.root / ROOT[1:] / "current" / "app.log"
                with log.open("a") as file:
                    file.write(f"{at}.{number:03}Z INFO counted {number}\n")

    write(1)
    words = ("logs", "--env", "staging", "--follow", "--grep", "counted", "--json")
    follower = staging.start(*words)
    watchdog = threading.Timer(60, follower.kill)
    watchdog.start()
    lines = [follower.stdout.readline() for _ in range(2)]
    staging.two.inside("pkill", "-KILL", "-f", "sshd: deploy")
    write(2, 3)
    lines += [follower.stdout.readline() for _ in range(4)]
    write(4)
    lines += [follower.stdout.readline() for _ in range(2)]
    follower.send_signal(signal.SIGINT)
    _, err = follower.communicate(timeout=20)
    watchdog.cancel()
    seen = [json.loads(line) for line in lines]
    for host in staging.served:
        told = [each["text"] for each in seen if each["host"] == host.address]
        assert [int(text.split()[-1]) for text in told] == [1, 2, 3, 4]
    assert follower.returncode == 130, err


def test_a_host_whose_key_is_not_known_is_refused(
    staging: Staging, tmp_path: Path
) -> None:
    empty = tmp_path / "known"
    empty.write_text("")
    refused = staging.deploy(MLTRADING_KNOWN_HOSTS=str(empty))
    assert refused.returncode == 1
    assert f"ssh-keyscan -t ed25519 -p 22 {staging.one.address}" in refused.stderr


def test_a_host_whose_key_has_changed_is_refused_loudly(
    staging: Staging, tmp_path: Path
) -> None:
    keys = dict(
        line.split(" ", 1)
        for line in staging.fleet.known_hosts.read_text().splitlines()
    )
    one, two = staging.one.address, staging.two.address
    swapped = tmp_path / "known"
    swapped.write_text(f"{one} {keys[two]}\n{two} {keys[one]}\n")
    refused = staging.deploy(MLTRADING_KNOWN_HOSTS=str(swapped))
    assert refused.returncode == 1
    assert "HAS CHANGED" in refused.stderr


def test_no_secret_is_where_others_may_read_it(staging: Staging) -> None:
    where = f"grep -rlF {CANARY} {ROOT} /var/log 2>/dev/null"
    for host in staging.fleet.hosts:
        files = host.inside("sh", "-c", where).stdout.split()
        kept = {"environ.json", "environ.unit", "sticky.json"}
        assert {Path(name).name for name in files} == kept
        for name in files:
            assert (host.root / name[1:]).stat().st_mode & 0o077 == 0
        lines = host.inside("sh", "-c", "cat /proc/[0-9]*/cmdline").stdout
        assert CANARY not in lines
