"""The acts of people: deploy, roll back, bring up, take down, look.

Each reads as its own table of contents: load, observe, plan, show, act, observe again.
"""

from __future__ import annotations

import dataclasses
import getpass
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    closing,
    contextmanager,
    nullcontext,
    suppress,
)
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops import contents
from ops import environment as environments
from ops import preflight, report
from ops.canary import parse as shares_of
from ops.command import Secret
from ops.environment import ROOT, Environment
from ops.errors import OpsError, Refused, StepFailed, Usage, aimed
from ops.maintenance import notice, settle
from ops.plan import plan_deploy, plan_down, plan_rollback, plan_up
from ops.preflight import Check
from ops.release import Release, config_digest, environment_hash, parse_number
from ops.rollout import (
    Rollout,
    Shipment,
    recover,
    signals_interrupt,
    signals_wait,
)
from ops.rotation import refuse_canary
from ops.step import Plan
from ops.targets import open_target
from ops.targets.agent import base_python
from ops.targets.target import Target
from ops.world import World

if TYPE_CHECKING:
    from ops.artefact import Artefact


def deploy(
    name: str,
    *,
    port: str | None = None,
    force: bool = False,
    artefact: str | None = None,
    emergency: str | None = None,
    dry_run: bool = False,
    as_json: bool = False,
    wait: float = 0.0,
    canary: str = "",
    allow_inconclusive: bool = False,
    stale_because: str = "",
) -> None:
    """Prove, build, stage, boot, gate, switch, smoke: the whole way to the users.

    `artefact` is one that was built before, instead of this checkout's. `emergency` is
    the reason for not waiting until the environment before has passed it;
    `stale_because` why an old advisory database may do.
    """
    from ops import promotion

    begun = time.monotonic()
    shares = shares_of(canary)
    environment = load(name, port)
    environment.require(os.environ)
    urgent = promotion.reason(environment, emergency)
    target = open_target(environment)
    target.reach()
    report.say(f"deploy {environment.name}", "bold")
    known = partial(_chosen, environment, artefact or "")
    with (
        (
            nullcontext(known) if artefact else _proving(environment, stale_because)
        ) as proved,
        acting(target, environment, "a deploy", wait, dry_run) as world,
    ):
        if shares:
            refuse_canary(world, environment)
        shipped = _fit(environment, target, proved)
        shipment = _shipment(environment, target, world, shipped)
        plan = plan_deploy(
            world,
            shipment.release,
            environment,
            force=force,
            canary=shares,
            allow_inconclusive=allow_inconclusive,
        )
        granted: dict[str, Any] = {}
        if plan.op == "deploy" and not plan.empty:
            granted = promotion.require(
                environment, shipped.digest, shipped.commit, emergency=urgent
            )
        if _shown(plan, dry_run=dry_run, as_json=as_json):
            return
        record = world.record(plan.release) if plan.op == "converge" else None
        if record is not None:
            # The hosts that lack it get the very release that the others serve.
            shipment = shipment.named(record)
        because = f"EMERGENCY: {urgent}" if urgent else ""
        rollout = Rollout(
            target, environment, by_whom(), shipment, because, granted=granted
        )
        if not plan.empty:
            asks = environment.approval and plan.op == "deploy"
            with (
                _approved(environment, shipped, rollout) if asks else nullcontext(),
                _told(environment, plan, shipment.release, because),
            ):
                rollout.carry_out(plan)
        # It is done: whoever interrupts now would be told that it is not.
        with signals_wait():
            after = target.observe()
            _keep_port(target, name, port)
            _confirm(plan, after)
            promotion.note(environment, shipped.digest, after)
            _ended(plan, target, rollout, begun, as_json, after)
            if not as_json:
                _say_onward(environment, shipped.digest)


