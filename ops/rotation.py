"""Who is in the rotation of the balancers, and how hosts leave and join it. Pure.

`leave` and `join` are steps of a deploy around a host's switch; `share` and `even` give
a first host a part of the traffic and take that back.
"""

from __future__ import annotations

from dataclasses import replace

from ops.environment import Environment
from ops.errors import Refused, Usage
from ops.step import Step
from ops.world import Host, World


def settled(world: World) -> list[Step]:
    """Return what puts every host back into rotation, each with its usual part."""
    steps = []
    for host in world.hosts:
        drained = any(server.state == "drain" for server in world.seen(host.name))
        if world.balancers and (host.resting or drained):
            well = host.current if serves(host) else None
            steps.append(replace(join(host, well), optional=True))
    if world.uneven:
        steps.append(replace(even(world.hosts[0]), optional=True))
    return steps


def refuse_canary(world: World, environment: Environment) -> None:
    """Refuse shares of the traffic where nobody can give them, or none is left.

    Raises:
        Usage: there is no balancer, or only one host.
        Refused: a balancer can't be reached, or does not know a host.
    """
    variable = environment.fleet.balancers if environment.fleet else ""
    if not world.balancers:
        raise Usage(
            f"{environment.name} has no balancer that could share its traffic",
            where="--canary",
            allowed="environments whose hosts are behind HAProxy",
            next=f"export {variable}=deploy@…" if variable else "leave --canary out",
        )
    if len(world.reached) < 2:
        raise Usage(
            f"{environment.name} has one host: nothing is left to share",
            where="--canary",
            allowed="two hosts or more",
            next="leave --canary out",
        )
    for balancer in world.balancers:
        lost = [host.name for host in world.hosts if not balancer.server(host.name)]
        if balancer.unreachable or lost:
            raise Refused(
                balancer.unreachable or f"it does not know {', '.join(lost)}",
                where=f"balancer {balancer.name}",
                allowed="--canary with balancers that all obey",
                next=f"inv host-setup --env {environment.name} --role balancer",
            )


def room(world: World, environment: Environment) -> int:
    """Return how many hosts may be out of rotation at once, another one serving."""
    if not world.balancers:
        return 0
    away = len(world.hosts) - len(world.reached)
    serving = [
        host
        for host in world.reached
        if serves(host) and not any(s.state == "maint" for s in world.seen(host.name))
    ]
    allowed = max(1, environment.max_unavailable) - away
    return max(0, min(allowed, len(serving) - 1))


def serves(host: Host) -> bool:
    """Say whether a host has a release with traffic, and an open door before it."""
    slot = host.slot(host.current)
    return slot is not None and slot.alive and host.front.pid is not None


def hindrances(world: World) -> list[str]:
    """Return a note about each balancer that won't do what a plan asks of it."""
    notes = []
    for balancer in world.balancers:
        if balancer.unreachable:
            notes.append(
                f"balancer {balancer.name} is left out: {balancer.unreachable}"
            )
            continue
        for host in world.hosts:
            server = balancer.server(host.name)
            if server is None:
                notes.append(f"balancer {balancer.name} does not know {host.name}")
            elif server.state == "maint":
                kept = "is in maintenance there, which only a person ends"
                notes.append(f"balancer {balancer.name}: {host.name} {kept}")
    return notes


def leave(host: Host, number: int, environment: Environment) -> Step:
    """Return the step that ends what a host is sent, before a release moves there."""
    seconds = environment.fleet.leave if environment.fleet else 0
    text = "leave the balancers and end what is being answered"
    return Step("leave", host.name, text, number, float(seconds), optional=True)


def join(host: Host, number: int | None) -> Step:
    """Return the step that lets a host be sent requests again.

    `number` is the release that was found well there, if one was.
    """
    return Step("join", host.name, "join the balancers again", number)


def share(host: Host, percent: int) -> Step:
    """Return the step that gives a host a part of the traffic."""
    text = f"give this host {percent} % of the traffic"
    return Step("share", host.name, text, share=percent)


def even(host: Host) -> Step:
    """Return the step that gives all hosts their usual part again."""
    return Step("even", host.name, "share the traffic evenly again")
