"""The front door of a host: our own small process, or the host's web server.

Both dial `current/app.sock`, so neither needs to be told about a switch.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from pathlib import Path
from typing import Any, Protocol

from ops import wire
from ops.command import Request
from ops.errors import StepFailed, port_taken
from ops.targets import processes
from ops.targets.keepers import Notification
from ops.world import Front

FRONT = Path(__file__).with_name("front.py")
_PORT_TAKEN = 98


class Door(Protocol):
    """Where requests of users come in."""

    def seen(self, port: int) -> Front:
        """Return the front door that is open, if one is."""

    def holder(self, port: int) -> str:
        """Name who else holds the port that a closed door needs; "" when it is free."""

    def open(self, port: int, timeout: float, python: str) -> dict[str, Any]:
        """Open the door, or find it open."""

    def close(self, timeout: float) -> dict[str, Any]:
        """Close the door, where it is ours to close."""

    def logs(self) -> dict[str, Path]:
        """Return what the door writes and we may read, by a short name."""


class OwnDoor:
    """A process of ours on a loopback port."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def seen(self, port: int = 0) -> Front:
        """Return the front door that runs, on whichever port."""
        try:
            said = json.loads((self.root / "front.json").read_text())
            pid, port = int(said["pid"]), int(said["port"])
        except (OSError, ValueError, KeyError):
            return Front()
        ours = str(self.root / "front") + os.sep
        for argument in processes.arguments(pid):
            if argument.startswith(ours):
                return Front(pid, port, stale=Path(argument).name != _front_name())
        return Front()

    def holder(self, port: int) -> str:
        free = not port or wire.port_is_free(port)
        return "" if free else processes.who_holds(port)

    def open(self, port: int, timeout: float, python: str) -> dict[str, Any]:
        """Start the front door on a loopback port, or find it running."""
        import shutil
        import subprocess

        front = self.seen()
        if front.pid is not None:
            return {"port": front.port, "started": False}
        program = self.root / "front" / _front_name()
        if not program.exists():
            scratch = program.with_suffix(".new")
            shutil.copyfile(FRONT, scratch)
            os.replace(scratch, program)
        argv = (
            *(python, "-I", str(program)),
            *("--state", str(self.root), "--port", str(port)),
        )
        with (self.root / "front" / "front.log").open("ab") as log:
            begun = log.tell()
            with Notification() as notification:
                process = subprocess.Popen(
                    argv,
                    cwd=self.root,
                    env={
                        **processes.basics(),
                        "NOTIFY_SOCKET": notification.address,
                    },
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                problem = notification.wait(process, timeout)
        if problem and process.poll() == _PORT_TAKEN:
            raise port_taken(port, processes.who_holds(port))
        if problem:
            processes.end((process.pid,), 1.0)
            raise StepFailed(
                f"the front door did not start: {problem}",
                where=str(self.root / "front" / "front.log"),
                detail=processes.tail(self.root / "front" / "front.log", begun),
                next="inv doctor",
            )
        return {"port": self.seen().port, "started": True}

    def close(self, timeout: float) -> dict[str, Any]:
        front = self.seen()
        if front.pid is not None:
            processes.end((front.pid,), timeout)
        return {"stopped": front.pid is not None}

    def logs(self) -> dict[str, Path]:
        return _readable({"front": self.root / "front" / "front.log"})


class HostDoor:
    """The host's web server (nginx), which `inv host-setup` has set up once."""

    def __init__(self, name: str) -> None:
        self.name = name

    def seen(self, port: int) -> Front:
        """Return the door when something speaks HTTP on the port; 502 is fine."""
        if not port:
            return Front()
        answer = wire.ask(Request("GET", "/livez", timeout=10.0), port=port)
        return Front(_server_pid(), port) if answer.status else Front()

    def holder(self, port: int) -> str:
        """Return "": the port is the web server's, whoever runs it."""
        return ""

    def open(self, port: int, timeout: float, python: str) -> dict[str, Any]:
        """Find the door open.

        Raises:
            StepFailed: nothing answers there; setting it up needs root, once.
        """
        until = time.monotonic() + min(timeout, 3.0)
        while self.seen(port).pid is None:
            if time.monotonic() >= until:
                import getpass

                host = socket.gethostname()
                raise StepFailed(
                    f"no web server answers on port {port}",
                    where=host,
                    allowed="nginx, proxying to current/app.sock",
                    next=f"inv host-setup --env {self.name} "
                    f"--hosts {getpass.getuser()}@{host}",
                )
            time.sleep(0.1)
        return {"port": port, "started": False}

    def close(self, timeout: float) -> dict[str, Any]:
        """Leave it open: with no release behind it, it answers 502 or 503."""
        return {"stopped": False}

    def logs(self) -> dict[str, Path]:
        """Return nginx's logs, which Debian lets only the group adm read."""
        site = f"/var/log/nginx/mltrading-{self.name}"
        return _readable({n: Path(f"{site}.{n}.log") for n in ("access", "error")})


def _readable(logs: dict[str, Path]) -> dict[str, Path]:
    return {name: path for name, path in logs.items() if os.access(path, os.R_OK)}


def _server_pid() -> int:
    """Return the web server's process, 1 where we may not know it."""
    try:
        return int(Path("/run/nginx.pid").read_text())
    except (OSError, ValueError):
        return 1


def _front_name() -> str:
    """Return the file name of this version of the front door."""
    return f"front-{hashlib.sha256(FRONT.read_bytes()).hexdigest()[:12]}.py"
