"""Decide what to do: the world and a wish in, a plan or a refusal out.

Pure: no clock, no file, no environment, no print. What is decided here can be read in
tests/cases/*.json, one case a rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ops import rotation
from ops.environment import Environment
from ops.errors import Refused, Usage, port_taken
from ops.release import Release, Schema
from ops.step import SWITCH, Plan, Step
from ops.world import Host, World


def plan_deploy(
    world: World,
    release: Release,
    environment: Environment,
    *,
    force: bool = False,
    canary: tuple[int, ...] = (),
    allow_inconclusive: bool = False,
) -> Plan:
    """Return the plan that puts a release in front of the users.

    `canary`: shares of the traffic (percent) with which the first host is watched, one
    after the other, before the others move. `allow_inconclusive`: with too little
    traffic to judge by it goes on.

    Raises:
        Refused: a host is not fit: no space, or its port belongs to somebody else; or
            the database would not fit this release, or one that may get traffic again.
        Usage: shares of the traffic, and nobody who could give them.
    """
    number, previous = release.number, world.current
    hosts, notes = _reached(world, environment, most=environment.max_unavailable)
    if canary:
        rotation.refuse_canary(world, environment)
    notes += rotation.hindrances(world)
    for host in hosts:
        _refuse_unfit(host, environment)
        if not force:
            _refuse_lost_secret(host, release)
    within = _within(world, hosts, release)
    strays = [host for host in hosts if not _serves(host, release, previous)]
    if not force and not strays:
        note = f"v{previous} already serves this artefact with this configuration"
        return _nothing_but(world, hosts, "deploy", environment, (*notes, note))
    if not force and previous is not None and len(strays) < len(hosts):
        if all(host.current != previous for host in strays):
            return _converge(world, strays, environment, tuple(notes))
    notes += [
        f"{host.name} serves v{host.current}, not v{previous}; it is brought along"
        for host in strays
        if host.current not in (previous, None)
    ]
    keep: set[int | None] = {number, previous}
    stages = [
        [_prepare(host, release, environment) for host in hosts],
        [[_migrate(hosts[0], number, environment, len(world.hosts), within)]],
        [_try(host, number, environment, boot=True) for host in hosts],
        *_moves(
            hosts,
            number,
            previous,
            environment,
            watched=True,
            balanced=bool(world.balancers),
            room=rotation.room(world, environment),
            canary=canary,
            strict=not allow_inconclusive,
        ),
        [_tidy(world, host, keep=keep, environment=environment) for host in hosts],
    ]
    return Plan(
        "deploy", environment.name, _staged(stages), number, previous, tuple(notes)
    )


def plan_rollback(
    world: World, environment: Environment, to: int | None = None
) -> Plan:
    """Return the plan that puts the last good release back.

    Without `to` it is the one that had traffic before, leaving out those found bad. A
    host that drifted and lacks it stays as it is: it must not make the others go back
    further.

    Raises:
        Refused: there is none. Usage: `to` names a release that is not there.
    """
    previous = world.current
    target = _rollback_target(world) if to is None else _named(world, to)
    hosts, notes = _reached(world, environment)
    lacking = [host for host in hosts if not _whole(host, target)]
    notes += [_lacks(world, host, target, environment) for host in lacking]
    hosts = [host for host in hosts if host not in lacking]
    if target == previous:
        strays = [host for host in hosts if host.current != target]
        if strays:
            return _converge(world, strays, environment, tuple(notes))
        notes.append(f"v{target} already has traffic")
        return _nothing_but(world, hosts, "rollback", environment, tuple(notes))
    notes += _passed_over(world, target) if to is None else []
    tries = []
    for host in hosts:
        cold = not _warm(host, target)
        tries.append(_try(host, target, environment, boot=cold))
    stages = [
        tries,
        *_moves(hosts, target, previous, environment),
        [_drain(host, {target, previous}) for host in hosts],
    ]
    if not world.history.good(target):
        notes.append(f"v{target} has not passed its gates, or was rolled back before")
    return Plan(
        "rollback", environment.name, _staged(stages), target, previous, tuple(notes)
    )


def plan_recover(world: World, environment: Environment) -> Plan | None:
    """Return the plan that finishes what a dead deployer left open, None if nothing.

    Forward when traffic has already moved (the gates are asked again, and a no goes
    back), else back: the new release is stopped, the old one was never touched. A
    canary that was not watched to its end goes back too. In all cases hosts return to
    the rotation of their balancers, also those that a finished run has left out of it.
    """
    left = world.history.open
    if left is None:
        steps = tuple(rotation.settled(world))
        notes = ("the balancers send less to a host than they should",)
        return Plan("balance", environment.name, steps, notes=notes) if steps else None
    notes = (f"{left.op} {left.id} of {left.by or 'somebody'} was left unfinished",)
    ships = left.op in ("deploy", "rollback") and left.release is not None
    moved = ships and any(host.current == left.release for host in world.reached)
    previous = left.previous
    if previous is None:
        # The line that named it is lost: the last release that kept traffic.
        others = [n for n in world.history.traffic if n != left.release]
        previous = others[-1] if others else None
    settle = [rotation.settled(world)]
    stages: list[list[list[Step]]] = [settle]
    steps = [each.step for each in left.steps if each.how == "done"]
    if moved and "share" in steps and "even" not in steps:
        text = f"v{left.release} was not watched to its end"
        refuse = Step("refuse", world.reached[0].name, text, left.release)
        stages = [[[refuse]], settle]
    elif moved and left.release is not None:
        tries = []
        for host in world.reached:
            cold = not _warm(host, left.release)
            tries.append(_try(host, left.release, environment, boot=cold))
        moves = _moves(world.reached, left.release, previous, environment)
        drains = _idle(world, world.reached, left.release, previous)
        stages = [tries, *moves, settle, drains]
    elif left.op == "deploy" and left.release is not None:
        stops = [[_stop(host, left.release, environment)] for host in world.reached]
        stages = [settle, stops]
    elif left.op == "db-reset" and world.current is not None:
        first, hosts = world.serving[0], len(world.hosts)
        stages = [settle, [[_migrate(first, world.current, environment, hosts)]]]
    release = left.release if moved else None
    return Plan(
        f"recover {left.op}",
        environment.name,
        _staged(stages),
        release,
        previous,
        notes,
    )


def plan_migrate(world: World, environment: Environment) -> Plan:
    """Return the plan that brings the database to what serves.

    A deploy does the same; it is for a database that was restored or moved since.

    Raises:
        Refused: nothing is deployed, or a release that may get traffic again could not
            live with it.
    """
    number = world.current
    if number is None or not world.serving:
        raise Refused(
            f"nothing is deployed on {environment.name}",
            next=f"inv deploy --env {environment.name}",
        )
    host, record = world.serving[0], world.record(number)
    within = _within(world, world.reached, record) if record else ""
    step = _migrate(host, number, environment, len(world.hosts), within)
    return Plan("migrate", environment.name, (step,), None, number)


def bounds(world: World) -> str:
    """Return the revisions on which all releases work that may get traffic again.

    Such as "0001-0099"; "" where none of them says so.
    """
    found = _kept_schemas(world, world.reached).values()
    low = max((each.min_supported for each in found), default="")
    return f"{low}-{min(each.max_supported for each in found)}" if low else ""


def plan_up(world: World, environment: Environment) -> Plan:
    """Return the plan that starts what should serve: after a reboot, or `inv down`.

    A host that serves another release than the environment, as one that was away for
    a deploy does, is brought to the environment's where it has that one.

    Raises:
        Refused: nothing was ever deployed, the port belongs to somebody else, or the
            only thing to do needs a release that is not on the host.
    """
    number = world.current
    if number is None:
        raise Refused(
            f"nothing is deployed on {environment.name}",
            next=f"inv deploy --env {environment.name}",
        )
    hosts, notes = _reached(world, environment)
    lacking = [host for host in hosts if not _whole(host, number)]
    tries = []
    for host in hosts:
        _refuse_port(host, environment)
        slot = host.slot(number)
        if host in lacking:
            continue
        if slot is None or not slot.alive:
            tries.append(_try(host, number, environment, boot=True))
        elif host in world.drifted:
            tries.append(_try(host, number, environment, boot=False))
        elif host.front.pid is None:
            tries.append([_front(host, environment)])
    strays = [host for host in world.drifted if host not in lacking]
    moves = _moves(strays, number, None, environment) if strays else []
    steps = _staged([tries, *moves])
    if lacking and not steps:
        raise _missing(world, lacking, number, environment)
    notes += [_lacks(world, host, number, environment) for host in lacking]
    if not steps:
        notes.append(f"v{number} is up")
    return Plan("up", environment.name, steps, number, None, tuple(notes))


def plan_down(world: World, environment: Environment) -> Plan:
    """Return the plan that stops the front door and every release."""
    steps: list[Step] = []
    for host in world.reached:
        if host.front.pid is not None:
            text = f"end the front door on port {host.front.port}"
            steps.append(Step("close", host.name, text, budget=environment.budget.stop))
        for slot in host.slots:
            if slot.processes:
                # Whether or not it has traffic: that is what was asked for.
                text, budget = f"end v{slot.number}", environment.budget.stop
                steps.append(Step("halt", host.name, text, slot.number, budget))
    notes = [
        f"{host.name} is left as it is ({host.unreachable})"
        for host in world.hosts
        if host.unreachable
    ]
    if not steps:
        notes.append("nothing runs")
    return Plan(
        "down", environment.name, tuple(steps), None, world.current, tuple(notes)
    )


def retained(world: World, host: Host, keep: int, also: set[int | None]) -> set[int]:
    """Return the releases that pruning must leave: `keep` good ones and `also`.

    Only good releases count, so a row of failures can't push a good one out. Those that
    one rollback after the other would lead to are kept as well: they are the last that
    had traffic, and need not be the ones with the highest numbers.
    """
    good = [slot.number for slot in host.slots if world.history.good(slot.number)]
    back = [number for number in world.history.traffic if number in good][-keep:]
    named = (number for number in also if number is not None)
    return {*sorted(good)[-keep:], *back, *named}


# The parts of plans -----------------------------------------------------------------


def _nothing_but(
    world: World,
    hosts: Sequence[Host],
    op: str,
    environment: Environment,
    notes: tuple[str, ...],
) -> Plan:
    """Return the plan where all is as asked, but for releases that run for nobody.

    They are what the end of a deploy could not end, as its host or deployer died.
    """
    number = world.current
    steps = _staged([_idle(world, hosts)])
    op = "converge" if steps else op
    return Plan(op, environment.name, steps, number, number, notes)


def _idle(world: World, hosts: Sequence[Host], *keep: int | None) -> list[list[Step]]:
    """Return the end of releases that nobody would go back to.

    What had traffic stands by, until a deploy has ended well and ends it.
    """
    stay = {*world.history.traffic, *world.history.left, world.current, *keep}
    lanes = [_drain(host, {*stay, host.current}) for host in hosts]
    return [lane for lane in lanes if lane]


def _converge(
    world: World,
    strays: Sequence[Host],
    environment: Environment,
    notes: tuple[str, ...],
) -> Plan:
    """Return the plan that brings hosts to the release that the others serve.

    It is no deploy: nothing new comes to the users, no number is used, and what it
    does with one host says nothing about the release.
    """
    number, record = world.current, world.record(world.current)
    assert number is not None and record is not None  # nosec B101
    stages = [
        [
            _prepare(host, record, environment)
            for host in strays
            if not _whole(host, number)
        ],
        [
            _try(host, number, environment, boot=not _warm(host, number))
            for host in strays
        ],
        *_moves(strays, number, None, environment),
        [_tidy(world, host, keep={number}, environment=environment) for host in strays],
    ]
    names = ", ".join(
        f"{host.name} (v{host.current})" if host.current else host.name
        for host in strays
    )
    note = f"v{number} serves, but not on {names}: it is brought there"
    return Plan(
        "converge", environment.name, _staged(stages), number, number, (*notes, note)
    )


def _whole(host: Host, number: int) -> bool:
    slot = host.slot(number)
    return slot is not None and slot.whole


def _warm(host: Host, number: int) -> bool:
    """Say whether a release runs as it would be started now.

    What has traffic is left as it runs, whatever it was started with.
    """
    slot = host.slot(number)
    if slot is None or not slot.alive:
        return False
    return not slot.stale or host.current == number


def _lacks(world: World, host: Host, number: int, environment: Environment) -> str:
    """Return the note about a host that can't be given a release it has not."""
    serves = f"stays on v{host.current}" if host.current else "serves nothing"
    next = _bring(world, number, environment)
    return f"{host.name} has no v{number} and {serves}; to bring it: {next}"


