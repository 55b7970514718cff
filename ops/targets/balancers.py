"""The balancers of an environment, asked by the deployer through the agents on them.

A balancer that can't be reached stops nobody: hosts that leave also say so themselves,
at /readyz, which its checks see within seconds. It is named in what each verb returns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from ops.canary import weights
from ops.errors import OpsError, StepFailed
from ops.targets.link import Link, Unreachable
from ops.world import Balancer, Server

# Seconds after which a balancer that we can't speak with has seen that a host rests:
# two of its checks.
UNSEEN = 3.0
_POLL = 0.05

Found = TypeVar("Found")


class Member(Protocol):
    """A host that is reached when it is needed."""

    link: Link | None

    def open(self) -> Link:
        """Return the connection to its agent."""

    def ask(self, verb: str, **arguments: Any) -> Any:
        """Return what its agent answers."""


class Balancers:
    """All balancers of one environment, by name."""

    def __init__(self, members: Mapping[str, Member]) -> None:
        self.members = members

    def look(self) -> tuple[Balancer, ...]:
        """Return each balancer and the hosts as it sees them."""
        said = self._each(lambda member: member.ask("rotation"))
        return tuple(
            (
                Balancer(name, unreachable=str(found))
                if isinstance(found, Exception)
                else Balancer(name, tuple(found))
            )
            for name, found in said.items()
        )

    def leave(self, host: str, epoch: int) -> dict[str, str]:
        """Let no new request come to a host; return the balancers that were missed."""
        return self._turn(host, "drain", False, epoch)

    def join(self, host: str, well: bool, epoch: int) -> dict[str, str]:
        """Let requests come to a host again; return the balancers that were missed."""
        return self._turn(host, "ready", well, epoch)

    def _turn(self, host: str, state: str, well: bool, epoch: int) -> dict[str, str]:
        return _missed(
            self._each(
                lambda member: member.ask(
                    "turn", server=host, state=state, well=well, epoch=epoch
                )
            )
        )

    def quiet(self, host: str, seconds: float, missed: Mapping[str, str]) -> int:
        """Wait until a host that has left answers nothing any more.

        At most `seconds`; with a balancer that was missed, at least until its checks
        have seen it. Return how many requests it is still answering.
        """
        begun = time.monotonic()
        until = begun + seconds
        least = begun + min(seconds, UNSEEN if missed else 0.0)
        while True:
            views = (each.server(host) for each in self.look())
            busy = sum(view.sessions for view in views if view)
            now = time.monotonic()
            if now >= until or (not busy and now >= least):
                return busy
            time.sleep(_POLL)

    def share(self, host: str, share: int | None, epoch: int) -> dict[str, str]:
        """Give one host a share of what comes (percent); None: to all as usual.

        Returns the balancers that were missed.
        """

        def weigh(member: Member) -> Any:
            servers = member.ask("rotation")
            return member.ask(
                "weigh", weights=shared(servers, host, share), epoch=epoch
            )

        return _missed(self._each(weigh))

    def begin(self) -> None:
        """Open all connections."""
        self._each(lambda member: member.open())

    def close(self) -> None:
        for member in self.members.values():
            if member.link is not None:
                member.link.close()

    def _each(
        self, work: Callable[[Member], Found]
    ) -> dict[str, Found | Unreachable | StepFailed]:
        """Do something on all balancers side by side; what can't be done is returned.

        Raises:
            OpsError: it is refused for another reason than reaching a balancer.
        """

        def one(member: Member) -> Found | Unreachable | StepFailed:
            try:
                return work(member)
            except (Unreachable, StepFailed) as error:
                return error

        if not self.members:
            return {}
        with ThreadPoolExecutor(len(self.members)) as pool:
            return dict(
                zip(self.members, pool.map(one, self.members.values()), strict=True)
            )


def shared(servers: list[Server], host: str, share: int | None) -> dict[str, int]:
    """Return every host's weight, so that one gets a share of what comes.

    Hosts that get nothing now don't count in the sum.
    """
    if share is None:
        return {server.name: server.usual for server in servers}
    others = [server for server in servers if server.name != host]
    there = [each for each in others if each.up and each.state == "ready"] or others
    mine, theirs = weights(share, len(there))
    return {host: mine, **{server.name: theirs for server in others}}


def _missed(said: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: found.what if isinstance(found, OpsError) else str(found)
        for name, found in said.items()
        if isinstance(found, Exception)
    }
