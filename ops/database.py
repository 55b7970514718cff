"""Acts on an environment's data: reset with a backup first, ingest."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ops import report
from ops.delivery import acting, by_whom, load
from ops.environment import Environment
from ops.errors import OpsError, Refused, Usage
from ops.targets import open_target
from ops.targets.target import Target
from ops.world import World


def reset(name: str, *, yes: bool = False, dry_run: bool = False) -> None:
    """Empty the database and seed it again; a backup is taken first.

    Raises:
        Refused: nobody confirmed, or nothing is deployed.
    """
    environment = load(name)
    with closing(open_target(environment)) as target:
        _reset(environment, target, yes, dry_run)


def _reset(environment: Environment, target: Target, yes: bool, dry_run: bool) -> None:
    backup = _backup_path(environment)
    seed = f"{environment.seed} data put in" if environment.seed else "left empty"
    report.say(f"db-reset {environment.name}", "bold")
    report.step("skipped", "backup", str(backup))
    report.step("skipped", "reset", f"every bar and symbol removed, then {seed}")
    _current(target.observe(), environment)
    if dry_run:
        report.say("  nothing was changed (--dry-run)")
        return
    if not yes:
        _confirm(environment)

    def work(act: Callable[..., dict[str, Any]]) -> None:
        act("backup", ["backup", str(backup)])
        act("reset", ["reset"])
        act("seed", _prepare(environment))

    _journalled(target, environment, "db-reset", work)
    report.say(f"  the backup stays at {backup}")


def ingest(
    name: str,
    *,
    source: str = "sample",
    path: str = "",
    symbols: str = "",
    as_json: bool = False,
) -> None:
    """Read bars from a source into the database; the same bars again write nothing."""
    if source not in ("sample", "csv"):
        raise Usage(f'there is no source "{source}"', allowed="sample, csv")
    if source == "csv" and not Path(path).is_dir():
        raise Usage(
            f"{path or 'nothing'} is not a folder",
            where="--path",
            allowed="a folder of <SYMBOL>.csv files",
        )
    environment = load(name)
    target = open_target(environment)
    arguments = ["ingest", "--source", source]
    if path:
        arguments += ["--path", str(Path(path).absolute())]
    if symbols:
        arguments += ["--symbols", symbols]
    report.say(f"ingest {environment.name}", "bold")
    found: dict[str, Any] = {}

    def work(act: Callable[..., dict[str, Any]]) -> None:
        found.update(act("ingest", arguments))

    _journalled(target, environment, "ingest", work)
    if as_json:
        report.as_json(found)


def _current(world: World, environment: Environment) -> int:
    if world.current is None:
        raise Refused(
            f"nothing is deployed on {environment.name}, so there is no database",
            next=f"inv deploy --env {environment.name}",
        )
    return world.current


def _confirm(environment: Environment) -> None:
    if not sys.stdin.isatty():
        raise Refused(
            "nobody is here to confirm",
            where="standard input is not a terminal",
            next=f"inv db-reset --env {environment.name} --yes",
        )
    typed = input(f"  type {environment.name} to go on: ")
    if typed.strip() != environment.name:
        raise Refused(f'"{typed}" is not "{environment.name}"; nothing was touched')


def _backup_path(environment: Environment) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return environment.state / "backups" / f"{stamp}-db-reset.backup"


def _prepare(environment: Environment) -> Sequence[str]:
    return ["prepare", *(["--seed", environment.seed] if environment.seed else [])]


def _journalled(
    target: Target,
    environment: Environment,
    op: str,
    work: Callable[[Callable[..., dict[str, Any]]], None],
) -> None:
    """Do data work with the lease held, each step told to the journal."""
    with acting(target, environment, op, wait=0.0, dry_run=False) as world:
        number = _current(world, environment)
        run = secrets.token_hex(4)

        def record(phase: str, step: str = "", **facts: Any) -> None:
            event = {"run": run, "op": op, "phase": phase, "step": step}
            target.record({**event, "at": round(time.time(), 3), "facts": facts})

        def act(step: str, arguments: Sequence[str]) -> dict[str, Any]:
            record("intent", step)
            begun = time.monotonic()
            budget = float(environment.budget.migrate)
            facts = target.act(
                world.serving[0].name,
                "data",
                number=number,
                arguments=arguments,
                timeout=budget,
            )
            took = time.monotonic() - begun
            left = {key: facts[key] for key in ("schema",) if facts.get(key)}
            record("done", step, seconds=round(took, 3), **left)
            report.step("ok", step, _summary(facts), took)
            return facts

        record("begin", by=by_whom())
        try:
            work(act)
        except OpsError as error:
            record("end", outcome="failed", reason=error.what)
            raise
        record("end", outcome="good")


def _summary(facts: dict[str, Any]) -> str:
    said = [
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}"
        for name, value in facts.items()
        if isinstance(value, int | str) and not isinstance(value, bool)
    ]
    return ", ".join(said[:6])
