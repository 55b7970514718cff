"""What people do between deploys: look back, compare, restart, tidy up, set free.

Each reads as the acts of `ops.delivery` do: load, observe, decide, show, act.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

from ops import record, report
from ops.alerts.notice import masked
from ops.command import Command, Secret
from ops.delivery import acting, by_whom, foretell, load
from ops.environment import ROOT, Environment
from ops.errors import Locked, Refused, Usage
from ops.history import Consent, Run
from ops.lease import describe
from ops.plan import Plan, Step, retained
from ops.release import parse_number
from ops.rollout import Rollout
from ops.targets import open_target
from ops.targets.target import Target
from ops.world import Host, World

# Set by each deploy anew; that they differ says nothing.
_OWN = ("MLTRADING_RELEASE", "MLTRADING_ARTEFACT", "MLTRADING_COMMIT")
# gunicorn's own grace for a worker that is busy is 30 s; longer nobody waits here.
_BUSY = 30
_HEAD = ("when", "what", "how", "took", "by", "commit", "approved by", "why")
_ALWAYS = 6
# Half a year is what a reader takes in; `--json` has every week.
_WEEKS = 26


# Look back ----------------------------------------------------------------------------


def history(
    name: str, *, lines: int = 20, release: str | None = None, as_json: bool = False
) -> None:
    """Print every run: when, what, how it ended, seconds, by whom, commit, why.

    Where one needed a person's yes, a column says whose it was.
    """
    number = None if release is None else parse_number(release, "--release")
    with closing(open_target(load(name))) as target:
        world = target.observe()
    runs = record.told(world.history.runs, release=number, lines=lines)
    if as_json:
        torn = world.history.torn
        rows = [asdict(run) for run in runs]
        report.as_json({"environment": name, "runs": rows, "torn": torn})
        return
    if not runs:
        report.say(f"  nothing was ever done on {name}")
        return
    if number is None:
        _runs_table(runs, tones=_run_tones(runs))
        return
    for run in runs:
        _runs_table([replace(run, reason="", approval=None)])
        if run.approval:
            report.data(f"    approved by {_approved(run.approval)}")
        if run.reason:
            report.data(f"    {run.reason}")
        many = len({each.host for each in run.steps}) > 1
        for each in run.steps:
            state = "ok" if each.how == "done" else "failed"
            sign = report.mark(state, stream=sys.stdout)
            line = f"    {sign} {each.step:<9} {report.seconds(each.seconds):>8}"
            report.data(f"{line}  {each.host}" if many else line)


def _runs_table(runs: Sequence[Run], **options: Any) -> None:
    """Print a line a run, without the last columns where they are empty for all."""
    columns = zip(_HEAD, *map(_run_row, runs), strict=True)
    kept = [
        column for at, column in enumerate(columns) if at < _ALWAYS or any(column[1:])
    ]
    head, *rows = zip(*kept, strict=True)
    report.data_table(rows, head, **options)


def _approved(consent: Consent) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(consent.at))
    return f"{consent.by} ({consent.how}) at {at}"


def report_task(name: str, *, since: str = "90d", as_json: bool = False) -> None:
    """Print how well deploys went: success, durations, recovery, the DORA keys."""
    now = time.time()
    begin = record.moment(since, now)
    with closing(open_target(load(name))) as target:
        found = target.observe().history
    made = _commit_times({run.commit for run in found.runs if run.commit})
    measured = record.measure(found, since=begin, until=now, commits=made)
    if as_json:
        report.as_json({"environment": name, **asdict(measured)})
        return
    if not measured.deploys:
        report.say(f"  no deploy on {name} since {_day(begin)}")
        return
    title = f"{name}  since {_day(begin)}"
    report.data(report.colour(title, "bold", stream=sys.stdout))
    report.data_table(_record_rows(measured))
    report.data("")
    steps = [
        (step, str(each.count), report.seconds(each.p50), report.seconds(each.p95))
        for step, each in measured.steps.items()
    ]
    head = ("step", "runs", "p50", "p95")
    report.data_table(steps, head, right=(1, 2, 3))
    report.data("")
    for line in record.chart(measured.weeks[-_WEEKS:]):
        report.data(f"  {line}")


def _record_rows(found: record.Record) -> list[tuple[str, str]]:
    others = ", ".join(
        f"{count} {outcome}"
        for outcome, count in sorted(found.outcomes.items())
        if outcome != "good"
    )
    good = found.outcomes.get("good", 0)
    keys = found.keys
    often = "" if keys.frequency is None else f"{keys.frequency:g} good ones a week"
    return [
        ("deploys", f"{good} good{', ' + others if others else ''}"),
        ("success", _percent(found.success_rate)),
        ("deploy", _spread(found.deploy)),
        ("rollback", _spread(found.rollback)),
        ("recover", _spread(found.recover)),
        ("DORA", ""),
        ("  deployment frequency", often or "-"),
        ("  lead time", _spread(keys.lead)),
        ("  change failure rate", _percent(keys.failure_rate)),
        ("  time to restore", _spread(keys.restore)),
    ]


def _commit_times(commits: set[str]) -> dict[str, float]:
    """Return when commits were made; those that git does not know are left out."""
    from ops.shell import run

    if not commits:
        return {}
    words = ("git", "rev-list", "--no-walk", "--ignore-missing", "--timestamp")
    try:
        listed = run(Command((*words, *sorted(commits)), cwd=ROOT, timeout=10))
    except Refused:
        return {}
    # Without the commits there is no lead time, and all else is still worth reading.
    pairs = (line.split() for line in listed.out.splitlines()) if listed.ok else ()
    return {commit: float(at) for at, commit in pairs}


# Compare ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable: its value now, with the next deploy, and same, changed, added …"""

    name: str
    now: str | None
    next: str | None
    state: str


