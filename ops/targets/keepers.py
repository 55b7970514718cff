"""Keep the processes of releases: as daemons of ours, or as systemd user units.

Standard library only: this runs on the hosts too.
"""

from __future__ import annotations

import itertools
import os
import pwd
import re
import select
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ops.command import Command
from ops.errors import StepFailed
from ops.shell import Result, run
from ops.targets import processes

if TYPE_CHECKING:
    import subprocess

SLOT = re.compile(r"v([1-9][0-9]*)")
# Seconds that gunicorn gives requests in flight (graceful_timeout), and a margin.
_GRACE = 40


class Keeper(Protocol):
    """Who starts the processes of releases and sees that they end."""

    def prepare(self) -> None:
        """Make ready what `start` needs."""

    def start(self, number: int, environ: Mapping[str, str], timeout: float) -> str:
        """Start a release; return "" once it says it is ready, else why it is not."""

    def stop(self, number: int, timeout: float) -> int:
        """End a release, after `timeout` seconds for good; return how many killed."""

    def retire(self, number: int) -> bool:
        """Ask a release to end by itself; False when nothing was there to ask."""

    def running(self) -> dict[int, tuple[int, ...]]:
        """Return the processes of each release that has some."""

    def faults(self) -> dict[str, str]:
        """Return what keeps releases from running here, by name."""


def serving(slot: str) -> tuple[str, ...]:
    """Return the command that serves the release in a slot's folder."""
    return (
        *(f"{slot}/env/bin/python", "-m", "gunicorn"),
        *("--config", "python:mltrading_dashboard.gunicorn_conf"),
        *("--bind", "unix:app.sock"),
        "mltrading_dashboard.wsgi:server",
    )


