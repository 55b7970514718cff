"""A fleet without machines: the ssh target, and each host's agent in this process."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops.environment import Fleet as Row
from ops.errors import OpsError
from ops.targets import protocol, ssh
from ops.targets.agent import Agent
from ops.targets.link import Sent, Unprepared, Unreachable
from ops.targets.session import Session, Stream, Verbs
from tests.ops import worlds


class Cable:
    """One host: its agents are asked as over a wire, unless it is pulled."""

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root
        self.pulled = False
        # It answers and lets nobody in: nobody has prepared it.
        self.bare = False
        # Each request that arrives; the one named in `loses` is done, its answer lost.
        self.asked: list[str] = []
        self.loses = ""


class Link:
    """What `ops.targets.link.Link` is, with an agent at the other end of a call."""

    def __init__(self, cable: Cable) -> None:
        self.cable = cable
        self.lost = ""
        self.agent = Agent(cable.root)
        self.session = Session(Verbs(self.agent, 0, Stream()), 0, 1)
        self.session.newest = float("inf")
        self.ids = itertools.count(1)

    def open(self) -> None:
        if self.cable.pulled:
            raise Unreachable("no connection: No route to host")
        if self.cable.bare:
            raise Unprepared("it does not take our key for deploy")

    def close(self, why: str = "closed") -> None:
        self.lost = self.lost or why
        self.agent.lease.release()

    def send(self, verb: str, **arguments: Any) -> Sent:
        sent = Sent(self, next(self.ids), verb)
        try:
            sent.said.set_result({"ok": self.request(verb, **arguments)})
        except Unreachable as error:
            sent.said.set_exception(error)
        except (OpsError, OSError) as error:
            self.session.failed.add(sent.number)
            sent.said.set_result({"error": protocol.error(error)})
        return sent

    def answer(self, sent: Sent, limit: float = 0.0) -> Any:
        said = sent.said.result()
        if "error" in said:
            raise protocol.raised(said["error"], self.cable.name)
        return said["ok"]

    def request(
        self, verb: str, *, under: int = 0, needs: Sequence[int] = (), **arguments: Any
    ) -> Any:
        arguments.pop("limit", None)
        files = arguments.pop("files", None)
        if self.cable.pulled:
            self.close("the connection was cut")
        if self.lost:
            raise Unreachable(self.lost)
        self.cable.asked.append(verb)
        request = {"verb": verb, "epoch": under, "late": 0.0, "needs": needs}
        self.session._fence(request, verb)
        if files is not None:
            self._stream(files)
        found = self.session.verbs.named(verb)(**_sent(arguments))
        if self.cable.loses == verb:
            self.close("the connection was cut")
            raise Unreachable(self.lost)
        return _sent({"ok": found})["ok"]

    def _stream(self, files: Iterable[tuple[str, Path]]) -> None:
        """Let the agent read files as they come over a wire."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, path in files:
                archive.add(path, arcname=name)
        stream = self.session.verbs.stream
        stream.begin()
        stream.chunks.put(out.getvalue())
        stream.chunks.put(b"")


def _sent(message: dict[str, Any]) -> dict[str, Any]:
    return protocol.parse(protocol.line(message))


class Fleet:
    """Hosts by name, and as many deployers as a test wants."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.cables = {name: Cable(name, folder / name) for name in names}
        self.environment = replace(
            worlds.ENVIRONMENT,
            name="staging",
            target="ssh",
            fleet=Row("HOSTS", "URL", "mltrading/staging", 512, "BALANCERS", 80, 1, 60),
        )

    def __getitem__(self, name: str) -> Cable:
        return self.cables[name]

    def pull(self, *names: str) -> None:
        """Let nobody reach these hosts, and all reach the others."""
        for name, cable in self.cables.items():
            cable.pulled = name in names

    def target(self) -> ssh.SshTarget:
        environ = {"HOSTS": ",".join(self.cables), "URL": "http://192.0.2.1"}
        return ssh.SshTarget(self.environment, environ)

    def agent(self, name: str) -> Agent:
        return Agent(self.cables[name].root)


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Three hosts that can all be reached."""
    found = Fleet(tmp_path, ("a", "b", "c"))
    monkeypatch.setattr(ssh, "AGAIN", 0.0)
    monkeypatch.setattr(
        ssh, "Link", lambda address, root, options: Link(found[address.name])
    )
    return found