def config(name: str, *, as_json: bool = False) -> None:
    """Print the current release's variables against those of the next deploy."""
    environment = load(name)
    with closing(open_target(environment)) as target:
        world = target.observe()
        number = _current(world, environment)
        host = world.serving[0].name
        there = target.act(host, "configuration", number=number)
        key = target.key()
    rows = compare(there, environment.resolved(os.environ), key)
    if as_json:
        found = [asdict(row) for row in rows]
        report.as_json({"release": f"v{number}", "variables": found})
        return
    signs = {"added": "+", "removed": "-", "changed": "~", "lost": "!"}
    tones = {"added": "green", "removed": "red", "changed": "yellow", "lost": "red"}
    table = [
        (signs.get(row.state, " "), row.name, row.now or "", _then(row)) for row in rows
    ]
    marked = {at: tones[row.state] for at, row in enumerate(rows) if row.state in tones}
    head = ("", "variable", f"v{number}", "next deploy")
    report.data_table(table, head, tones=marked)
    lost = [row.name for row in rows if row.state == "lost"]
    if lost:
        report.say(
            f"  a deploy refuses to lose {', '.join(lost)}: export it, or --force"
        )


def compare(
    there: Mapping[str, Mapping[str, str]],
    coming: Mapping[str, str | Secret],
    key: bytes,
) -> list[Variable]:
    """Return every variable with its fate; a secret's value is never among them. Pure.

    `there` holds values as they are and, of secrets, digests under `key`.
    """
    values, hidden = there["values"], there["secrets"]
    rows = []
    for name in sorted({*values, *hidden, *coming} - {*_OWN}):
        now = "***" if name in hidden else _shown(values.get(name))
        wanted = coming.get(name)
        then = "***" if isinstance(wanted, Secret) else _shown(wanted)
        if isinstance(wanted, Secret):
            digest = hmac.new(key, wanted.value.encode(), hashlib.sha256).hexdigest()
            # A value that becomes a secret, or the same one renewed: not shown either.
            same = hidden.get(name) == digest
        else:
            same = name not in hidden and values.get(name) == wanted
        known = name in values or name in hidden
        state = "same" if same else "changed"
        if not known:
            state = "added"
        elif name in hidden and not isinstance(wanted, Secret):
            state = "lost"
        elif wanted is None:
            state = "removed"
        rows.append(Variable(name, now, then, state))
    return rows


