"""Where runs happen: this machine, or a fleet of throw-away hosts with a database."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.faults.checkout import SECRET
from bench.faults.observer import Place
from bench.load import Answer, Load, Request
from tests.fleet.machines import Fleet
from tests.postgres import postgres

# Planted, and looked for everywhere.
PASSWORD = "canary-password-4711"
TOKEN = "canary-token-0815"
SECRETS = (PASSWORD, TOKEN)
# Requests a second to each door: on kept connections, and on new ones.
KEPT, NEW = 4.0, 4.0
TIMEOUT = 5.0
_REQUESTS = (Request(path="/"), Request(path="/charts"), Request(path="/version"))


class Command:
    """A command of a release engineer that is under way; its output goes to a file."""

    def __init__(
        self, words: Sequence[str], checkout: Path, environ: dict[str, str], log: Path
    ) -> None:
        self.words = tuple(words)
        self.checkout = checkout
        self.log = log
        self.begun = time.monotonic()
        self.seconds = 0.0
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "invoke", *words],
                cwd=checkout,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait(self, timeout: float = 120.0) -> int:
        """Return its exit code; one that has no end is killed, which is code -9."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.seconds = self.seconds or time.monotonic() - self.begun
        return code

    def send(self, number: signal.Signals) -> None:
        if self.running:
            self.process.send_signal(number)

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")


class Doors:
    """The load on every front door of a lane, and what became of each request."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.answers: list[tuple[str, Answer]] = []
        self.read = 0
        self.loads = [self._load(place) for place in places]

    def _load(self, place: Place) -> Load:
        host = place.door.partition("://")[2].partition(":")[0].strip("/")
        return Load(
            place.door,
            ours=(host,),
            keepalive_rps=KEPT,
            keepalive_connections=3,
            new_rps=NEW,
            requests=_REQUESTS,
            timeout=TIMEOUT,
            tell=lambda answer: self.answers.append((place.name, answer)),
        ).start()

    def since(self) -> list[tuple[str, Answer]]:
        """Return what has ended since the last call."""
        until = len(self.answers)
        found, self.read = self.answers[self.read : until], until
        return found

    def stop(self) -> None:
        for load in self.loads:
            load.stop()


class LocalLane:
    """This machine as the target, its state on a small disk of its own."""

    kind = "local"
    count = 1

    def __init__(self, name: str, folder: Path, checkouts: Path, shim: Path) -> None:
        self.name = name
        self.folder = folder
        self.checkouts = checkouts
        self.shim = shim
        self.disk = folder / "disk"
        self.plan = folder / "plan"
        self.places: list[Place] = []
        self.doors: Doors | None = None
        self._commands = 0

    @contextlib.contextmanager
    def up(self) -> Iterator[LocalLane]:
        """Mount the disk; two releases serve when this returns."""
        self.disk.mkdir(parents=True)
        _mount(self.disk, "256m")
        try:
            self.begin()
            yield self
        finally:
            if self.doors:
                self.doors.stop()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.run("a", "down").wait(30)
            _kill_below(self.disk)
            subprocess.run(["umount", "-l", str(self.disk)], check=False)
            shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self) -> None:
        _must(self.run("a", "deploy", "--env", "local", "--port", "0"))
        root = self.disk / "local"
        door = self._door(root)
        self.places = [Place(socket.gethostname(), root, door)]
        _must(self.run("b", "deploy", "--env", "local"))
        self.doors = Doors(self.places)

    def renew(self) -> None:
        """Begin again on an empty disk, after a violation that would breed more."""
        if self.doors:
            self.doors.stop()
            self.doors = None
        _kill_below(self.disk)
        subprocess.run(["umount", "-l", str(self.disk)], check=True)
        _mount(self.disk, "256m")
        self.begin()

    def _door(self, root: Path) -> str:
        import json

        port = json.loads((root / "front.json").read_text())["port"]
        return f"http://127.0.0.1:{port}/"

    def environ(self, *, shimmed: bool = False) -> dict[str, str]:
        found = _plain(self.folder)
        found |= {"MLTRADING_STATE": str(self.disk), SECRET: TOKEN}
        if shimmed:
            found |= {
                "LD_PRELOAD": str(self.shim),
                "MLT_FAULT_PLAN": str(self.plan),
                "MLT_FAULT_IN": "invoke",
            }
        return found

    def words(self, op: str, *more: str) -> tuple[str, ...]:
        return (op, "--env", "local", *more)

    def run(self, version: str, *words: str, shimmed: bool = False) -> Command:
        self._commands += 1
        log = self.folder / f"command-{self._commands % 40}.log"
        environ = self.environ(shimmed=shimmed)
        return Command(words, self.checkouts / version, environ, log)

    # Faults ----------------------------------------------------------------------

    def agents(self, host: int | None, command: Command) -> list[int]:
        """Return the processes that carry a step out: children of the deployer.

        What it has booted is its child too, but no step.
        """
        return [pid for pid in _children(command.process.pid) if not _serves(pid)]

    def links(self, host: int) -> list[int]:
        return []

    def fill(self, host: int) -> None:
        _fill(self.disk, lambda size: _remount(self.disk, size))

    def free(self, host: int) -> None:
        _remount(self.disk, "256m")

    def plant(self, host: int, line: str) -> None:
        self.plan.write_text(line + "\n")

    def unplant(self) -> None:
        self.plan.unlink(missing_ok=True)

    # The database ----------------------------------------------------------------

    def rows(self) -> list[tuple[Any, ...]]:
        path = self.places[0].root / "data" / "mltrading.db"
        with contextlib.closing(sqlite3.connect(path, timeout=5)) as database:
            query = "select generation, revision, release, backup from applied"
            return database.execute(query).fetchall()

    def unmigrate(self) -> None:
        """Make the newest revision pending again, as a new release's would be."""
        path = self.places[0].root / "data" / "mltrading.db"
        with contextlib.closing(sqlite3.connect(path, timeout=5)) as database:
            for statement in UNMIGRATE:
                database.execute(statement)
            database.commit()


