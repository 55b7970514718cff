"""The `local` target: this machine and this user, the agent in-process."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any

from ops import wire
from ops.command import Answer, Request
from ops.environment import Environment
from ops.errors import Refused
from ops.release import Release
from ops.targets.agent import Agent
from ops.world import World


class LocalTarget:
    """One host, reached by calling the agent directly."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.agent = Agent(environment.state)

    def observe(self) -> World:
        host = self.agent.observe(self.environment.port)
        return World(self.environment.name, (host,), self.agent.journal.history())

    def take(
        self, doing: str, by: str, wait: float, tell: Callable[[str], None]
    ) -> None:
        self.agent.prepare()
        try:
            self.agent.lease.take(doing, by, wait=wait, tell=tell)
        except OSError as error:
            if error.errno != errno.ENOSPC or not self.agent.journal.give_up_reserve():
                raise full(error, self.environment) from None
            self.agent.lease.take(doing, by, wait=wait, tell=tell)

    def release(self) -> None:
        self.agent.lease.release()

    def holder(self) -> dict[str, Any] | None:
        return self.agent.lease.held_by()

    def key(self) -> bytes:
        return self.agent.key()

    def record(self, event: dict[str, Any]) -> None:
        self.agent.journal.append({**event, "epoch": self.agent.lease.epoch})

    def act(self, host: str, verb: str, **arguments: Any) -> dict[str, Any]:
        return getattr(self.agent, verb)(**arguments)

    def record_of(self, host: str, number: int) -> Release | None:
        return self.agent.record_of(number)

    def ask(self, host: str, number: int, requests: Sequence[Request]) -> list[Answer]:
        return self.agent.ask(number, requests)

    def ask_front(self, requests: Sequence[Request]) -> list[Answer]:
        port = self._port()
        return [wire.ask(request, port=port) for request in requests]

    def url(self) -> str:
        return f"http://127.0.0.1:{self._port()}/"

    def _port(self) -> int:
        return self.agent.door().port or self.environment.port


def full(error: OSError, environment: Environment) -> Refused:
    """Return the refusal to act where not even the lease can be noted."""
    return Refused(
        f"the state folder cannot be written: {error.strerror}",
        where=str(environment.state),
        allowed="a folder of this user with free space",
        next="free some space; what serves goes on serving",
    )