def rollback(
    name: str,
    *,
    to: str | None = None,
    minority: str | None = None,
    dry_run: bool = False,
    as_json: bool = False,
    wait: float = 0.0,
) -> None:
    """Move traffic back to the last good release, or to the one named.

    `minority` is the reason for acting on too few hosts (`ops.quorum`); it is in the
    journal and in what the team is told.
    """
    begun = time.monotonic()
    wanted = None if to is None else parse_number(to, "--to")
    if minority is not None and not minority.strip():
        raise Usage(
            "nobody will know why",
            where="--minority",
            allowed='--minority "why the other hosts can\'t be waited for"',
        )
    environment = load(name)
    target = open_target(environment)
    target.reach()
    report.say(f"rollback {environment.name}", "bold")
    with acting(
        target, environment, "a rollback", wait, dry_run, minority=bool(minority)
    ) as world:
        plan = plan_rollback(world, environment, wanted)
        if _shown(plan, dry_run=dry_run, as_json=as_json):
            return
        because = f"by a minority of hosts: {minority.strip()}" if minority else ""
        rollout = Rollout(target, environment, by_whom(), because=because)
        if not plan.empty:
            record = world.record(plan.release)
            with _told(environment, plan, record, because=because):
                rollout.carry_out(plan)
        with signals_wait():
            after = target.observe()
            _confirm(plan, after)
            left = world.record(plan.previous)
            if left is not None:
                from ops import promotion

                # It may not go further from here any more.
                promotion.note(environment, left.artefact, after)
            _ended(plan, target, rollout, begun, as_json, after)


def up(name: str, *, port: str | None = None, dry_run: bool = False) -> None:
    """Start what should serve."""
    _carry(name, "up", plan_up, port=port, dry_run=dry_run)


def down(name: str, *, dry_run: bool = False) -> None:
    """Stop the front door and every release, and a monitor of them; keep all files."""
    _carry(name, "down", plan_down, dry_run=dry_run)
    watched = environments.load(name).state / "monitor"
    if watched.is_dir():
        from ops.alerts import monitor

        for program in monitor.stop(watched, dry_run=dry_run):
            report.step("ok", program, "would be ended" if dry_run else "ended")


# The parts of acts --------------------------------------------------------------------


def load(name: str, port: str | None = None) -> Environment:
    """Return an environment, with the port that was asked for."""
    environment = environments.load(name)
    if port is None:
        kept = environment.state / "state" / "port"
        try:
            configured, chosen = map(int, kept.read_text().split())
        except (OSError, ValueError):
            return environment
        # A port that was asked for holds until the file's own port is changed.
        same = configured == environment.port
        return dataclasses.replace(environment, port=chosen) if same else environment
    if not port.isdecimal() or int(port) > 65535:
        raise Usage(
            f"{port} is not a port", where="--port", allowed="0 (a free one) to 65535"
        )
    return dataclasses.replace(environment, port=int(port))


@contextmanager
def acting(
    target: Target,
    environment: Environment,
    doing: str,
    wait: float,
    dry_run: bool,
    *,
    minority: bool = False,
) -> Iterator[World]:
    """Hold the lease, finish what was left open, and give the world as it is.

    What was connected is let go of at the end, however it ends.
    """
    with closing(target):
        if dry_run:
            yield target.observe()
            return
        with _leased(target, environment, doing, wait, minority) as world:
            yield world


@contextmanager
def _leased(
    target: Target, environment: Environment, doing: str, wait: float, minority: bool
) -> Iterator[World]:
    if environment.target != "local":
        # Here, while the hosts are still being connected to.
        from ops.alerts import outbox
    with signals_interrupt():
        target.take(doing, by_whom(), wait, report.say, minority=minority)
        if environment.target != "local":
            # What an earlier command could not send.
            outbox.kick()
        try:
            world = settle(target, recover(target, environment, by_whom()))
            _warn_of_maintenance(world, doing)
            yield world
        finally:
            with signals_wait():
                target.release()


def _warn_of_maintenance(world: World, doing: str) -> None:
    said = notice(world.history.closure, world.environment)
    if said and not doing.startswith("maintenance"):
        report.say(f"  {said}", "yellow")


def _carry(
    name: str, doing: str, planner: Any, *, port: str | None = None, dry_run: bool
) -> None:
    begun = time.monotonic()
    environment = load(name, port)
    target = open_target(environment)
    report.say(f"{doing} {environment.name}", "bold")
    with acting(target, environment, doing, 0.0, dry_run) as world:
        plan = planner(world, environment)
        if _shown(plan, dry_run=dry_run, as_json=False):
            return
        rollout = Rollout(target, environment, by_whom())
        if not plan.empty:
            rollout.carry_out(plan)
        _keep_port(target, name, port)
    if doing == "up":
        _ended(plan, target, rollout, begun, as_json=False)