def _missing(
    world: World, lacking: Sequence[Host], number: int, environment: Environment
) -> Refused:
    return Refused(
        f"v{number} is not on every host",
        where=", ".join(host.name for host in lacking),
        allowed="a release that was staged there",
        next=_bring(world, number, environment),
    )


def _bring(world: World, number: int, environment: Environment) -> str:
    """Return the commands that stage a release where it is not."""
    record = world.record(number)
    deploy = f"inv deploy --env {environment.name}"
    if record is None or record.dirty:
        return deploy
    return f"git switch --detach {record.commit[:12]}; {deploy}"


def _prepare(host: Host, release: Release, environment: Environment) -> list[Step]:
    budget, number = environment.budget, release.number
    have = release.environment in host.environments
    kept = f"use environment {release.environment}, installed before"
    made = f"install the locked dependencies as environment {release.environment}"
    return [
        Step("install", host.name, kept if have else made, number, budget.environment),
        Step("stage", host.name, f"unpack v{number}", number),
    ]


def _migrate(
    host: Host, number: int, environment: Environment, hosts: int, within: str = ""
) -> Step:
    text = "bring the database to the release's schema, after a backup if it changes"
    budget = environment.budget.migrate
    return Step("migrate", host.name, text, number, budget, within=within, hosts=hosts)


