"""The `local` target: this machine and this user, the agent in-process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ops import wire
from ops.command import Answer, Request
from ops.environment import Environment
from ops.hands import Hands
from ops.preflight import Facts
from ops.release import Release
from ops.targets import closed
from ops.targets.agent import Agent
from ops.world import World


class LocalTarget:
    """One host, reached by calling the agent directly."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.agent = Agent(environment.state)

    def reach(self) -> None:
        """Nothing is connected."""

    def observe(self) -> World:
        host = self.agent.observe(self.environment.port)
        return World(self.environment.name, (host,), self.agent.journal.history())

    def examine(self, database: tuple[str, int] | None) -> tuple[Facts, ...]:
        said = Hands(self.agent).examine(self.environment.port, database)
        found = {name: said[name] for name in ("host", "inodes", "database", "faults")}
        return (Facts(said["host"].name, **found),)

    def take(
        self,
        doing: str,
        by: str,
        wait: float,
        tell: Callable[[str], None],
        *,
        minority: bool = False,
    ) -> None:
        self.agent.take(doing, by, wait, tell)

    def release(self) -> None:
        self.agent.lease.release()

    def holder(self) -> dict[str, Any] | None:
        return self.agent.lease.held_by()

    def key(self) -> bytes:
        return self.agent.key()

    def record(self, event: dict[str, Any]) -> None:
        self.agent.journal.append({**event, "epoch": self.agent.lease.epoch})

    def settle(self) -> None:
        """Nothing: what is recorded is on the disk."""

    def catch_up(self) -> dict[str, int]:
        return {}

    def act(self, host: str, verb: str, **arguments: Any) -> dict[str, Any]:
        does = self.agent if hasattr(self.agent, verb) else Hands(self.agent)
        return getattr(does, verb)(**arguments)

    def record_of(self, host: str, number: int) -> Release | None:
        return self.agent.record_of(number)

    def ask(self, host: str, number: int, requests: Sequence[Request]) -> list[Answer]:
        return self.agent.ask(number, requests)

    def ask_front(self, requests: Sequence[Request]) -> list[Answer]:
        port = self._port()
        return wire.ask_all(list(requests), port=port)

    def ask_door(self, host: str, requests: Sequence[Request]) -> list[Answer]:
        return self.ask_front(closed.passing(self.agent.root, requests))

    def python(self) -> str:
        return self.agent.python()

    def cancel(self) -> None:
        """Nothing: the agent is in this process, where Ctrl-C ends its step."""

    def close(self) -> None:
        """Nothing is open."""

    def url(self) -> str:
        return f"http://127.0.0.1:{self._port()}/"

    def _port(self) -> int:
        return self.agent.door().port or self.environment.port