@contextmanager
def _approved(
    environment: Environment, artefact: Artefact, rollout: Rollout
) -> Iterator[None]:
    """Ask for a person's yes to this artefact here, and use it up.

    A deploy that is refused before its journal has begun gives it back.

    Raises:
        Refused: there is none; the message holds the command that gives one.
    """
    from ops import approval

    yes = approval.require(environment, artefact.digest, by=by_whom())
    said = {"by": yes.by, "how": yes.how, "at": yes.at}
    rollout.granted = {**rollout.granted, "approval": said}
    approval.consume(yes)
    report.step("ok", "approval", f"given by {yes.by}")
    try:
        yield
    except BaseException:
        if not rollout.begun:
            approval.give_back(yes)
        raise


def _told(
    environment: Environment,
    plan: Plan,
    release: Release | None = None,
    because: str = "",
) -> AbstractContextManager[Any]:
    """Tell the team how a plan begins and ends; nobody is told of a laptop."""
    if environment.target == "local":
        return nullcontext()
    from ops.alerts import outbox

    notes = (("because", because),) if because else ()
    return outbox.around(environment, plan, by_whom(), release, notes=notes)


def _keep_port(target: Target, name: str, asked: str | None) -> None:
    """Remember a port that was asked for: `inv up` comes back on it."""
    if asked is None:
        return
    opened = target.observe().hosts[0].front.port
    row = environments.load(name)
    (row.state / "state" / "port").write_text(f"{row.port} {opened}\n")


def _fit(
    environment: Environment, target: Target, proved: Callable[[], Artefact]
) -> Artefact:
    """Ask the hosts whether they are fit while the gates are asked.

    Raises:
        Refused: a gate is red, or a check of the hosts failed; nothing was touched.
    """
    values = environment.resolved(os.environ)
    database = values.get("DATABASE_URL", "")
    url = database.value if isinstance(database, Secret) else database
    begun = time.monotonic()
    facts = target.examine(preflight.server(url))
    took = time.monotonic() - begun
    artefact = proved()
    checks = preflight.judge(facts, environment, f"DATABASE_URL{environment.suffix}")
    here = environment.target == "local"
    _show_checks(checks, [] if here else [each.name for each in facts], took)
    return artefact


def _show_checks(checks: Sequence[Check], hosts: Sequence[str], took: float) -> None:
    """Say in one line that all is fine, or in a table what is not.

    Without `hosts` it is about this machine.

    Raises:
        Refused: a check failed.
    """
    names = ", ".join(dict.fromkeys(check.name for check in checks))
    wrong = [check for check in checks if check.state != "ok"]
    failed = preflight.failed(checks)
    if not wrong:
        many = f"on {len(hosts)} hosts" if len(hosts) > 1 else "here"
        where = f"on {hosts[0]}" if len(hosts) == 1 else many
        report.step("ok", "preflight", f"fine {where}: {names}", took)
        return
    state = "failed" if failed else "warned"
    report.step(state, "preflight", f"asked: {names}", took)
    rows = [(check.name, check.where, check.state, check.said) for check in wrong]
    report.say(report.indent(report.table(rows, ("check", "host", "", "found"))))
    if failed:
        each = (
            f"{check.name} of {check.where}" if check.where else check.name
            for check in failed
        )
        raise Refused(
            f"not fit for a deploy: {', '.join(each)}; nothing was touched",
            where="; ".join(dict.fromkeys(check.said for check in failed)),
            next=preflight.mends(failed),
        )