def _within(world: World, hosts: Sequence[Host], release: Release) -> str:
    """Return the revisions on which all releases work that may get traffic again.

    Those are what serves, what stands by, and what a rollback would choose.

    Raises:
        Refused: the database is, or would come, outside what one of them works on.
    """
    schema, known = release.schema, world.history.schema
    if schema is None:
        return ""
    if known > schema.max_supported:
        raise Refused(
            f"the database is at {known}, this artefact works on {schema}",
            where=f"artefact {release.artefact[:12]}, schema.toml",
            next="deploy a newer commit, or restore a backup that was made before",
        )
    head = max(known, schema.head)
    low, high = schema.min_supported, schema.max_supported
    for number, other in sorted(_kept_schemas(world, hosts).items()):
        if not other.holds(head):
            raise Refused(
                f"v{number} works on {other}, and the database would come to {head}",
                where="what serves, stands by or is next to roll back to",
                allowed="a migration that every such release can live with",
                next=f"deploy first, without {head}, releases whose schema.toml has "
                f"max_supported of {head} or more, until v{number} is none of these",
            )
        low, high = max(low, other.min_supported), min(high, other.max_supported)
    return f"{low}-{high}"


def _kept_schemas(world: World, hosts: Sequence[Host]) -> dict[int, Schema]:
    """Return the schemas of releases that may get traffic without another deploy.

    One that the database has left behind is none of these, or nobody could deploy any
    more once rollbacks have come as far as they can.
    """
    known = world.history.schema
    numbers = set(_ways_back(world)[:1])
    for host in hosts:
        numbers |= {slot.number for slot in host.slots if slot.alive}
        numbers |= {host.current} - {None}
    found = {}
    for host in hosts:
        for slot in host.slots:
            schema = slot.release.schema if slot.release else None
            if slot.number in numbers and schema and (not known or schema.holds(known)):
                found[slot.number] = schema
    return found


