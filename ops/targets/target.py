"""What every kind of target can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ops.command import Answer, Request
from ops.preflight import Facts
from ops.release import Release
from ops.world import World


class Target(Protocol):
    """An environment that can be observed and acted on."""

    def reach(self) -> None:
        """Begin to connect, beside whatever the caller does next; raises nothing."""

    def observe(self) -> World:
        """Return all that can be seen, changing nothing."""

    def examine(self, database: tuple[str, int] | None) -> tuple[Facts, ...]:
        """Return what tells whether each host is fit for a deploy, changing nothing.

        `database` is host and port of a PostgreSQL server to be reached from there.
        """

    def take(
        self,
        doing: str,
        by: str,
        wait: float,
        tell: Callable[[str], None],
        *,
        minority: bool = False,
    ) -> None:
        """Take the lease of every host in reach, or raise Locked.

        Refused where those are too few by `ops.quorum`, unless `minority` allows it.
        """

    def release(self) -> None:
        """Give the lease back."""

    def holder(self) -> dict[str, Any] | None:
        """Return who holds the lease (by, doing, pid, since), None when it is free."""

    def key(self) -> bytes:
        """Return the environment's own key for digests of secrets."""

    def record(self, event: dict[str, Any]) -> None:
        """Append to the journal before anything that is done later.

        OSError when that is not possible for this event or an earlier one; at the
        latest `settle` says so. An intent that only a part of the hosts holds, too few
        by `ops.quorum`, counts as not possible: its effect is not carried out.
        """

    def settle(self) -> None:
        """Wait until all that was recorded is on the disks, else raise OSError."""

    def catch_up(self) -> dict[str, int]:
        """Bring each host's journal what it lacks; return how many lines, by host.

        What it lacks was seen when the hosts were last looked at.
        """

    def act(self, host: str, verb: str, **arguments: Any) -> dict[str, Any]:
        """Carry out one effect on one host and return its facts."""

    def record_of(self, host: str, number: int) -> Release | None:
        """Return the record of a release on a host, None where it is not whole."""

    def ask(self, host: str, number: int, requests: Sequence[Request]) -> list[Answer]:
        """Ask a release on a host, past the front door."""

    def ask_front(self, requests: Sequence[Request]) -> list[Answer]:
        """Ask whatever has traffic, as a user would."""

    def ask_door(self, host: str, requests: Sequence[Request]) -> list[Answer]:
        """Ask through one host's front door, whichever hosts the users reach."""

    def python(self) -> str:
        """Return what installed environments depend on, for a release's record.

        Raises:
            Refused: the hosts differ in it.
        """

    def cancel(self) -> None:
        """Cut short the steps that are under way and may be; others finish."""

    def close(self) -> None:
        """Let go of connections; what was taken is given back."""

    def url(self) -> str:
        """Return where people find the environment."""
