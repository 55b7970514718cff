"""Throw-away hosts: real systemd as PID 1 and real sshd, each in its own namespaces.

    with Fleet(2) as fleet:
        fleet.hosts[0].ssh("true")

A host sees this machine's programs through an overlay and writes into a folder of its
own; homes, /opt, /srv and enabled units are not taken over. Its user `deploy` is an
ordinary one that lingers. What a host writes outlives `reboot`, not the fleet. Power
goes off the hard way: the link first, so that peers see silence, then every process.

By hand, as root: `python -m tests.fleet.machines up 2 --base /dev/shm/fleet`, then
`down --base /dev/shm/fleet`.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

USER = "deploy"
# Fleets that are up, one file each: a killed run is found by its own.
REGISTRY = Path("/run/mltrading-fleet")
BOOT = Path(__file__).with_name("boot.py")
READY = 20.0
# Folders of this machine that a host shares; all others at the top look empty.
SHARED = {"bin", "etc", "lib", "lib32", "lib64", "libx32", "sbin", "usr", "var"}
# Also empty: what this machine has enabled, its logs and its state of systemd.
EMPTY = ("etc/systemd/system", "var/log", "var/lib/systemd", "var/spool", "var/www")
# Units that want hardware, a kernel of their own, or a network they may configure.
MASKED = (
    *("dev-hugepages.mount", "dev-mqueue.mount", "proc-sys-fs-binfmt_misc.automount"),
    *("sys-fs-fuse-connections.mount", "sys-kernel-config.mount"),
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount", "getty.target"),
    *("kmod-static-nodes.service", "systemd-binfmt.service"),
    *("systemd-firstboot.service", "systemd-hwdb-update.service"),
    *("systemd-modules-load.service", "systemd-networkd.service"),
    *("networking.service", "systemd-resolved.service", "systemd-timesyncd.service"),
    *("systemd-random-seed.service", "systemd-remount-fs.service"),
    *("systemd-repart.service", "systemd-sysctl.service", "systemd-udevd.service"),
    *("systemd-udev-trigger.service", "systemd-udevd-control.socket"),
    "systemd-udevd-kernel.socket",
)
NEEDS = {
    "ip": "iproute2",
    "/usr/sbin/sshd": "openssh-server",
    "/usr/bin/dbus-daemon": "dbus",
    "/usr/bin/ssh-keygen": "openssh-client",
    "/lib/systemd/systemd": "systemd",
    "/usr/share/pam-configs/systemd": "libpam-systemd",
}


@dataclass
class Host:
    """One host: its name, address, and the folder that is its root file system."""

    name: str
    address: str
    root: Path
    folder: Path
    netns: str
    bridge: str
    cgroup: Path
    key: Path
    known_hosts: Path
    _watch: int | None = field(default=None, repr=False)
    _power: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int | None:
        """Return the PID, seen from this machine, of its PID 1; None: it is off."""
        try:
            pid = int((self.folder / "pid").read_text())
            text = Path(f"/proc/{pid}/cmdline").read_text()
        except (OSError, ValueError):
            return None
        return pid if "systemd" in text or str(BOOT) in text else None

    def arguments(self, user: str = USER) -> list[str]:
        """Return the OpenSSH client's arguments to log in, without a command."""
        settings = {
            "BatchMode": "yes",
            "ConnectTimeout": "5",
            "IdentitiesOnly": "yes",
            "LogLevel": "ERROR",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.known_hosts),
        }
        options = [f"-o{name}={value}" for name, value in settings.items()]
        key = ["-F", "none", "-i", str(self.key)]
        return ["ssh", *key, *options, f"{user}@{self.address}"]

    def ssh(
        self, command: str, *, user: str = USER, timeout: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the host over SSH; never raises for its exit code."""
        return _run([*self.arguments(user), "--", command], timeout, check=False)

    def inside(
        self, *argv: str, user: str = "root", timeout: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside the host, past its network and sshd: for observers."""
        enter = ["nsenter", f"--target={self.pid or 0}", "--all", "--wdns=/"]
        become = ["runuser", "-u", user, "--"] if user != "root" else []
        plain = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        return _run([*enter, *plain, *become, *argv], timeout, check=False)

    def power_off(self) -> None:
        """Take link and power away at once; files stay."""
        self.unplug()
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                watched = os.pidfd_open(pid)
                os.kill(pid, signal.SIGKILL)
                select.select([watched], [], [], 10)
                os.close(watched)
        if self._power is not None:
            if pid is None:
                # It was still on its way to a PID 1, which ends with it.
                self._power.kill()
            self._power.wait(10)
            self._power = None
        (self.folder / "pid").unlink(missing_ok=True)
        _ip(f"netns del {self.netns}", check=False)
        _remove_cgroup(self.cgroup)

    def boot(self, *, wait: bool = True) -> None:
        """Give power; with `wait`, return when `deploy` can log in and has systemd.

        Raises:
            RuntimeError: it is not ready in time; holds the end of its console.
        """
        if self.pid is not None:
            raise RuntimeError(f"{self.name} is running")
        self.cgroup.mkdir(exist_ok=True)
        _ip(f"netns add {self.netns}")
        self.plug()
        wanted = {
            "name": self.name,
            "root": str(self.root),
            "cgroup": str(self.cgroup),
            "netns": self.netns,
            "pid": str(self.folder / "pid"),
            "watch": self._watch,
        }
        with open(self.folder / "console.log", "ab") as console:
            self._power = subprocess.Popen(
                [sys.executable, "-I", "-S", str(BOOT), json.dumps(wanted)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                pass_fds=[] if self._watch is None else [self._watch],
                cwd="/",
            )
        if wait:
            self.wait_ready()

    def reboot(self) -> None:
        """Power off and on again; return when the host is ready."""
        self.power_off()
        self.boot()

    def unplug(self) -> None:
        """Pull the network cable: peers see silence, not an end of connections."""
        _ip(f"link del {self.netns}", check=False)

    def plug(self) -> None:
        """Put the network cable in (again)."""
        last = self.address.split(".")
        mac = "02:4d:" + ":".join(f"{int(part):02x}" for part in last)
        _ip(
            f"link add {self.netns} type veth peer name eth0 address {mac}"
            f" netns {self.netns}",
            f"link set {self.netns} master {self.bridge} up",
        )
        gateway = ".".join([*last[:3], "1"])
        _ip(
            f"addr add {self.address}/24 dev eth0",
            "link set lo up",
            "link set eth0 up",
            f"route add default via {gateway}",
            netns=self.netns,
        )

    def resize_disk(self, size: str) -> None:
        """Let its disk hold so much ("64m"), so that it can be full."""
        disk = self.folder / "disk"
        _run(["mount", "-o", f"remount,size={size}", str(disk)])

    def wait_ready(self, seconds: float = READY) -> None:
        """Wait until a login as deploy reaches a user manager that has come up."""
        ask = (
            'test -d "$XDG_RUNTIME_DIR" && true'
            " && systemctl --user is-system-running --wait"
        )
        deadline = time.monotonic() + seconds
        said = "no answer"
        while time.monotonic() < deadline:
            if self._power is not None and self._power.poll() is not None:
                said = "its PID 1 ended"
                break
            if self.pid is not None and self._answers():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    done = self.ssh(ask, timeout=10)
                    said = (done.stdout + done.stderr).strip()
                    if done.returncode == 0:
                        return
            time.sleep(0.02)
        console = (self.folder / "console.log").read_text(errors="replace")
        raise RuntimeError(f"{self.name} is not ready: {said}\n{console[-2000:]}")

    def _answers(self) -> bool:
        """True when sshd listens and ordinary users may log in; cheap to ask."""
        root = Path(f"/proc/{self.pid}/root")
        listening = _listens(Path(f"/proc/{self.pid}/net"), 22)
        return (
            listening
            and not (root / "run/nologin").exists()
            and any((root / "run/user").glob("*/systemd/private"))
        )


class Fleet:
    """Some hosts on one bridge; `up` and `down`, or a `with` block.

    `base` is an empty or new folder (default: a new one in /dev/shm); each host's
    files are in memory, at most `disk` of them. Without `keep` the hosts end with
    this process, even if it is killed.
    """

    def __init__(
        self,
        count: int,
        base: Path | str | None = None,
        *,
        disk: str = "4g",
        keep: bool = False,
    ) -> None:
        self.count = count
        self.disk = disk
        self.hosts: list[Host] = []
        self.keep = keep
        self.bridge = ""
        self._watched: tuple[int, int] | None = None
        self.base = Path(base) if base else Path(f"/dev/shm/mltrading-{uuid.uuid4()}")

    @property
    def key(self) -> Path:
        """Return the private key that logs in as deploy and as root."""
        return self.base / "key"

    @property
    def known_hosts(self) -> Path:
        """Return the file with the host keys."""
        return self.base / "known_hosts"

    @property
    def gateway(self) -> str:
        """Return this machine's address, as the hosts see it."""
        return self.hosts[0].address.rpartition(".")[0] + ".1"

    def host(self, name: str) -> Host:
        """Return the host of a name or address."""
        return next(host for host in self.hosts if name in (host.name, host.address))

    def __enter__(self) -> Fleet:
        self.up()
        return self

    def __exit__(self, *exception: object) -> None:
        self.down()

    def up(self) -> None:
        """Make and boot the hosts; on any failure nothing is left behind.

        Raises:
            RuntimeError: this machine can't have such hosts, or one is not ready.
        """
        _check()
        atexit.register(self.down)
        try:
            with _registry():
                sweep()
                self._reserve()
            self._keys()
            self._each(self._make)
            self._each(Host.wait_ready)
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Power everything off and remove it; again does nothing."""
        atexit.unregister(self.down)
        record = REGISTRY / f"{self.bridge}.json"
        if self.bridge and record.exists():
            self._each(Host.power_off)
            if self._watched is not None:
                for descriptor in self._watched:
                    os.close(descriptor)
                self._watched = None
            _demolish(json.loads(record.read_text()))
            record.unlink()
        self.hosts = []

    @classmethod
    def attach(cls, base: Path | str) -> Fleet:
        """Return the fleet that another process brought up in a folder.

        Raises:
            RuntimeError: there is none.
        """
        for record in _records():
            if record["base"] == str(Path(base).resolve()):
                fleet = cls(record["count"], record["base"], keep=record["keep"])
                fleet._place(record["bridge"])
                return fleet
        raise RuntimeError(f"no fleet is up in {base}")

    def _reserve(self) -> None:
        """Take a bridge and its /24 and write it down; the registry is held."""
        made = not self.base.exists()
        if not made and any(self.base.iterdir()):
            raise RuntimeError(f"{self.base} is not empty: take `down` or another base")
        self.base.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.base = self.base.resolve()
        present = {path.name for path in Path("/sys/class/net").iterdir()}
        free = (f"mltf{n}" for n in range(1, 255) if f"mltf{n}" not in present)
        bridge = next(free)
        record = {
            "bridge": bridge,
            "base": str(self.base),
            "count": self.count,
            "keep": self.keep,
            "owner": _identity(os.getpid()),
            "boot": _boot(),
            "made": made,
            "cgroups": str(_cgroups()),
        }
        (REGISTRY / f"{bridge}.json").write_text(json.dumps(record))
        # An address of its own: it would take over a port's, and change it with them,
        # so that pulling one host's cable would cut the others off too.
        _ip(
            f"link add {bridge} address 02:4d:4c:00:00:{int(bridge[4:]):02x}"
            " type bridge",
            f"addr add 10.77.{bridge[4:]}.1/24 dev {bridge}",
            f"link set {bridge} up",
        )
        if not self.keep:
            # Nobody writes: its reading end says end-of-file when we are gone.
            self._watched = os.pipe()
        self._place(bridge)

    def _place(self, bridge: str) -> None:
        """Name the hosts of a fleet on a bridge."""
        self.bridge = bridge
        self.hosts = [
            Host(
                name=f"host{number}",
                address=f"10.77.{bridge[4:]}.{10 + number}",
                root=self.base / f"host{number}" / "root",
                folder=self.base / f"host{number}",
                netns=f"{bridge}h{number}",
                bridge=bridge,
                cgroup=_cgroups() / f"{bridge}h{number}",
                key=self.key,
                known_hosts=self.known_hosts,
                _watch=self._watched[0] if self._watched else None,
            )
            for number in range(1, self.count + 1)
        ]

    def _each(self, act: Any) -> None:
        """Do the same to all hosts side by side; the first failure is raised."""
        if self.hosts:
            with ThreadPoolExecutor(len(self.hosts)) as pool:
                list(pool.map(act, self.hosts))

    def _keys(self) -> None:
        """Make the key that logs in, and one for each host."""
        names = [self.key, *(self.base / f"{host.name}.key" for host in self.hosts)]
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(_key, names))
        lines = [
            f"{host.address} {' '.join(_public(self.base / f'{host.name}.key'))}\n"
            for host in self.hosts
        ]
        self.known_hosts.write_text("".join(lines))

    def _make(self, host: Host) -> None:
        """Lay the file system of a host over this machine's and boot it."""
        disk = host.folder / "disk"
        for folder in (disk, host.root):
            folder.mkdir(parents=True)
        # What lies over / may not be on the file system of /.
        memory = ["mount", "-t", "tmpfs", "-o", f"size={self.disk},mode=700"]
        _run([*memory, host.netns, str(disk)])
        upper, work = disk / "upper", disk / "work"
        upper.mkdir()
        work.mkdir()
        os.chmod(upper, 0o755)
        for name in os.listdir("/"):
            place = Path("/", name)
            if place.is_dir() and not place.is_symlink() and name not in SHARED:
                _empty(upper, name)
        for name in EMPTY:
            if Path("/", name).is_dir():
                _empty(upper, name)
        layers = f"lowerdir=/,upperdir={upper},workdir={work}"
        _run(["mount", "-t", "overlay", host.netns, "-o", layers, str(host.root)])
        self._furnish(host)
        host.boot(wait=False)

    def _furnish(self, host: Host) -> None:
        """Write what makes it a host of its own: names, keys, users, units."""
        etc = host.root / "etc"
        (etc / "hostname").write_text(f"{host.name}\n")
        _replace(etc / "machine-id", f"{uuid.uuid4().hex}\n")
        (etc / "fstab").write_text("")
        _replace(etc / "resolv.conf", "")
        _replace(etc / "environment", "")
        names = [f"{other.address} {other.name}\n" for other in self.hosts]
        _replace(etc / "hosts", "127.0.0.1 localhost\n" + "".join(names))
        for old in (etc / "ssh").glob("ssh_host_*"):
            old.unlink()
        key = self.base / f"{host.name}.key"
        shutil.copy(key, etc / "ssh" / "ssh_host_ed25519_key")
        shutil.copy(f"{key}.pub", etc / "ssh" / "ssh_host_ed25519_key.pub")
        units = etc / "systemd" / "system"
        (units / "multi-user.target.wants").mkdir(parents=True)
        (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
        ssh = "/lib/systemd/system/ssh.service"
        (units / "multi-user.target.wants" / "ssh.service").symlink_to(ssh)
        (units / "sshd.service").symlink_to(ssh)
        for unit in MASKED:
            (units / unit).symlink_to("/dev/null")
        for folder in ("journal", "nginx", "private"):
            (host.root / "var/log" / folder).mkdir(exist_ok=True)
        linger = host.root / "var/lib/systemd/linger"
        linger.mkdir(parents=True)
        if USER not in (etc / "passwd").read_text().replace(":", "\n").splitlines():
            add = ["useradd", "--create-home", "--skel", "/nonexistent"]
            _run(["chroot", str(host.root), *add, "--shell", "/bin/bash", USER])
        (linger / USER).touch()
        user = next(
            line.split(":")
            for line in (etc / "passwd").read_text().splitlines()
            if line.startswith(f"{USER}:")
        )
        self._home(host.root / user[5].lstrip("/"), int(user[2]), int(user[3]))
        self._home(host.root / "root", 0, 0)

    def _home(self, home: Path, uid: int, gid: int) -> None:
        """Furnish a home that holds nothing of this machine's."""
        (home / ".ssh").mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.copy(f"{self.key}.pub", home / ".ssh" / "authorized_keys")
        (home / ".bashrc").write_text("# Nothing: a clean host.\n")
        (home / ".hushlogin").touch()
        home.chmod(0o700)
        for path in (home, *home.rglob("*")):
            os.chown(path, uid, gid)


def sweep() -> None:
    """Remove what killed runs have left. With the registry held."""
    for record in _records():
        alive = record["boot"] == _boot() and (
            record["keep"] or record["owner"] == _identity(record["owner"][0])
        )
        if not alive:
            _demolish(record)
            (REGISTRY / f"{record['bridge']}.json").unlink()


def _demolish(record: dict[str, Any]) -> None:
    """Remove everything that a fleet's record names; what is gone is passed over."""
    bridge, base = record["bridge"], Path(record["base"])
    for number in range(1, record["count"] + 1):
        folder = base / f"host{number}"
        name = f"{bridge}h{number}"
        with contextlib.suppress(OSError, ValueError):
            pid = int((folder / "pid").read_text())
            # Only a process of that host's cgroup: the number may be in use again.
            if f"/{name}/" in Path(f"/proc/{pid}/cgroup").read_text():
                os.kill(pid, signal.SIGKILL)
        _ip(f"link del {name}", check=False)
        _ip(f"netns del {name}", check=False)
        places = (folder / "root", folder / "disk")
        for place in filter(os.path.ismount, places):
            _run(["umount", "-l", str(place)])
        _remove_cgroup(Path(record["cgroups"]) / name)
        if not any(map(os.path.ismount, places)):
            shutil.rmtree(folder, ignore_errors=True)
        for path in base.glob(f"host{number}.key*"):
            path.unlink()
    for name in ("key", "key.pub", "known_hosts"):
        (base / name).unlink(missing_ok=True)
    if record["made"]:
        with contextlib.suppress(OSError):
            base.rmdir()
    _ip(f"link del {bridge}", check=False)


def _check() -> None:
    """Raise a RuntimeError that says what is missing for hosts here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise RuntimeError(
            "throw-away hosts need Linux and root: run the tests as root, or leave"
            " them out with -m 'not e2e'"
        )
    missing = [
        package
        for name, package in NEEDS.items()
        if not (Path(name).exists() if "/" in name else shutil.which(name))
    ]
    if missing:
        raise RuntimeError(
            f"throw-away hosts need Debian packages: {' '.join(missing)}."
            " Type: inv setup"
        )


def _cgroups() -> Path:
    """Return where the unified cgroup hierarchy is mounted."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise RuntimeError("no cgroup2 is mounted on this machine: systemd needs it")


def _remove_cgroup(top: Path) -> None:
    """Remove a host's cgroups, innermost first; waits for its last processes."""
    deadline = time.monotonic() + 5
    while top.is_dir() and time.monotonic() < deadline:
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        if top.is_dir():
            time.sleep(0.01)


def _empty(upper: Path, name: str) -> None:
    """Let a folder of this machine look empty on the host, with its permissions."""
    place = upper
    for part in Path(name).parts:
        place = place / part
        if not place.exists():
            place.mkdir()
            shutil.copystat(Path("/") / place.relative_to(upper), place)
    os.setxattr(place, "trusted.overlay.opaque", b"y")


def _replace(path: Path, text: str) -> None:
    """Write a file anew, also where it was a link."""
    path.unlink(missing_ok=True)
    path.write_text(text)


def _key(path: Path) -> None:
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name]
    _run([*make, "-f", str(path)])


def _public(path: Path) -> list[str]:
    return Path(f"{path}.pub").read_text().split()[:2]


def _listens(net: Path, port: int) -> bool:
    """True when something listens on a TCP port in a process's network."""
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (net / name).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                    return True
    return False


def _identity(pid: int) -> list[int]:
    """Return what tells a process from a later one of the same number."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return [pid, 0]
    return [pid, int(text.rpartition(")")[2].split()[19])]


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _records() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(REGISTRY.glob("*.json"))]


@contextlib.contextmanager
def _registry() -> Iterator[None]:
    """Hold the registry: one process at a time reserves and sweeps."""
    REGISTRY.mkdir(exist_ok=True, mode=0o755)
    with open(REGISTRY / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _ip(*lines: str, netns: str = "", check: bool = True) -> None:
    """Run lines of ip(8) in one process."""
    within = ["-n", netns] if netns else []
    text = "".join(f"{line}\n" for line in lines)
    _run(["ip", *within, "-batch", "-"], check=check, text=text)


def _run(
    argv: Sequence[str], timeout: float = 30, *, check: bool = True, text: str = ""
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        argv,
        input=text,
        capture_output=True,
        text=True,
        timeout=timeout,
        errors="replace",
    )
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout}")
    return done


def main(words: Sequence[str] | None = None) -> int:
    """Bring a fleet up that stays, use it, take it down."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet.machines")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("up", "down", "show", "power-off", "boot", "reboot"):
        one = verbs.add_parser(verb)
        if verb == "up":
            one.add_argument("count", type=int)
        elif verb in ("power-off", "boot", "reboot"):
            one.add_argument("host")
        one.add_argument("--base", default="/dev/shm/mltrading-fleet", type=Path)
    asked = parser.parse_args(words)
    begun = time.monotonic()
    try:
        if asked.verb == "up":
            fleet = Fleet(asked.count, asked.base, keep=True)
            fleet.up()
            atexit.unregister(fleet.down)
        else:
            fleet = Fleet.attach(asked.base)
            if asked.verb == "down":
                fleet.down()
            elif asked.verb != "show":
                getattr(fleet.host(asked.host), asked.verb.replace("-", "_"))()
    except (RuntimeError, StopIteration) as error:
        print(f"error: {error or 'no such host'}", file=sys.stderr)
        return 1
    for host in fleet.hosts:
        power = "on" if host.pid else "off"
        print(f"{host.name} {host.address} {power}: {' '.join(host.arguments())}")
    print(f"{asked.verb}: {time.monotonic() - begun:.2f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