class Daemons:
    """Processes of our own, found again by the pid file that they name."""

    def __init__(self, releases: Path) -> None:
        self.releases = releases

    def prepare(self) -> None:
        """Nothing is needed."""

    def start(self, number: int, environ: Mapping[str, str], timeout: float) -> str:
        import subprocess

        slot = self.releases / f"v{number}"
        *command, application = serving(str(slot))
        argv = (*command, "--pid", str(slot / "app.pid"), application)
        with (slot / "app.log").open("ab") as log, Notification() as notification:
            process = subprocess.Popen(
                argv,
                cwd=slot,
                env={**environ, "NOTIFY_SOCKET": notification.address},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            return notification.wait(process, timeout)

    def faults(self) -> dict[str, str]:
        return {}

    def stop(self, number: int, timeout: float) -> int:
        return processes.end(self.running().get(number, ()), timeout)

    def retire(self, number: int) -> bool:
        master = processes.master(self.running().get(number, ()))
        if master is not None:
            processes.tell(master, signal.SIGTERM)
        return master is not None

    def running(self) -> dict[int, tuple[int, ...]]:
        """Return the processes of each release, found by the pid file they name.

        The process table is asked, not the pid files: a deployer that was killed
        just after it started a release leaves a process and no pid file.
        """
        found: dict[int, list[int]] = {}
        prefix = str(self.releases) + os.sep
        for pid in processes.all_pids():
            for flag, argument in itertools.pairwise(processes.arguments(pid)):
                if flag != "--pid" or not argument.startswith(prefix):
                    continue
                match = SLOT.fullmatch(Path(argument).parent.name)
                if match and argument.endswith("/app.pid"):
                    found.setdefault(int(match[1]), []).append(pid)
        return {number: tuple(pids) for number, pids in found.items()}


class Units:
    """Services of this user's systemd, which brings them back after a reboot.

    Only the template's text is kept by systemd. Which release starts with the host is
    read from `current` at that moment, so that it can't differ from the pointer.
    `memory` is the most that all processes of one release may use, in MiB.
    """

    def __init__(
        self, releases: Path, name: str, memory: int, folder: Path | None = None
    ) -> None:
        self.releases = releases
        self.name = f"mltrading-{name}"
        self.memory = memory
        self.folder = folder or Path.home() / ".config" / "systemd" / "user"
        self.cgroup = re.compile(rf"/{re.escape(self.name)}@v([0-9]+)\.service")

    def prepare(self) -> None:
        """Write the units where they differ, and enable the one that starts them."""
        texts = {f"{self.name}@.service": self.template()}
        texts[f"{self.name}.service"] = self.starter()
        changed = False
        for name, text in texts.items():
            path = self.folder / name
            if not path.exists() or path.read_text() != text:
                _write(path, text)
                changed = True
        wanted = self.folder / "default.target.wants" / f"{self.name}.service"
        if not wanted.is_symlink():
            wanted.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(f"../{self.name}.service", wanted)
            changed = True
        if changed:
            self._systemctl("daemon-reload").require("systemd did not read the units")

    def template(self) -> str:
        """Return the unit that runs the release %i (v7)."""
        slot = f"{self.releases}/%i"
        return f"""\
# Written by inv deploy; a change here is overwritten by the next one.
[Unit]
Description=MLTrading {self.name} %i
# After a reboot the database may need longer than we do.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=all
WorkingDirectory={slot}
EnvironmentFile={slot}/environ.unit
ExecStart={" ".join(serving(slot))}
StandardOutput=append:{slot}/app.log
StandardError=append:{slot}/app.log
Restart=on-failure
RestartSec=1
TimeoutStartSec=120
KillMode=mixed
TimeoutStopSec={_GRACE}
MemoryMax={self.memory}M
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
"""

    def starter(self) -> str:
        """Return the unit that starts with the host whatever `current` names."""
        current = self.releases.parent / "current"
        instance = f'"{self.name}@$$(basename "$$(readlink {current})").service"'
        return f"""\
# Written by inv deploy; a change here is overwritten by the next one.
[Unit]
Description=Start the current release of {self.name}
ConditionPathExists={current}

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'exec systemctl --user start --no-block {instance}'

[Install]
WantedBy=default.target
"""

    def start(self, number: int, environ: Mapping[str, str], timeout: float) -> str:
        """Start a release; return "" once it says it is ready, else why it is not.

        Raises:
            StepFailed: this user has no systemd of its own.
        """
        path = self.releases / f"v{number}" / "environ.unit"
        _write(path, environment_file(environ), mode=0o600)
        self._systemctl("reset-failed", self._unit(number))
        started = self._systemctl("start", self._unit(number), timeout=timeout)
        if started.result.ok:
            return ""
        if started.result.timed_out:
            return f"it was not ready after {timeout:g} s"
        shown = self._systemctl(
            *("show", "--property=Result,ExecMainCode,ExecMainStatus,NRestarts"),
            self._unit(number),
        ).result.out
        return ended(shown) or started.result.tail(3)

    def stop(self, number: int, timeout: float) -> int:
        """End a release, after `timeout` seconds for good; return how many killed.

        Asked also where no process runs: systemd may be about to start it again.
        """
        stopped = self._systemctl("stop", self._unit(number), timeout=timeout)
        killed = 0
        if not stopped.result.ok:
            left = self.running().get(number, ())
            killed = len(left)
            self._systemctl("kill", "--signal=SIGKILL", self._unit(number))
            self._systemctl("stop", self._unit(number), timeout=5.0)
            # What systemd can't end is told from what is gone.
            processes.end(self.running().get(number, ()), 0.0)
        self._systemctl("reset-failed", self._unit(number))
        return killed

    def faults(self) -> dict[str, str]:
        found = {}
        private = Path(f"/run/user/{os.getuid()}/systemd/private")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            try:
                sock.connect(str(private))
            except OSError:
                found["systemd"] = "this user has no systemd of its own running"
        user = pwd.getpwuid(os.getuid()).pw_name
        if not Path("/var/lib/systemd/linger", user).exists():
            found["linger"] = f"{user} does not linger: nothing starts with the host"
        return found

    def retire(self, number: int) -> bool:
        unit = self._unit(number)
        return self._systemctl("stop", "--no-block", unit).result.ok

    def running(self) -> dict[int, tuple[int, ...]]:
        """Return the processes of each release, found by the unit they belong to."""
        return processes.in_units(self.cgroup)

    def _unit(self, number: int) -> str:
        return f"{self.name}@v{number}.service"

    def _systemctl(self, *words: str, timeout: float = 10.0) -> _Said:
        runtime = f"/run/user/{os.getuid()}"
        if not os.path.exists(f"{runtime}/systemd/private"):
            raise StepFailed(
                "this user has no systemd of its own: nobody made it linger",
                where=f"{socket.gethostname()}, {runtime}",
                next=f"inv host-setup --env {self.name.partition('-')[2]}",
            )
        environ = {"XDG_RUNTIME_DIR": runtime}
        argv = ("systemctl", "--user", "--quiet", *words)
        return _Said(run(Command(argv, env=environ, timeout=timeout)))


class _Said:
    """What systemctl answered."""

    def __init__(self, result: Result) -> None:
        self.result = result

    def require(self, what: str) -> None:
        if not self.result.ok:
            raise StepFailed(what, where="systemctl --user", detail=self.result.tail(5))


def environment_file(environ: Mapping[str, str]) -> str:
    """Return variables in the syntax that systemd reads, whatever they hold."""
    lines = []
    for name in sorted(environ):
        value = re.sub(r'([\\"`$])', r"\\\1", environ[name])
        lines.append(f'{name}="{value}"\n')
    return "".join(lines)


def ended(shown: str) -> str:
    """Return how a unit ended, from what `systemctl show` printed about it."""
    said = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    match said.get("Result"):
        case "exit-code":
            return f"it ended with exit code {said.get('ExecMainStatus')}"
        case "signal" | "core-dump":
            return f"signal {said.get('ExecMainStatus')} ended it"
        case "oom-kill":
            return "it used more memory than it may"
        case "timeout":
            return "it was not ready in time"
        case "protocol":
            return "it ended before it was ready"
        case None | "success" | "":
            return ""
    return f"systemd says {said['Result']}"


class Notification:
    """Where a process says that it is ready, by systemd's sd_notify protocol."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # An abstract name: no file to remove, no limit of the path's length.
        self.address = f"@mltrading-{os.urandom(12).hex()}"

    def __enter__(self) -> Notification:
        self.sock.bind("\0" + self.address[1:])
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def wait(self, process: subprocess.Popen[bytes], timeout: float) -> str:
        """Return "" once the process is ready, else why it never will be."""
        until = time.monotonic() + timeout
        ended = os.pidfd_open(process.pid)
        try:
            while True:
                left = until - time.monotonic()
                if left <= 0:
                    return f"it was not ready after {timeout:g} s"
                ready, _, _ = select.select([self.sock, ended], [], [], left)
                if self.sock in ready and b"READY=1" in self.sock.recv(4096):
                    return ""
                if ended in ready:
                    return f"it ended with exit code {process.wait()}"
        finally:
            os.close(ended)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file in one step; it is on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # One that was killed here has left what may hold a secret.
    for left in path.parent.glob(f".{path.name}-*"):
        left.unlink(missing_ok=True)
    scratch = path.with_name(f".{path.name}-{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)