def _staged(stages: list[list[list[Step]]]) -> tuple[Step, ...]:
    """Return the steps of all stages in order, each knowing its stage."""
    return tuple(
        replace(step, stage=number)
        for number, lanes in enumerate(stages)
        for lane in lanes
        for step in lane
    )


def _reached(
    world: World, environment: Environment, *, most: int | None = None
) -> tuple[list[Host], list[str]]:
    """Return the hosts to act on, and a note about each that is left out.

    `most` is how many may be out of reach; without it the lease has decided already
    (`ops.quorum`): going back must not wait for a host that is broken.

    Raises:
        Refused: more hosts are out of reach than that.
    """
    away = [host for host in world.hosts if host.unreachable]
    if not world.reached or (most is not None and len(away) > most):
        raise Refused(
            f"{len(away)} of {len(world.hosts)} hosts can't be reached",
            where="; ".join(f"{host.name}: {host.unreachable}" for host in away),
            allowed=f"at most {most or 0} out of reach (max_unavailable)",
            next=f"inv doctor --env {environment.name}",
        )
    notes = [
        f"{host.name} is left out ({host.unreachable}); the next deploy brings it along"
        for host in away
    ]
    return list(world.reached), notes


def _try(
    host: Host, number: int, environment: Environment, *, boot: bool
) -> list[Step]:
    """Return what proves a release on a host before anybody is sent to it."""
    steps = [_boot(host, number, environment)] if boot else []
    steps.append(_gate(host, number, environment))
    if host.front.pid is None:
        steps.append(_front(host, environment))
    return steps