UNMIGRATE = (
    "insert into generation select coalesce(max(number), 0) + 1 from generation",
    "delete from migrations where revision = '0002'",
)


class FleetLane:
    """A fleet of throw-away hosts reached over SSH, with a PostgreSQL of its own."""

    kind = "ssh"

    def __init__(
        self, name: str, folder: Path, checkouts: Path, shim: Path, count: int
    ) -> None:
        self.name = name
        self.folder = folder
        self.checkouts = checkouts
        self.shim = shim
        self.count = count
        self.fleet: Fleet
        self.url = ""
        self.places: list[Place] = []
        self.doors: Doors | None = None
        self._commands = 0

    @contextlib.contextmanager
    def up(self) -> Iterator[FleetLane]:
        """Boot and prepare the hosts; two releases serve when this returns."""
        self.folder.mkdir(parents=True)
        with Fleet(self.count, disk="512m") as fleet:
            self.fleet = fleet
            # An address of its own, so that it can be cut off and SSH not.
            address = fleet.gateway.rpartition(".")[0] + ".2"
            _ip(f"addr add {address}/24 dev {fleet.bridge}")
            self.database = address
            with postgres(address) as url:
                self.url = url.replace("postgres@", f"postgres:{PASSWORD}@")
                self._prepare()
                self.begin()
                try:
                    yield self
                finally:
                    if self.doors:
                        self.doors.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _prepare(self) -> None:
        for host in self.fleet.hosts:
            opt = host.root / "opt"
            shutil.copy2(self.shim, opt / "shim.so")
            (host.root / "etc/ssh/sshd_config.d/faults.conf").write_text(
                "SetEnv LD_PRELOAD=/opt/shim.so MLT_FAULT_PLAN=/opt/plan"
                " MLT_FAULT_IN=/agent/\n"
            )
            host.inside("systemctl", "reload", "ssh")
        setup = ("host-setup", "--env", "staging", "--yes")
        _must(self.run("a", *setup, "--key", f"{self.fleet.key}.pub"))

    def begin(self) -> None:
        for version in "ab":
            _must(self.run(version, "deploy", "--env", "staging"))
        self.places = [
            Place(
                name=host.address,
                root=host.root / "home/deploy/mltrading/staging",
                door=f"http://{host.address}/",
                cgroup=host.cgroup,
            )
            for host in self.fleet.hosts
        ]
        self.doors = Doors(self.places)

    def renew(self) -> None:
        """Begin again on hosts that hold no release."""
        if self.doors:
            self.doors.stop()
            self.doors = None
        for host in self.fleet.hosts:
            if host.pid is None:
                host.boot()
            host.resize_disk("512m")
            for number in range(1, 400):
                folder = host.root / f"home/deploy/mltrading/staging/releases/v{number}"
                if folder.exists():
                    host.ssh(f"systemctl --user stop mltrading-staging@v{number}")
            root = host.root / "home/deploy/mltrading/staging"
            for path in root.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        import psycopg

        with psycopg.connect(self.url, connect_timeout=5) as database:
            for table in ("migrations", "generation", "applied"):
                database.execute(f"drop table if exists {table}")
        self.begin()

    def environ(self) -> dict[str, str]:
        hosts = ",".join(f"deploy@{host.address}" for host in self.fleet.hosts)
        return {
            **_plain(self.folder),
            "MLTRADING_STATE": str(self.folder / "state"),
            "MLTRADING_STAGING_HOSTS": hosts,
            "STAGING_URL": f"http://{self.fleet.hosts[0].address}",
            "DATABASE_URL_STAGING": self.url,
            f"{SECRET}_STAGING": TOKEN,
            "MLTRADING_KNOWN_HOSTS": str(self.fleet.known_hosts),
            "MLTRADING_SSH_KEY": str(self.fleet.key),
        }

    def words(self, op: str, *more: str) -> tuple[str, ...]:
        return (op, "--env", "staging", *more)

    def run(self, version: str, *words: str, shimmed: bool = False) -> Command:
        """Start a command; `shimmed` needs nothing here: agents have it always."""
        self._commands += 1
        log = self.folder / f"command-{self._commands % 40}.log"
        return Command(words, self.checkouts / version, self.environ(), log)

    # Faults ----------------------------------------------------------------------

    def agents(self, host: int | None, command: Command) -> list[int]:
        """Return the agents of one host, or of all, as this machine numbers them."""
        chosen = self.fleet.hosts if host is None else [self.fleet.hosts[host]]
        return [
            pid
            for each in chosen
            for pid, line in _lines(each.cgroup)
            if b"/agent/" in line and line.startswith(b"python3")
        ]

    def links(self, host: int) -> list[int]:
        """Return the sshd processes that serve one login each."""
        cgroup = self.fleet.hosts[host].cgroup
        return [pid for pid, line in _lines(cgroup) if line.startswith(b"sshd: deploy")]

    def unplug(self, host: int) -> None:
        self.fleet.hosts[host].unplug()

    def plug(self, host: int) -> None:
        self.fleet.hosts[host].plug()

    def power_off(self, host: int) -> None:
        self.fleet.hosts[host].power_off()

    def boot(self, host: int) -> None:
        self.fleet.hosts[host].boot()

    def fill(self, host: int) -> None:
        machine = self.fleet.hosts[host]
        _fill(machine.folder / "disk", machine.resize_disk)

    def free(self, host: int) -> None:
        self.fleet.hosts[host].resize_disk("512m")

    def cut_database(self, host: int) -> None:
        namespace = self.fleet.hosts[host].netns
        _ip(f"route replace unreachable {self.database}/32", namespace)

    def mend_database(self, host: int) -> None:
        namespace = self.fleet.hosts[host].netns
        _ip(f"route del unreachable {self.database}/32", namespace)

    def plant(self, host: int, line: str) -> None:
        (self.fleet.hosts[host].root / "opt" / "plan").write_text(line + "\n")

    def unplant(self) -> None:
        for host in self.fleet.hosts:
            (host.root / "opt" / "plan").unlink(missing_ok=True)

    # The database ----------------------------------------------------------------

    def rows(self) -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(self.url, connect_timeout=5) as database:
            query = "select generation, revision, release, backup from applied"
            return database.execute(query).fetchall()

    def unmigrate(self) -> None:
        """Make the newest revision pending again, as a new release's would be."""
        import psycopg

        with psycopg.connect(self.url, connect_timeout=5) as database:
            for statement in UNMIGRATE:
                database.execute(statement)