@contextmanager
def _proving(
    environment: Environment, stale_because: str = ""
) -> Iterator[Callable[[], Artefact]]:
    """Ask the gates and build the artefact, side by side, while the block goes on.

    Yields what waits for both and returns the artefact. If the block ends before
    that, what was begun is ended.
    """
    from concurrent.futures import ThreadPoolExecutor
    from concurrent.futures import wait as waiting

    from ops import advisories, artefact, quality, shell

    # What goes where a person's yes is asked for is judged the way CI judges.
    strict = {"CI": "true"} if environment.approval else {}
    reason = {advisories.ALLOW: stale_because} if stale_because else {}
    environ = {**os.environ, **strict, **reason}

    def asked() -> tuple[Any, float]:
        begun = time.monotonic()
        verdicts = quality.run(environment.gates, environ=environ)
        return verdicts, time.monotonic() - begun

    with ThreadPoolExecutor(2) as beside:
        building = beside.submit(
            artefact.build, ROOT, allow_dirty=environment.dirty, full=False
        )
        asking = beside.submit(asked)
        try:
            yield lambda: _proven(*asking.result(), building.result())
        finally:
            while not (asking.done() and building.done()):
                # Each ends at the first of its programs that ends badly.
                shell.end_all()
                waiting((asking, building), timeout=0.1)


def _proven(verdicts: Any, took: float, built: Artefact) -> Artefact:
    """Say what the gates said, and return the artefact if all are green.

    Raises:
        Refused: a gate is red.
    """
    red = [verdict for verdict in verdicts if verdict.state == "red"]
    for verdict in verdicts:
        if verdict.state == "red":
            report.say(report.indent(f"{verdict.name}: {verdict.findings}"))
        elif verdict.state == "warned":
            first, *rest = verdict.findings.splitlines()
            report.step("warned", verdict.name, first)
            for line in rest:
                report.say(" " * 27 + line)
    asked = f"{len(verdicts) - len(red)} of {len(verdicts)} green"
    old = sum(verdict.cached for verdict in verdicts)
    report.step(
        "failed" if red else "ok", "gates", f"{asked}, {old} from the cache", took
    )
    if red:
        raise Refused(
            f"not green: {', '.join(verdict.name for verdict in red)}; "
            "nothing was touched",
            allowed="an artefact whose gates are all green",
            next="; ".join(dict.fromkeys(verdict.fix for verdict in red)),
        )
    _note_gates(built.path, [verdict.name for verdict in verdicts], built.commit)
    marked = " with changes that are not committed" if built.dirty else ""
    reused = ", built before" if built.reused else ""
    text = f"artefact {built.digest[:12]} from {built.commit[:9]}{marked}{reused}"
    report.step("ok", "build", text, built.seconds)
    return built


def _note_gates(folder: Path, names: Sequence[str], commit: str) -> None:
    """Note beside an artefact which gates were green for what it was built from."""
    from ops import proof

    try:
        before = (proof.found(folder, "gates") or {}).get("gates", [])
    except Refused:
        # Of another machine, or changed: what was asked just now is what is known.
        before = []
    words = {"gates": sorted({*before, *names}), "commit": commit, "by": by_whom()}
    proof.keep(folder, "gates", {**words, "at": round(time.time(), 3)})


def _chosen(environment: Environment, text: str) -> Artefact:
    """Return an artefact that was built before, if it may come here.

    Raises:
        Refused: it is not in dist/, its gates were not green, or something is not
            committed, in it or in the checkout that configures it.
    """
    from ops import approval, artefact, gates, proof

    found = artefact.find(approval.resolve(text, approval.known_artefacts()))
    short = found.digest[:12]
    if not environment.dirty:
        artefact.refuse_dirty()
        if found.dirty:
            raise Refused(
                f"artefact {short} was built with changes that were not committed",
                allowed=f"a commit: {environment.name} has dirty = false",
                next="git commit; then inv deploy",
            )
    wanted = {gate.name for gate in gates.expand(environment.gates)}
    known = proof.found(found.path, "gates") or {}
    missing = sorted(wanted - {*known.get("gates", [])})
    if missing:
        raise Refused(
            f"not known to be green for artefact {short}: {', '.join(missing)}",
            where=str(found.path),
            allowed="an artefact whose gates were all green where it was built",
            next=f"git checkout {found.commit[:12]}; then inv deploy, which asks them",
        )
    asked = f"{len(wanted)} were green" if wanted else "none is asked for"
    report.step("ok", "gates", f"{asked} for artefact {short}")
    text = f"artefact {short} from {found.commit[:9]}, built before, read again"
    report.step("ok", "build", text)
    return found


