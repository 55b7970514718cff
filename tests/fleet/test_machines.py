"""The throw-away hosts are what the other tests take them for."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.environment import ROOT
from tests.fleet import machines
from tests.fleet.machines import Fleet, Host

pytestmark = pytest.mark.e2e

SLEEPER = "systemd-run --user --quiet --unit=sleeper sleep 600"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(2) as hosts:
        yield hosts


def said(host: Host, command: str, user: str = "deploy") -> str:
    done = host.ssh(command, user=user)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def soon(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


def test_each_host_has_a_name_and_a_plain_user(fleet: Fleet) -> None:
    for host in fleet.hosts:
        assert said(host, "hostname; id -un; pwd").split() == [
            host.name,
            "deploy",
            "/home/deploy",
        ]
        assert said(host, "ls") == "" and said(host, "id -u") != "0"


def test_a_host_is_whole(fleet: Fleet) -> None:
    state = "systemctl is-system-running; /usr/bin/python3 -c 'print(1)'"
    assert said(fleet.hosts[0], state).split() == ["running", "1"]


def test_a_host_shows_nothing_of_this_machines_homes(fleet: Fleet) -> None:
    listed = said(fleet.hosts[0], "ls -A /root /home /opt", user="root")
    assert str(ROOT) not in listed and ".ssh" in listed
    assert not (fleet.hosts[0].root / str(ROOT / "tasks.py").lstrip("/")).exists()


def test_hosts_reach_each_other_by_name_and_this_machine(fleet: Fleet) -> None:
    ask = f"getent hosts host2; ping -c1 -W2 {fleet.gateway} || echo no ping here"
    assert said(fleet.hosts[0], ask).startswith(fleet.hosts[1].address)
    with socket.socket() as server:
        server.bind((fleet.gateway, 0))
        server.listen()
        dial = f"</dev/tcp/{fleet.gateway}/{server.getsockname()[1]}"
        said(fleet.hosts[0], f"bash -c {shlex.quote(dial)}")


def test_a_unit_of_the_user_starts_and_lasts_without_a_login(fleet: Fleet) -> None:
    host = fleet.hosts[0]
    said(host, SLEEPER)
    assert said(host, "systemctl --user is-active sleeper") == "active"


def test_a_host_that_is_not_known_is_rejected(fleet: Fleet, tmp_path: Path) -> None:
    nobody = tmp_path / "known_hosts"
    nobody.touch()
    words = fleet.hosts[0].arguments()
    known = f"-oUserKnownHostsFile={fleet.known_hosts}"
    words[words.index(known)] = f"-oUserKnownHostsFile={nobody}"
    done = subprocess.run([*words, "true"], capture_output=True, text=True)
    assert done.returncode == 255 and "verification failed" in done.stderr


def test_files_outlive_a_reboot_and_processes_do_not(fleet: Fleet) -> None:
    host = fleet.hosts[0]
    said(host, "echo kept >file; echo lost >/tmp/file")
    said(host, "pgrep sleep || sleep 600 >/dev/null 2>&1 </dev/null &")
    before = host.pid
    host.reboot()
    assert host.pid not in (None, before)
    assert said(host, "cat file; ls /tmp/file 2>&1 || true; pgrep sleep || true") == (
        "kept\nls: cannot access '/tmp/file': No such file or directory"
    )
    assert (host.root / "home/deploy/file").read_text() == "kept\n"


def test_power_off_is_silence_for_peers_and_the_end_for_all_inside(
    fleet: Fleet,
) -> None:
    host = fleet.hosts[1]
    with socket.create_connection((host.address, 22), timeout=5) as peer:
        assert peer.recv(4) == b"SSH-"
        host.power_off()
        assert host.pid is None and not host.cgroup.exists()
        peer.settimeout(0.3)
        with pytest.raises(TimeoutError):
            while peer.recv(100):
                pass
    assert host.ssh("true").returncode == 255
    host.boot()
    assert said(host, "systemctl --user is-system-running") == "running"


def test_an_observer_looks_inside_without_the_network(fleet: Fleet) -> None:
    host = fleet.hosts[1]
    host.unplug()
    assert host.inside("id", "-un", user="deploy").stdout == "deploy\n"
    host.plug()
    assert said(host, "true") == ""


def test_a_disk_can_be_full(fleet: Fleet) -> None:
    host = fleet.hosts[1]
    host.resize_disk("64m")
    full = host.ssh("head -c 100m /dev/zero >big")
    assert full.returncode == 1 and "No space left" in full.stderr
    host.resize_disk("1g")
    said(host, "rm big; touch small")


def test_two_fleets_live_side_by_side_and_leave_nothing(tmp_path: Path) -> None:
    with Fleet(1, tmp_path / "one") as one, Fleet(1, tmp_path / "two") as two:
        bridges = {one.bridge, two.bridge}
        assert len(bridges) == 2 and one.gateway != two.gateway
        assert said(two.hosts[0], "hostname") == "host1"
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    assert not bridges & set(os.listdir("/sys/class/net"))


def test_what_a_killed_run_left_is_swept_by_the_next(tmp_path: Path) -> None:
    code = (
        "import sys, time; from tests.fleet.machines import Fleet\n"
        "fleet = Fleet(1, sys.argv[1]); fleet.up()\n"
        "print(fleet.bridge, fleet.hosts[0].pid, flush=True); time.sleep(600)\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "killed")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    bridge, pid = run.stdout.readline().split()
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert soon(lambda: not Path("/proc", pid).exists()), "the host outlived its owner"
    with machines._registry():
        machines.sweep()
    assert not (machines.REGISTRY / f"{bridge}.json").exists()
    assert list(tmp_path.iterdir()) == []
    assert not Path("/sys/class/net", bridge).exists()


def test_an_interrupted_start_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(host: Host) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Host, "wait_ready", interrupt)
    fleet = Fleet(1, tmp_path / "base")
    with pytest.raises(KeyboardInterrupt):
        fleet.up()
    assert list(tmp_path.iterdir()) == [] and fleet.hosts == []


def test_by_hand_a_fleet_stays_until_it_is_taken_down(tmp_path: Path) -> None:
    base = tmp_path / "base"
    menu = [sys.executable, "-m", "tests.fleet.machines"]

    def type_(*words: str) -> subprocess.CompletedProcess[str]:
        words = (*menu, *words, "--base", str(base))
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)

    assert type_("up", "1").returncode == 0
    try:
        assert "is not empty" in type_("up", "1").stderr
        assert " on: ssh" in type_("show").stdout
        assert " off: ssh" in type_("power-off", "host1").stdout
    finally:
        assert type_("down").returncode == 0
    assert "no fleet is up" in type_("down").stderr


def test_without_root_the_reason_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(RuntimeError, match="need Linux and root"):
        Fleet(1).up()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(machines.NEEDS, "/usr/sbin/no-such-program", "gadget-deb")
    with pytest.raises(RuntimeError, match="packages: gadget-deb. Type: inv setup"):
        Fleet(1).up()