Lane = LocalLane | FleetLane


def _plain(folder: Path) -> dict[str, str]:
    """Return an environment in which nothing of this checkout is seen."""
    left = ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "PYTHONDONTWRITEBYTECODE")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in left
        and not name.startswith(("DATABASE_URL", "ENVIRONMENT", "COV_", "PYTEST_"))
        and not name.startswith(("MLTRADING_", "PYTHONPATH", "SLACK_"))
    }
    return {
        **kept,
        "NO_COLOR": "1",
        "MLTRADING_CACHE": str(folder.parent / "cache"),
        "XDG_STATE_HOME": str(folder / "home"),
    }


def _must(command: Command) -> None:
    if command.wait(180):
        raise RuntimeError(f"{' '.join(command.words)} failed:\n{command.said}")


def _mount(disk: Path, size: str) -> None:
    options = f"size={size},mode=700"
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "mltrading-faults", str(disk)],
        check=True,
    )


def _remount(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def _fill(disk: Path, resize: Callable[[str], None]) -> None:
    """Leave a disk no space but a page.

    What is written between the look and the change makes the size too small, which is
    refused: then it is looked at again.
    """
    for _ in range(50):
        try:
            return resize(str(shutil.disk_usage(disk).used + 4096))
        except (subprocess.CalledProcessError, RuntimeError) as error:
            refused = error
    raise refused


def _ip(line: str, namespace: str = "") -> None:
    within = ["-n", namespace] if namespace else []
    subprocess.run(
        ["ip", *within, *line.split()], check=False, stderr=subprocess.DEVNULL
    )


def _lines(cgroup: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the processes of a host with their arguments, joined by spaces."""
    for folder, _, _ in os.walk(cgroup):
        try:
            pids = Path(folder, "cgroup.procs").read_text().split()
        except OSError:
            continue
        for pid in pids:
            with contextlib.suppress(OSError):
                line = Path("/proc", pid, "cmdline").read_bytes()
                yield int(pid), line.replace(b"\0", b" ")


def _children(pid: int) -> list[int]:
    """Return the processes that a process has started and that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def _serves(pid: int) -> bool:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"gunicorn" in line or b"front-" in line


def _kill_below(folder: Path) -> None:
    """Kill every process whose arguments name a folder that is only ours."""
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and int(path.name) != os.getpid():
            with contextlib.suppress(OSError):
                if f"{folder}/".encode() in (path / "cmdline").read_bytes():
                    os.kill(int(path.name), signal.SIGKILL)
