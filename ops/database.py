"""Acts on an environment's data: back up, reset, undo, restore, migrate.

The data layer of the release that serves does it, on a host that serves; backups lie in
the environment's folder there. Each act is as the others: load, look, decide, show,
ask, do it with the lease held, every step in the journal.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from ops import report
from ops.delivery import acting, by_whom, load
from ops.environment import Environment
from ops.errors import OpsError, Refused, StepFailed
from ops.plan import bounds, plan_migrate
from ops.targets import open_target
from ops.targets.agent import BACKUPS
from ops.targets.target import Target
from ops.world import World

PRODUCTION = "production"
# How long the data layer may take to say how the database stands.
_ASKED = 30.0

Act = Callable[..., dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Look:
    """How a database stands, as its data layer says.

    `name` is what people type to have it emptied; `of` whose it says to be, "" for
    nobody's; `guarded`: not to be emptied or replaced by mistake; `trash` are the names
    of what is set aside, newest first. `problem` is why it could not be asked, "" if it
    was.
    """

    name: str = ""
    of: str = ""
    guarded: bool = False
    schema: str = ""
    trash: tuple[str, ...] = ()
    problem: str = ""

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Look:
        """Return what the data layer's `schema` has answered."""
        of = f"{said['environment']} ({said['kind']})" if said.get("kind") else ""
        names = tuple(one["name"] for one in said.get("trash", ()))
        guarded = bool(said.get("guarded"))
        return cls(
            said.get("name", ""), of, guarded, said.get("current") or "", names, ""
        )


# Reset and take back ------------------------------------------------------------------


def reset(
    name: str,
    *,
    undo: bool = False,
    yes: bool = False,
    force: bool = False,
    database: str = "",
    dry_run: bool = False,
    as_json: bool = False,
) -> None:
    """Put an empty database in the place of what is there, which is set aside.

    A backup is taken and proved first. `undo` takes back what was set aside last.
    `database` is the typed name that one which is production needs with `force`.

    Raises:
        Refused: nobody confirmed, or nothing is deployed. Usage: a flag is of no use.
    """
    op = "db-undo" if undo else "db-reset"
    environment = load(name)
    with closing(open_target(environment)) as target:
        world, look = looked(target, environment)
        host = world.serving[0].name
        if undo and not look.trash:
            raise Refused(
                "nothing is set aside",
                where=look.problem or look.name or environment.name,
                next=f"inv db-restore --env {name}",
            )
        backup = file_name(op)
        steps = (
            [("undo", f"{look.trash[0]} comes back; what is there is set aside")]
            if undo
            else [
                ("backup", f"{host}: backups/{backup}, proved by restoring it"),
                ("reset", "what is there is set aside, an empty one in its place"),
                ("seed", f"{environment.seed or 'no'} data put in"),
            ]
        )
        show(op, environment, look, steps)
        if dry_run:
            nothing_changed(op, environment, look, steps, as_json)
            return
        words = f"{'db-reset --undo' if undo else op} --env {name}"
        sure = sure_of(environment, look, words, yes, force, database)

        def work(act: Act) -> None:
            if undo:
                act("undo", ["undo", *sure, *within(world)])
                return
            act("backup", ["backup", f"{BACKUPS}/{backup}"])
            act("reset", ["reset", *sure])
            act("seed", _prepare(environment))

        done = journalled(target, environment, op, work)
    told(op, environment, done, as_json)
    if not as_json:
        report.say(f"  to take that back: inv db-reset --env {name} --undo")


def migrate(name: str, *, dry_run: bool = False, as_json: bool = False) -> None:
    """Bring the database to the schema of what serves, after a backup if it changes.

    With `dry_run` the SQL goes to stdout, and nothing is changed.

    Raises:
        Refused: nothing is deployed; or a release that has traffic, or stands by, could
            not read the outcome.
    """
    environment = load(name)
    with closing(open_target(environment)) as target:
        world, look = looked(target, environment)
        (step,) = plan_migrate(world, environment).steps
        number = current(world, environment)
        show("migrate", environment, look, [("migrate", step.text)])
        if dry_run:
            words = ["migrate", "--dry-run"]
            asked = {"number": number, "arguments": words, "timeout": _ASKED}
            said = target.act(step.host, "consult", **asked)
            _sql(environment, said, as_json)
            return

        def work(act: Act) -> None:
            more = {"seed": "", "within": step.within, "hosts": step.hosts}
            act("migrate", verb="migrate", **more)

        done = journalled(target, environment, "migrate", work)
    told("migrate", environment, done, as_json)


