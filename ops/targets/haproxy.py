"""Speak with HAProxy on this host, through the socket of its runtime API.

What is said here HAProxy forgets when it is started or read in again: then all hosts
are ready, each with its usual weight. Standard library only: this runs on the hosts.
"""

from __future__ import annotations

import csv
import socket
from collections.abc import Iterator
from pathlib import Path

from ops.errors import StepFailed
from ops.world import Server

# Bits of srv_admin_state: taken out by a person or the file; drained by us.
_MAINT, _DRAIN = 0x01 | 0x02 | 0x04 | 0x20, 0x08 | 0x10
# srv_op_state of a server that its checks, or nobody, found well.
_RUNNING = "2"
_TIMEOUT = 3.0


def socket_of(name: str) -> Path:
    """Return where an environment's balancer listens for its runtime API."""
    return Path(f"/run/mltrading-{name}-balancer/admin.sock")


class HAProxy:
    """The balancer of one environment on this host; its backend has the same name."""

    def __init__(self, name: str, path: Path | None = None) -> None:
        self.name = name
        self.path = path or socket_of(name)

    def servers(self) -> list[Server]:
        """Return the hosts of the backend, as they are now.

        Raises:
            StepFailed: HAProxy does not answer.
        """
        said = self._ask(
            f"show servers state {self.name}", f"show stat {self.name} 4 -1"
        )
        states, _, figures = said.partition("# pxname,")
        sessions = {
            row["svname"]: int(row["scur"] or 0)
            for row in csv.DictReader(f"pxname,{figures}".splitlines())
        }
        return [
            Server(
                name=row["srv_name"],
                state=_state(int(row["srv_admin_state"])),
                up=row["srv_op_state"] == _RUNNING,
                weight=int(row["srv_uweight"]),
                usual=int(row["srv_iweight"]),
                sessions=sessions.get(row["srv_name"], 0),
            )
            for row in _table(states)
        ]

    def turn(self, name: str, state: str, well: bool = False) -> Server:
        """Take a host out of rotation (drain) or put it back (ready).

        One that a person has put into maintenance stays there. `well`: whoever puts it
        back has asked it, so it is not waited for until its next check has too.

        Raises:
            StepFailed: HAProxy does not answer, or does not know the host.
        """
        there = self._server(name)
        if there.state == "maint":
            return there
        words = []
        if there.state != state:
            words.append(f"set server {self.name}/{name} state {state}")
        if state == "ready" and well and not there.up:
            words.append(f"set server {self.name}/{name} health up")
        self._tell(*words)
        return self._server(name)

    def weigh(self, weights: dict[str, int]) -> list[Server]:
        """Give hosts their weights: a part of the sum of all.

        Raises:
            StepFailed: HAProxy does not answer, or does not know a host.
        """
        there = {server.name: server for server in self.servers()}
        self._tell(
            *(
                f"set weight {self.name}/{name} {weight}"
                for name, weight in weights.items()
                if name not in there or there[name].weight != weight
            )
        )
        return self.servers()

    def _server(self, name: str) -> Server:
        for server in self.servers():
            if server.name == name:
                return server
        raise StepFailed(
            f"the balancer knows no host {name}",
            where=str(self.path),
            next=f"inv host-setup --env {self.name} --role balancer",
        )

    def _tell(self, *words: str) -> None:
        """Give orders, to which HAProxy answers nothing when it obeys."""
        said = self._ask(*words) if words else ""
        if said.strip():
            raise StepFailed(
                f"the balancer did not obey: {said.strip().splitlines()[0]}",
                where=str(self.path),
                next=f"inv host-setup --env {self.name} --role balancer",
            )

    def _ask(self, *words: str) -> str:
        """Return what HAProxy says to commands; it closes when it has said all."""
        parts = []
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(_TIMEOUT)
            try:
                sock.connect(str(self.path))
                sock.sendall(f"{';'.join(words)}\n".encode())
                while part := sock.recv(65536):
                    parts.append(part)
            except OSError as error:
                raise StepFailed(
                    f"the balancer does not answer: {error.strerror or error}",
                    where=str(self.path),
                    allowed="HAProxy, whose socket this user's group may use",
                    next=f"inv host-setup --env {self.name} --role balancer",
                ) from None
        return b"".join(parts).decode(errors="replace")


def _state(bits: int) -> str:
    if bits & _MAINT:
        return "maint"
    return "drain" if bits & _DRAIN else "ready"


def _table(text: str) -> Iterator[dict[str, str]]:
    """Read "show servers state": a version, a head behind "# ", rows of words."""
    head: list[str] = []
    for line in text.splitlines():
        if line.startswith("# "):
            head = line.removeprefix("# ").split()
        elif head and line.strip():
            yield dict(zip(head, line.split(), strict=False))
