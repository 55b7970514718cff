"""What every kind of target can do, and what it says that it cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ops.command import Answer, Request
from ops.world import World


@dataclass(frozen=True, slots=True)
class Flags:
    """What the planner may count on.

    gate_before_traffic: a release can be asked before users reach it.
    per_host_switch: traffic moves host by host.
    warm_standby: the previous release keeps running, so a rollback is a rename.
    shared_lock: the target itself keeps two deployers apart.
    """

    gate_before_traffic: bool
    per_host_switch: bool
    warm_standby: bool
    shared_lock: bool


class Target(Protocol):
    """An environment that can be observed and acted on."""

    flags: Flags

    def observe(self) -> World:
        """Return all that can be seen, changing nothing."""

    def take(
        self, doing: str, by: str, wait: float, tell: Callable[[str], None]
    ) -> None:
        """Take the lease of every host, or raise Locked."""

    def release(self) -> None:
        """Give the lease back."""

    def record(self, event: dict[str, Any]) -> None:
        """Append to the journal; OSError when that is not possible."""

    def act(self, host: str, verb: str, **arguments: Any) -> dict[str, Any]:
        """Carry out one effect on one host and return its facts."""

    def ask(self, host: str, number: int, requests: Sequence[Request]) -> list[Answer]:
        """Ask a release on a host, past the front door."""

    def ask_front(self, requests: Sequence[Request]) -> list[Answer]:
        """Ask whatever has traffic, as a user would."""

    def url(self) -> str:
        """Return where people find the environment."""