def _moves(
    hosts: Sequence[Host],
    number: int,
    previous: int | None,
    environment: Environment,
    *,
    watched: bool = False,
    balanced: bool = False,
    room: int = 0,
    canary: tuple[int, ...] = (),
    strict: bool = True,
) -> list[list[list[Step]]]:
    """Return the switches: one host first, then the others batch by batch.

    A host where traffic has moved already is only asked again. Behind balancers each
    host leaves them before its switch, at most `room` at once, and joins them after
    its smoke.
    """
    size = environment.batch or len(hosts)
    size = min(size, room) if room else size
    batches = [hosts[:1]]
    batches += [hosts[at : at + size] for at in range(1, len(hosts), size)]
    stages = []
    for at, batch in enumerate(batches):
        later = [host for each in batches[at + 1 :] for host in each]
        peers = tuple(host.name for host in later if _still(host, previous, number))
        first = canary if not at else ()
        lanes = []
        for host in batch:
            came = "" if previous in (None, number) else f" (from v{previous})"
            text = f"move traffic to v{number}{came}"
            lane = [rotation.share(host, first[0])] if first else []
            if host.current != number:
                if room and rotation.serves(host):
                    lane.append(rotation.leave(host, number, environment))
                lane.append(Step(SWITCH, host.name, text, number))
            lane.append(_smoke(host, number, environment))
            if balanced:
                lane.append(rotation.join(host, number))
            seconds = environment.budget.watch if watched and not first else 0
            if seconds:
                lane.append(_watch(host, number, previous, seconds, peers))
            if first:
                lane += _canary(
                    host, number, previous, environment, peers, first, strict
                )
            lanes.append(lane)
        stages.append(lanes)
    return stages


def _canary(
    host: Host,
    number: int,
    previous: int | None,
    environment: Environment,
    peers: tuple[str, ...],
    shares: tuple[int, ...],
    strict: bool,
) -> list[Step]:
    """Return the windows of a first host: more traffic after each that it passes."""
    seconds = environment.fleet.canary if environment.fleet else 0
    steps = []
    for at, share in enumerate(shares):
        if at:
            steps.append(rotation.share(host, share))
        watch = _watch(host, number, previous, seconds, peers)
        steps.append(replace(watch, share=share, strict=strict))
    return [*steps, rotation.even(host)]


def _still(host: Host, previous: int | None, number: int) -> bool:
    """Say whether a host serves the old release until its turn comes."""
    return (
        previous not in (None, number)
        and host.current == previous
        and rotation.serves(host)
    )


def _smoke(host: Host, number: int, environment: Environment) -> Step:
    text = "ask the pages through the front door"
    return Step("smoke", host.name, text, number, environment.budget.smoke)


def _watch(
    host: Host,
    number: int,
    previous: int | None,
    seconds: int,
    peers: tuple[str, ...],
) -> Step:
    slot = host.slot(host.current)
    against = slot.number if slot and slot.alive and slot.number != number else None
    against = previous if peers else against
    old = f" with v{against}" if against else ""
    where = f" on {', '.join(peers)}" if peers else ""
    text = f"compare v{number}{old}{where} for {seconds} s"
    return Step("watch", host.name, text, number, seconds, against=against, peers=peers)


def _tidy(
    world: World, host: Host, *, keep: set[int | None], environment: Environment
) -> list[Step]:
    """Return the end of a deploy: older releases are stopped, then removed."""
    # What this host served until now stands by here, whatever the others served; but
    # not a release that was put back while this host was away.
    known = world.history.standing.get(host.current or 0, "good")
    steps = _drain(host, {*keep, host.current} if known == "good" else keep)
    stay = retained(world, host, environment.keep, {*keep, host.current})
    gone = [slot.number for slot in host.slots if slot.number not in stay]
    text = f"remove {_names(gone)}" if gone else "remove leftovers"
    steps.append(Step("prune", host.name, text, optional=True))
    return steps


def _drain(host: Host, keep: set[int | None]) -> list[Step]:
    """Return the end of releases that neither serve nor stand by."""
    return [
        Step("drain", host.name, f"end v{slot.number}", slot.number, optional=True)
        for slot in host.slots
        if slot.processes and slot.number not in keep
    ]


def _boot(host: Host, number: int, environment: Environment) -> Step:
    slot = host.slot(number)
    text = f"start v{number} on its own socket"
    if slot is not None and slot.alive and slot.stale:
        changed = ", ".join(slot.stale)
        text = f"start v{number} again: {changed} changed since it was started"
    return Step("boot", host.name, text, number, environment.budget.boot)


def _gate(host: Host, number: int, environment: Environment) -> Step:
    text = f"ask v{number}: live, ready, version, three times in a row"
    return Step("gate", host.name, text, number, environment.budget.gate)