def _shown(value: object) -> str | None:
    return None if value is None else masked(str(value), ())


def _then(row: Variable) -> str:
    if row.state == "same":
        return ""
    return {"removed": "(not set)", "lost": f"{row.next or '(not set)'}, lost"}.get(
        row.state, row.next or ""
    )


# Restart and tidy up ------------------------------------------------------------------


def restart(name: str, *, host: str = "", dry_run: bool = False) -> None:
    """Renew every worker of the current release, without a request being lost.

    gunicorn's master keeps the socket open, forks new workers and lets the old ones
    finish. A second copy beside the first, as a deploy boots one, would need a number
    of its own, and so be another release. The master itself is not renewed: it holds
    the code, which is the release's and can't change. To start that anew as well:
    `inv deploy --force`, or, with a pause, `inv down` and `inv up`.
    """
    environment = load(name)
    report.say(f"restart {environment.name}", "bold")
    with (
        closing(open_target(environment)) as target,
        acting(target, environment, "a restart", 0.0, dry_run) as world,
    ):
        plan = plan_restart(world, environment, host)
        if not _only_shown(plan, dry_run):
            Rollout(target, environment, by_whom()).carry_out(plan)


def plan_restart(world: World, environment: Environment, name: str = "") -> Plan:
    """Return the plan that renews the current release, one host after the other. Pure.

    A host that does not answer well afterwards keeps the next one from being touched.

    Raises:
        Usage: no such host. Refused: nothing is deployed, or what is does not run.
    """
    number = _current(world, environment)
    budget = environment.budget
    steps: list[Step] = []
    chosen = [host for host in world.named(name) if not host.unreachable]
    if not chosen:
        raise Refused(
            f"{name} can't be reached", next=f"inv doctor --env {world.environment}"
        )
    for stage, host in enumerate(chosen):
        slot = host.slot(number)
        if slot is None or not slot.alive:
            raise Refused(
                f"v{number} does not run",
                where=host.name,
                next=f"inv up --env {environment.name}",
            )
        pages = "ask the pages through the front door"
        asked = f"ask v{number}: live, ready, version, three times in a row"
        wait = budget.boot + _BUSY
        text = f"renew the workers of v{number}, socket open"
        steps += [
            Step("reload", host.name, text, number, wait, stage=stage),
            Step("gate", host.name, asked, number, budget.gate, stage=stage),
            Step("smoke", host.name, pages, number, budget.smoke, stage=stage),
        ]
    notes = _left_out(world)
    return Plan("restart", environment.name, tuple(steps), number, number, notes)


def prune(name: str, *, days: float = 7.0, dry_run: bool = False) -> None:
    """Remove releases beyond those kept, unused environments, old backups, leftovers.

    And what of the database was set aside more than some `days` ago. What has traffic,
    what runs, and the last good releases stay.
    """
    environment = load(name)
    report.say(f"prune {environment.name}", "bold")
    with (
        closing(open_target(environment)) as target,
        acting(target, environment, "a prune", 0.0, dry_run) as world,
    ):
        plan = plan_prune(world, environment, days)
        if not _only_shown(plan, dry_run):
            Rollout(target, environment, by_whom()).carry_out(plan)


def plan_prune(world: World, environment: Environment, days: float = 7.0) -> Plan:
    """Return the plan that removes what no rollback and no undo needs. Pure."""
    steps = []
    for host in world.reached:
        gone = [f"v{number}" for number in _gone(world, host, environment)]
        text = f"remove {', '.join(gone)} and leftovers" if gone else "remove leftovers"
        steps.append(Step("prune", host.name, text, budget=60.0))
    if world.current is not None and world.serving:
        # The database is one for all hosts. It may be away, which is no reason to
        # leave the rest as it is.
        host, budget = world.serving[0].name, float(environment.budget.migrate)
        text = f"remove what of the database was set aside {days:g} days ago"
        release = world.current
        steps.append(
            Step("empty", host, text, release, budget, optional=True, days=days)
        )
    notes = _left_out(world)
    return Plan("prune", environment.name, tuple(steps), None, world.current, notes)


