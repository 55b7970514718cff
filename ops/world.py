"""The world: all that was observed, frozen."""

from __future__ import annotations

from dataclasses import dataclass, field

from ops.errors import Usage
from ops.history import History
from ops.release import Release


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one release on one host: is it whole, does it run.

    `listens`: somebody takes calls on its socket, which a release that is ending
    does no longer. `altered` names what on the disk is not as it was staged,
    `stale` the secrets that were rotated since its process was started.
    """

    number: int
    release: Release | None
    pid: int | None = None
    processes: tuple[int, ...] = ()
    listens: bool = False
    altered: str = ""
    stale: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Say whether the release was staged to the end."""
        return self.release is not None

    @property
    def alive(self) -> bool:
        return self.pid is not None and self.listens


@dataclass(frozen=True, slots=True)
class Front:
    """The front door: its process, port, and whether that port can be had."""

    pid: int | None = None
    port: int | None = None
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Host:
    """What one host looks like now. `free_disk` in MiB.

    `unreachable` says why nothing is known of it; "" where it was reached. `python`
    is what an installed environment there depends on: version, machine, C library.
    `behind`: how many lines of the other hosts' journals this one lacks.
    `shut`: people get the maintenance page.
    `resting`: a mark makes /readyz of its releases say no, so that balancers leave it.
    `firing`: the alerts that fire by what the release with traffic says of itself.
    """

    name: str
    current: int | None = None
    slots: tuple[Slot, ...] = ()
    environments: frozenset[str] = frozenset()
    front: Front = Front()
    port_holder: str = ""
    free_disk: int = 0
    unreachable: str = ""
    python: str = ""
    behind: int = 0
    shut: bool = False
    resting: bool = False
    firing: tuple[str, ...] = ()

    def slot(self, number: int | None) -> Slot | None:
        """Return the slot of a release, None where the host has none."""
        return next((slot for slot in self.slots if slot.number == number), None)


@dataclass(frozen=True, slots=True)
class Server:
    """A host as a balancer sees it.

    `state`: ready; drain, when the engine has taken it out; maint, when a person has.
    `up`: its health check says yes. `usual` is the weight in the balancer's file,
    `sessions` the requests that it is answering now.
    """

    name: str
    state: str = "ready"
    up: bool = True
    weight: int = 100
    usual: int = 100
    sessions: int = 0


@dataclass(frozen=True, slots=True)
class Balancer:
    """A balancer and the hosts that it sends users to; `unreachable` says why not."""

    name: str
    servers: tuple[Server, ...] = ()
    unreachable: str = ""

    def server(self, name: str) -> Server | None:
        """Return a host as this balancer sees it, None where it does not know it."""
        return next((server for server in self.servers if server.name == name), None)


@dataclass(frozen=True, slots=True)
class World:
    """An environment as it is: its hosts, its balancers and its history."""

    environment: str
    hosts: tuple[Host, ...]
    history: History = field(default_factory=History)
    balancers: tuple[Balancer, ...] = ()

    @property
    def reached(self) -> tuple[Host, ...]:
        """The hosts that could be looked at."""
        return tuple(host for host in self.hosts if not host.unreachable)

    @property
    def current(self) -> int | None:
        """The release that has traffic, or is to have it on all hosts.

        Where hosts differ, the journal speaks: the last release that kept traffic. If
        no host serves that one, it is what most serve, the first of equals.
        """
        served = [host.current for host in self.reached]
        found = [number for number in served if number is not None]
        if not found or len({*served}) == 1:
            return found[0] if found else None
        kept = self.history.traffic[-1] if self.history.traffic else None
        return kept if kept in found else max(found, key=found.count)

    @property
    def serving(self) -> tuple[Host, ...]:
        """The hosts in reach that serve what the environment serves."""
        current = self.current
        return tuple(host for host in self.reached if host.current == current)

    @property
    def drifted(self) -> tuple[Host, ...]:
        """The hosts in reach that serve something else than the environment."""
        current = self.current
        return tuple(host for host in self.reached if host.current != current)

    def named(self, host: str) -> tuple[Host, ...]:
        """Return the host of that name, all of them for "".

        Raises:
            Usage: there is none.
        """
        found = tuple(each for each in self.hosts if host in ("", each.name))
        if not found:
            raise Usage(
                f'there is no host "{host}"',
                where=f"--host, {self.environment}",
                allowed=", ".join(each.name for each in self.hosts),
            )
        return found

    def record(self, number: int | None) -> Release | None:
        """Return a release's record, from the first host that has it whole."""
        for host in self.reached:
            slot = host.slot(number)
            if slot is not None and slot.release is not None:
                return slot.release
        return None

    def seen(self, name: str) -> tuple[Server, ...]:
        """Return a host as each balancer that was reached sees it."""
        found = [balancer.server(name) for balancer in self.balancers]
        return tuple(server for server in found if server)

    @property
    def uneven(self) -> bool:
        """Say whether a balancer gives a host more or less than its usual share."""
        every = (server for each in self.balancers for server in each.servers)
        return any(server.weight != server.usual for server in every)