def _front(host: Host, environment: Environment) -> Step:
    where = f"on port {environment.port}" if environment.port else "on a free port"
    return Step("front", host.name, f"open the front door {where}")


def _stop(host: Host, number: int, environment: Environment) -> Step:
    return Step("stop", host.name, f"end v{number}", number, environment.budget.stop)


def _serves(host: Host, release: Release, current: int | None) -> bool:
    """Say whether a host serves this artefact and configuration, as `current`."""
    slot = host.slot(current)
    if host.current != current or not host.front.pid:
        return False
    if slot is None or slot.release is None or not slot.alive:
        return False
    wanted = (release.artefact, release.config, release.environment)
    there = slot.release
    return wanted == (there.artefact, there.config, there.environment)


def _refuse_lost_secret(host: Host, release: Release) -> None:
    """Refuse to fall back, without a word, from a secret's value to a default."""
    slot = host.slot(host.current)
    had = slot.release.secrets if slot and slot.release else ()
    lost = [name for name in had if name not in release.secrets]
    if lost:
        raise Refused(
            f"{', '.join(lost)} was set for v{host.current} and is not set now",
            where="the deployer's environment",
            next=f"export {lost[0]}=…; or add --force to use the default",
        )


def _refuse_unfit(host: Host, environment: Environment) -> None:
    if host.free_disk < environment.budget.free_disk:
        raise Refused(
            f"{host.free_disk} MiB of disk are free",
            where=host.name,
            allowed=f"at least {environment.budget.free_disk} MiB",
            next="free some space; inv status shows what is kept",
        )
    _refuse_port(host, environment)


def _refuse_port(host: Host, environment: Environment) -> None:
    open_on = host.front.port
    if host.front.pid is not None and environment.port not in (0, open_on):
        raise Refused(
            f"the front door is open on port {open_on}, not {environment.port}",
            where=host.name,
            next=f"inv down; then inv up --port {environment.port}",
        )
    if host.port_holder:
        raise port_taken(environment.port, host.port_holder)


def _ways_back(world: World) -> list[int]:
    """Return the releases that rollbacks would choose, the next one first."""
    return [
        number
        for number in reversed(world.history.traffic)
        if number != world.current
        and _present(world, number)
        and not _unfit(world, number)
    ]


def _rollback_target(world: World) -> int:
    back = _ways_back(world)
    if back:
        return back[0]
    why = [_unfit(world, number) for number in reversed(world.history.traffic)]
    raise Refused(
        "there is no good release to go back to",
        where="; ".join(filter(None, why)) or world.environment,
        allowed=_choices(world),
        next=f"inv status --env {world.environment}",
    )


def _passed_over(world: World, target: int) -> list[str]:
    """Return a note for each good release that is newer and can't be gone back to."""
    newer = world.history.traffic[world.history.traffic.index(target) + 1 :]
    others = (n for n in reversed(newer) if n != world.current and _present(world, n))
    return [f"passed over: {why}" for n in others if (why := _unfit(world, n))]


def _named(world: World, number: int) -> int:
    if not _present(world, number):
        raise Usage(
            f"release v{number} is not there (never made, or pruned)",
            where="--to",
            allowed=_choices(world),
            next=f"inv status --env {world.environment}",
        )
    why = _unfit(world, number)
    if why and number != world.current:
        raise Refused(
            why,
            where="--to",
            allowed=_choices(world),
            next=f"inv rollback --env {world.environment}, which chooses one that fits",
        )
    return number


def _unfit(world: World, number: int) -> str:
    """Return why a release that is kept must not get traffic, "" when it may."""
    head = world.history.schema
    for host in world.reached:
        slot = host.slot(number)
        if slot is not None and slot.altered:
            return f"v{number} was altered on {host.name}: {slot.altered}"
        schema = slot.release.schema if slot and slot.release else None
        if schema and head and not schema.holds(head):
            return f"v{number} works on {schema}, the database is at {head}"
    return ""


def _present(world: World, number: int) -> bool:
    """Say whether a release is whole on every host that serves as it should."""
    fit = [host for host in world.reached if host not in world.drifted]
    return all(_whole(host, number) for host in fit or world.reached)


def _choices(world: World) -> str:
    numbers = {slot.number for host in world.reached for slot in host.slots}
    there = [
        number
        for number in sorted(numbers)
        if number != world.current and _present(world, number)
        if not _unfit(world, number)
    ]
    return _names(there) or "nothing: only one release is kept so far"


def _names(numbers: list[int]) -> str:
    return ", ".join(f"v{number}" for number in numbers)