def _gone(world: World, host: Host, environment: Environment) -> list[int]:
    """Return what the step itself will choose, from what is there when it runs."""
    alive = {slot.number for slot in host.slots if slot.processes}
    stay = retained(world, host, environment.keep, {host.current, *alive})
    return [slot.number for slot in host.slots if slot.number not in stay]


def _left_out(world: World) -> tuple[str, ...]:
    lost = [host.name for host in world.hosts if host not in world.reached]
    return (f"not reached, left as it is: {', '.join(lost)}",) if lost else ()


def _only_shown(plan: Plan, dry_run: bool) -> bool:
    for note in plan.notes:
        report.say(f"  {note}", "yellow")
    if dry_run:
        foretell(plan)
    return dry_run


# Set free -----------------------------------------------------------------------------


def unlock(
    name: str, *, force: bool = False, reason: str = "", as_json: bool = False
) -> None:
    """Show who holds the lease; with `force` and a reason, end that process.

    Raises:
        Locked: it is held, and nobody asked to end its holder.
    """
    environment = load(name)
    with closing(open_target(environment)) as target:
        _unlock(environment, target, force, reason, as_json)


def _unlock(
    environment: Environment, target: Target, force: bool, reason: str, as_json: bool
) -> None:
    holder = target.holder()
    if holder is None:
        _free(target, as_json)
        return
    if not force:
        raise Locked(
            describe(holder),
            where=f"process {holder['pid']}" if holder["pid"] else environment.name,
            detail="a holder that dies frees the lease by dying; there is no lock file "
            "to remove",
            next=f"wait for it; or inv unlock --env {environment.name} --force "
            '--reason "why it can\'t wait"',
        )
    if not reason.strip():
        raise Usage(
            "nobody will know why",
            where="--force",
            allowed='--force --reason "why it can\'t wait"',
        )
    report.say(f"unlock {environment.name}: {describe(holder)}", "bold")
    ended = _end_holders(environment, target, holder)
    _audit(environment, target, holder, reason, ended)
    if as_json:
        report.as_json({"held": False, "ended": holder, "processes": ended})


def _free(target: Target, as_json: bool) -> None:
    world = target.observe()
    left = world.history.open
    away = [host.name for host in world.hosts if host.unreachable]
    if as_json:
        unfinished = left.id if left else None
        report.as_json({"held": False, "unfinished": unfinished, "unknown": away})
        return
    report.say("  the lease is free: there is nothing to unlock")
    if away:
        names = ", ".join(away)
        report.say(f"  not known of {names}, which can't be reached", "yellow")
    if left is not None:
        report.say(
            f"  {left.op} {left.id} of {left.by or 'somebody'} did not end; the kernel "
            "freed its lease, and the next command that acts finishes or undoes it"
        )


def _end_holders(
    environment: Environment, target: Target, holder: Mapping[str, Any]
) -> list[int]:
    budget = environment.budget
    # What a deployer needs to put back what it has begun.
    patience = float(budget.stop + budget.boot + budget.gate)
    ended: list[int] = []
    for host in target.observe().reached:
        facts = target.act(
            host.name,
            "end_holders",
            epoch=holder.get("epoch", 0),
            timeout=patience,
        )
        if not facts["ended"]:
            continue
        ended += facts["ended"]
        how = f", {facts['killed']} of them killed" if facts["killed"] else ""
        said = f"ended {', '.join(map(str, facts['ended']))}{how}"
        report.step("ok", "end", f"{host.name}: {said}")
    return ended


def _audit(
    environment: Environment,
    target: Target,
    holder: Mapping[str, Any],
    reason: str,
    ended: Sequence[int],
) -> None:
    """Note it in the journal, after what the ended holder left was put in order."""
    with acting(target, environment, "an unlock", 10.0, False):
        run = secrets.token_hex(4)
        said = f"{reason.strip()} (ended {holder['by']}, {holder['doing']})"
        end = {"outcome": "good", "reason": said, "processes": list(ended)}
        for phase, facts in (("begin", {"by": by_whom()}), ("end", end)):
            event = {"run": run, "op": "unlock", "phase": phase, "step": ""}
            target.record({**event, "at": round(time.time(), 3), "facts": facts})
    report.step("ok", "journal", "noted, with the reason")