# Look and decide ----------------------------------------------------------------------


def looked(target: Target, environment: Environment) -> tuple[World, Look]:
    """Return the world, and how the database stands."""
    world = target.observe()
    number = current(world, environment)
    try:
        asked = {"number": number, "arguments": ["schema"], "timeout": _ASKED}
        said = target.act(world.serving[0].name, "consult", **asked)
    except StepFailed as failed:
        lines = failed.detail.splitlines()
        return world, Look(problem=lines[0] if lines else failed.what)
    return world, Look.read(said)


def current(world: World, environment: Environment) -> int:
    """Return the release that serves; Refused where there is none."""
    if world.current is None:
        raise Refused(
            f"nothing is deployed on {environment.name}, so there is no database",
            next=f"inv deploy --env {environment.name}",
        )
    return world.current


def sure_of(
    environment: Environment,
    look: Look,
    words: str,
    yes: bool,
    force: bool,
    typed: str,
) -> list[str]:
    """Ask whoever is here whether they mean it; return what tells the data layer.

    What is production, by what the database says of itself or by its environment,
    needs `force` and the name of the database; all else the name of the environment,
    or `yes`.

    Raises:
        Refused: they don't, or nobody is here.
    """
    if not (look.guarded or environment.kind == PRODUCTION):
        if not yes:
            _typed(environment.name, f"inv {words} --yes")
        return []
    whose = look.of or f"{environment.name} ({environment.kind})"
    name = look.name or "NAME"
    if not force:
        raise Refused(
            f"the database {look.name} is of {whose}: it is not emptied or replaced "
            "by mistake",
            where=environment.name,
            allowed="--force, and its name typed",
            next=f"inv {words} --force",
        )
    if not typed:
        _typed(look.name, f"inv {words} --force --name {name}")
        typed = look.name
    if look.name and typed != look.name:
        raise Refused(
            f'"{typed}" is not the name of the database; nothing was touched',
            where="--name",
            allowed=look.name,
        )
    return ["--force", "--name", typed]


def _typed(wanted: str, next: str) -> None:
    """Let a person type a word; Refused where nobody is here, or it is another."""
    if not sys.stdin.isatty() or not wanted:
        raise Refused(
            "nobody is here to confirm",
            where="standard input is not a terminal",
            next=next,
        )
    typed = input(f"  type {wanted} to go on: ")
    if typed.strip() != wanted:
        raise Refused(f'"{typed}" is not "{wanted}"; nothing was touched')


def within(world: World) -> list[str]:
    """Return what tells the data layer which revisions a release can live with."""
    found = bounds(world)
    return ["--within", found] if found else []


# Do -----------------------------------------------------------------------------------