def _shipment(
    environment: Environment, target: Target, world: World, artefact: Artefact
) -> Shipment:
    """Bind the artefact to a configuration under the next number."""
    values = environment.resolved(os.environ)
    taken = [slot.number for host in world.hosts for slot in host.slots]
    number = max([world.history.last, *taken]) + 1
    # The interpreter that will run it: on a fleet the hosts', not the deployer's.
    python = target.python()
    release = Release(
        number=number,
        artefact=artefact.digest,
        commit=artefact.commit,
        dirty=artefact.dirty,
        config=config_digest(values, target.key()),
        environment=environment_hash(artefact.requirements.read_bytes(), python),
        python=python,
        by=by_whom(),
        at=round(time.time(), 3),
        secrets=tuple(n for n, value in values.items() if isinstance(value, Secret)),
        schema=artefact.schema,
        files=contents.digest(contents.of_wheels(artefact.wheels)),
        sticky=environment.sticky,
    )
    environ = {
        name: value.value if isinstance(value, Secret) else value
        for name, value in values.items()
    }
    shipment = Shipment(
        release,
        tuple(artefact.wheels),
        artefact.requirements,
        environ,
        python=base_python(),
        uv=_uv(),
    )
    return shipment.named(release)


def _uv() -> str:
    """Return the uv program: the one that runs us, or the one on the PATH."""
    found = os.environ.get("UV") or shutil.which("uv")
    if not found:
        raise Refused("uv is not on the PATH", next="pip install uv")
    return found


def _shown(plan: Plan, *, dry_run: bool, as_json: bool) -> bool:
    """Print a plan; True when that is all that was asked for."""
    for note in plan.notes:
        report.say(f"  {note}", "yellow" if plan.steps else "")
    if not dry_run:
        return False
    if as_json:
        report.as_json(dataclasses.asdict(plan))
        return True
    foretell(plan)
    return True


def foretell(plan: Plan) -> None:
    """Print the steps that were not carried out, with their host where it matters."""
    for step in plan.steps:
        where = f"{step.host}: " if len(plan.hosts) > 1 else ""
        report.step("skipped", step.verb, where + step.text)
    report.say("  nothing was changed (--dry-run)")


def _confirm(plan: Plan, after: World) -> None:
    """Compare the world with what the plan promised."""
    hosts = plan.hosts or {host.name for host in after.reached}
    for host in after.reached:
        if host.name in hosts and host.current != plan.release and not plan.empty:
            raise StepFailed(
                f"the plan promised v{plan.release}, current is v{host.current}",
                where=host.name,
                next=f"inv status --env {plan.environment}",
            )


def _ended(
    plan: Plan,
    target: Target,
    rollout: Rollout,
    begun: float,
    as_json: bool,
    after: World | None = None,
) -> None:
    took = time.monotonic() - begun
    if as_json:
        report.as_json(
            {
                "op": plan.op,
                "release": plan.release,
                "previous": plan.previous,
                "url": target.url(),
                "seconds": round(took, 3),
                "steps": rollout.steps,
            }
        )
        return
    report.say()
    report.say(
        f"  v{plan.release} serves {target.url()}  ({report.seconds(took)})", "green"
    )
    if plan.op == "deploy" and plan.previous not in (None, plan.release):
        slot = after.hosts[0].slot(plan.previous) if after else None
        warm = "stays warm" if slot and slot.alive else "is kept"
        back = aimed("inv rollback", plan.environment)
        report.say(f"  v{plan.previous} {warm}; to go back: {back}")


def _say_onward(environment: Environment, digest: str) -> None:
    """Say how what was just deployed comes to the environments after this one."""
    for name in environments.names():
        # A row that is wrong is told of where it is used.
        with suppress(OpsError):
            row = environments.load(name)
            if row.promotes_from == environment.name:
                approve = f"inv approve --env {name} --artefact {digest[:8]}"
                deploy = f"inv deploy --env {name}"
                next = f"{approve}; {deploy}" if row.approval else deploy
                report.say(f"  to bring it to {name}: {next}")


def by_whom() -> str:
    """Return who acts: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{platform.node()}"