# Programs -----------------------------------------------------------------------------


def exec_(name: str, command: str, *, host: str = "", every: bool = False) -> int:
    """Run a program with the current release's interpreter and environment.

    On one host, or on `every` one, in order. Returns its exit code, the first that is
    not 0; what it prints goes where ours goes.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise Usage(f"the command can't be read: {error}", where="--command") from None
    if not words:
        raise Usage(
            "no command", where="--command", allowed='such as "python -m pip list"'
        )
    if every and host:
        raise Usage("one host or all", where="--host, --all-hosts", allowed="one flag")
    return _attend(name, "exec", words, host, every=every)


def shell(name: str, *, host: str = "") -> int:
    """Open Python as the current release sees it; return its exit code."""
    return _attend(name, "shell", (), host)


def psql(name: str, command: str = "", *, host: str = "") -> int:
    """Open psql, or sqlite3, on the current release's database; return its exit code.

    The password goes through the environment, never through an argument.
    """
    return _attend(name, "database", (command,) if command else (), host)


def _attend(
    name: str, kind: str, words: Sequence[str], host: str, *, every: bool = False
) -> int:
    environment = load(name)
    with closing(open_target(environment)) as target:
        world = target.observe()
        chosen = where_to_run(world, environment, host, every=every)
        codes = []
        for each in chosen:
            if len(world.hosts) > 1:
                report.say(f"  on {each.name}, v{each.current}", "dim")
            said = {"number": each.current, "kind": kind, "words": list(words)}
            codes.append(int(target.act(each.name, "attend", **said)["code"]))
    return next((code for code in codes if code), 0)


def where_to_run(
    world: World, environment: Environment, host: str = "", *, every: bool = False
) -> tuple[Host, ...]:
    """Return the hosts whose release a program is to run as. Pure.

    The host that was named, every one, or the first that serves what the environment
    does.

    Raises:
        Usage: no such host. Refused: nothing is deployed there, or it is out of reach.
    """
    named = world.named(host) if host or every else world.serving
    if not host:
        _current(world, environment)
    for each in named:
        if each.unreachable:
            raise Refused(
                f"{each.name} can't be reached: {each.unreachable}",
                where=environment.name,
                next=f"inv doctor --env {environment.name}",
            )
        if each.current is None:
            raise Refused(
                f"nothing is deployed on {each.name}",
                where=environment.name,
                next=f"inv deploy --env {environment.name}",
            )
    return named if host or every else named[:1]


# Small parts --------------------------------------------------------------------------


def _current(world: World, environment: Environment) -> int:
    if world.current is None:
        raise Refused(
            f"nothing is deployed on {environment.name}",
            next=f"inv deploy --env {environment.name}",
        )
    return world.current


def _run_row(run: Run) -> tuple[str, ...]:
    what = f"{run.op} v{run.release}" if run.release else run.op
    came = run.previous is not None and run.previous != run.release and run.release
    return (
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.began)),
        f"{what} (from v{run.previous})" if came else what,
        run.outcome or "open",
        report.seconds(run.seconds) if run.outcome else "",
        run.by,
        run.commit[:9],
        run.approval.by if run.approval else "",
        run.reason,
    )


def _run_tones(runs: Sequence[Run]) -> dict[int, str]:
    tones = {"": "yellow", "interrupted": "yellow", "aborted": "yellow", "good": ""}
    said = [tones.get(run.outcome, "red") for run in runs]
    return {number: tone for number, tone in enumerate(said) if tone}


def _spread(found: record.Spread | None) -> str:
    if found is None:
        return "-"
    times = "once" if found.count == 1 else f"{found.count} times"
    p50, p95 = report.seconds(found.p50), report.seconds(found.p95)
    return f"p50 {p50}, p95 {p95} ({times})"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.1f} %"


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(at)) if at else "the beginning"