def journalled(
    target: Target,
    environment: Environment,
    op: str,
    work: Callable[[Act], None],
    *,
    wait: float = 0.0,
) -> dict[str, Any]:
    """Do data work with the lease held, each step told to the journal.

    `work` gets a function that takes a step's name and the words for the data layer, or
    the `verb` of the agent that does it and what that takes. Returns all facts. `wait`:
    seconds for the lease.
    """
    found: dict[str, Any] = {}
    with acting(target, environment, op, wait=wait, dry_run=False) as world:
        number = current(world, environment)
        run = secrets.token_hex(4)

        def record(phase: str, step: str = "", **facts: Any) -> None:
            event = {"run": run, "op": op, "phase": phase, "step": step}
            target.record({**event, "at": round(time.time(), 3), "facts": facts})

        def act(
            step: str,
            arguments: Sequence[str] = (),
            *,
            verb: str = "data",
            host: str = "",
            **sent: Any,
        ) -> dict[str, Any]:
            record("intent", step)
            begun = time.monotonic()
            if verb in ("carry", "data"):
                sent = {"arguments": arguments, **sent}
            if verb != "keep":
                sent = {"number": number, "timeout": _budget(environment), **sent}
            facts = target.act(host or world.serving[0].name, verb, **sent)
            took = time.monotonic() - begun
            kept = ("schema", "backup", "sha256", "aside", "undone", "restored")
            left = {key: facts[key] for key in kept if facts.get(key)}
            record("done", step, seconds=round(took, 3), **left)
            report.step("ok", step, _summary(step, facts), took)
            found.update({n: fact for n, fact in facts.items() if fact is not None})
            return facts

        record("begin", by=by_whom())
        try:
            work(act)
        except (OpsError, OSError) as error:
            what = error.what if isinstance(error, OpsError) else str(error)
            record("end", outcome="failed", reason=what)
            raise
        record("end", outcome="good")
    return found


def _budget(environment: Environment) -> float:
    return float(environment.budget.migrate)


def _prepare(environment: Environment) -> Sequence[str]:
    return ["prepare", *(["--seed", environment.seed] if environment.seed else [])]


# Tell ---------------------------------------------------------------------------------


def show(
    op: str, environment: Environment, look: Look, steps: Sequence[tuple[str, str]]
) -> None:
    report.say(f"{op} {environment.name}", "bold")
    if look.problem:
        report.say(f"  the database can't be read: {look.problem}", "yellow")
    else:
        of = f"of {look.of}" if look.of else "marked as nobody's"
        report.say(f"  the database {look.name}, {of}, at {look.schema or 'no schema'}")
    for step, text in steps:
        report.step("skipped", step, text)


def nothing_changed(
    op: str,
    environment: Environment,
    look: Look,
    steps: Sequence[tuple[str, str]],
    as_json: bool,
) -> None:
    report.say("  nothing was changed (--dry-run)")
    if as_json:
        report.as_json(
            {
                "op": op,
                "environment": environment.name,
                "database": look.name,
                "of": look.of,
                "guarded": look.guarded or environment.kind == PRODUCTION,
                "problem": look.problem,
                "steps": [{"step": step, "text": text} for step, text in steps],
            }
        )


def told(
    op: str, environment: Environment, done: dict[str, Any], as_json: bool
) -> None:
    if as_json:
        # Every table's digest is for machines that compare, not for people.
        said = {name: fact for name, fact in done.items() if name != "contents"}
        report.as_json({"op": op, "environment": environment.name, **said})


def _sql(environment: Environment, said: Mapping[str, Any], as_json: bool) -> None:
    """Give the SQL that is pending to stdout; what else was found to people."""
    if as_json:
        report.as_json({"op": "migrate", "environment": environment.name, **said})
        return
    for line in said.get("drift", ()):
        report.say(f"  drift: {line}", "yellow")
    if said.get("sql"):
        report.data(str(said["sql"]).rstrip())
    else:
        report.say(f"  nothing is pending: the schema is {said.get('state')}")
    report.say("  nothing was changed (--dry-run)")


def _summary(step: str, facts: Mapping[str, Any]) -> str:
    """Return what a step has found, in a few words.

    A release that is older than this checkout may say less.
    """
    if step == "backup" and "sha256" in facts:
        short = facts["sha256"][:12]
        return f"{facts['backup']}, {facts['rows']:,} rows, sha256 {short}"
    if step in ("reset", "undo", "restore") and "aside" in facts:
        came = f"{facts['undone']} is back; " if step == "undo" else ""
        applied = f", applied {', '.join(facts['applied'])}" if came else ""
        aside = facts["aside"] or "nothing"
        return f"{came}set aside {aside}; at {facts['schema']}{applied}"
    said = [
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}"
        for name, value in facts.items()
        if isinstance(value, int | str) and not isinstance(value, bool) and value != ""
    ]
    return ", ".join(said[:6])


# Small parts --------------------------------------------------------------------------


def file_name(op: str) -> str:
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{op}.backup"
