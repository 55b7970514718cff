"""Maintenance: people read a page that says so, while probes and deploys go on.

The page is a file that each front door looks at, so nothing is reloaded and no root is
needed. The journal says whether it is on; hosts that differ are put in order by the
next command that acts.
"""

from __future__ import annotations

import html
import secrets
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, replace
from typing import Any

from ops import record, report
from ops.alerts.notice import Happening
from ops.command import Answer, Request
from ops.environment import Environment
from ops.errors import OpsError, Refused, StepFailed, Usage
from ops.history import Closure
from ops.targets import open_target
from ops.targets.closed import MARK, PASS
from ops.targets.target import Target
from ops.world import Host, World

MESSAGE = "We are working on it and will be back soon."
_LONGEST = 500
# A person who comes to the front door: no pass, no probe.
_PERSON = Request("GET", "/", headers={PASS: "none"})

_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>Down for maintenance</title>
<style>
:root {{ color-scheme: light dark; }}
body {{
  margin: 0; min-height: 100vh; display: grid; place-content: center;
  font: 1rem/1.6 system-ui, sans-serif; background: #f6f7f9; color: #1a2230;
}}
main {{ max-width: 34rem; padding: 2rem; }}
h1 {{ font-size: 1.5rem; line-height: 1.3; margin: 0 0 .75rem; }}
p {{ margin: 0 0 .75rem; overflow-wrap: anywhere; }}
small {{ color: #5b6678; }}
@media (prefers-color-scheme: dark) {{
  body {{ background: #10151d; color: #e6eaf0; }}
  small {{ color: #94a1b5; }}
}}
</style>
<main>
<h1>Down for maintenance</h1>
<p>{message}</p>
<p><small>{times}</small></p>
</main>
</html>
"""


def switch(
    wish: str,
    name: str,
    *,
    message: str = MESSAGE,
    lasts: str = "",
    reason: str = "",
    wait: float = 0.0,
    dry_run: bool = False,
    as_json: bool = False,
) -> None:
    """Switch maintenance on or off on every host, or on none.

    Raises:
        Usage: the wish, the message or the span is none.
        Refused: a host is out of reach. StepFailed: a front door does not obey.
    """
    from ops.delivery import acting, by_whom, load

    if wish not in ("on", "off"):
        raise Usage(f'"{wish}" is no state of maintenance', allowed="on, off")
    now = time.time()
    until = now + record.span(lasts, "--for") if lasts else 0.0
    closure = Closure(_fit(message), by_whom(), round(now, 3), until, reason.strip())
    environment = load(name)
    report.say(f"maintenance {wish} {name}", "bold")
    with (
        closing(open_target(environment)) as target,
        acting(target, environment, f"maintenance {wish}", wait, dry_run) as world,
    ):
        hosts = fit(world, environment)
        wanted = closure if wish == "on" else None
        if dry_run:
            _foretold(hosts, wanted)
        elif wanted or world.history.closure or any(host.shut for host in hosts):
            with _told(environment, happening(closure, wanted, world)):
                _carry_out(target, environment, world, hosts, closure, wanted)
        else:
            report.say("  it was not on: people are let in")
    if as_json:
        said = asdict(wanted) if wanted else None
        names = [host.name for host in hosts]
        report.as_json({"environment": name, "maintenance": said, "hosts": names})


def fit(world: World, environment: Environment) -> tuple[Host, ...]:
    """Return the hosts to act on. Pure.

    Raises:
        Refused: more hosts are out of reach than the environment allows.
    """
    away = [host for host in world.hosts if host.unreachable]
    if len(away) > environment.max_unavailable or not world.reached:
        raise Refused(
            f"{', '.join(host.name for host in away)} can't be reached, "
            "and people may: all hosts or none",
            where="; ".join(f"{host.name}: {host.unreachable}" for host in away),
            allowed=f"{environment.max_unavailable} hosts out of reach",
            next=f"inv doctor --env {environment.name}",
        )
    return world.reached


def page(closure: Closure) -> str:
    """Return what people read, as HTML. Pure."""
    times = f"Since {_utc(closure.since)}."
    if closure.until:
        times += f" Expected back at about {_utc(closure.until)}."
    return _PAGE.format(message=html.escape(closure.message), times=times)


def settle(target: Target, world: World) -> World:
    """Bring hosts in line with what the journal says; return the world as it is then.

    One was out of reach when the others were asked, or a command died half-way.
    """
    closure = world.history.closure
    wrong = [host for host in world.reached if host.shut != bool(closure)]
    for host in wrong:
        said = "shut" if closure else "open"
        report.say(f"  maintenance: {host.name} was not {said}; now it is", "yellow")
        _bring(target, host.name, closure)
    return target.observe() if wrong else world


def notice(closure: Closure | None, name: str) -> str:
    """Return the sentence that says that maintenance is on, "" where it is not."""
    if closure is None:
        return ""
    return (
        f"maintenance is on since {_utc(closure.since)}: people read a page, probes "
        f"and smoke pass; to let people in: inv maintenance off --env {name}"
    )


def happening(asked: Closure, wanted: Closure | None, world: World) -> Happening:
    """Return what the team is told: it is on, or over where nothing is wanted. Pure."""
    if wanted is None:
        before = world.history.closure
        lasted = report.seconds(asked.since - before.since) if before else ""
        notes = (("lasted", lasted), ("because", asked.reason))
        off = Happening("success", "maintenance off", asked.by, asked.since)
        return replace(off, notes=notes)
    until = _utc(wanted.until) if wanted.until else ""
    notes = (
        *(("message", wanted.message), ("until", until)),
        ("because", wanted.reason),
    )
    again = f"inv maintenance off --env {world.environment}"
    return Happening(
        "success", "maintenance on", asked.by, asked.since, next=again, notes=notes
    )


# The parts ----------------------------------------------------------------------------


def _carry_out(
    target: Target,
    environment: Environment,
    world: World,
    hosts: Sequence[Host],
    asked: Closure,
    wanted: Closure | None,
) -> None:
    """Bring all hosts to what is wanted, or back to what was; note who asked for it."""
    before = world.history.closure
    run = secrets.token_hex(4)
    _note(target, run, "begin", {"by": asked.by, "previous": world.current})
    tried: list[Host] = []
    outcome, why = "aborted", "interrupted"
    try:
        for host in hosts:
            tried.append(host)
            _obeyed(target, environment, host, wanted)
        outcome, why = "good", _said(asked, wanted)
    except (OpsError, OSError) as error:
        why = str(error)
        raise
    finally:
        if outcome != "good":
            for host in tried:
                _bring(target, host.name, before)
        said = asdict(wanted) if wanted else None
        facts = {"outcome": outcome, "reason": why, "closure": said}
        _note(target, run, "end", facts)
    if wanted:
        report.say(f"  people read: {wanted.message}")
        report.say(f"  to let them in: inv maintenance off --env {environment.name}")


def _told(environment: Environment, about: Happening) -> AbstractContextManager[Any]:
    """Tell the team how it ended; nobody is told of a laptop."""
    if environment.target == "local":
        return nullcontext()
    from ops.alerts import outbox

    return outbox.ending(environment, about)


def _obeyed(
    target: Target, environment: Environment, host: Host, wanted: Closure | None
) -> None:
    """Change one host, and ask its front door as a person would."""
    begun = time.monotonic()
    _bring(target, host.name, wanted)
    opened = host.front.pid is not None
    answer = target.ask_door(host.name, [_PERSON])[0] if opened else Answer(0)
    took = time.monotonic() - begun
    if not _as_wanted(answer, bool(wanted)):
        report.step("failed", "door", f"{host.name} does not obey", took)
        raise StepFailed(
            f"the front door of {host.name} does not look at the maintenance page; "
            "all hosts are as before",
            where=f"GET / answered {answer.status}",
            allowed="a front door of this version",
            next=_renewal(environment, host),
        )
    text = "people read the page" if wanted else "people are let in"
    closed = "" if answer.status else ", once the front door is open"
    report.step("ok", "door", f"{host.name}: {text}{closed}", took)


def _as_wanted(answer: Answer, shut: bool) -> bool:
    """Say whether a person was answered as wanted; a closed door lets nobody in."""
    return not answer.status or (MARK in answer.headers) == shut


def _bring(target: Target, host: str, wanted: Closure | None) -> None:
    if wanted:
        target.act(host, "shut", page=page(wanted))
    else:
        target.act(host, "reopen")


def _renewal(environment: Environment, host: Host) -> str:
    if environment.target == "local":
        return "inv down; then inv up, which opens the front door of this checkout"
    return (
        f"inv host-setup --env {environment.name} --hosts root@{host.name}, which "
        "writes the site of this checkout"
    )


def _note(target: Target, run: str, phase: str, facts: dict[str, Any]) -> None:
    event = {"run": run, "op": "maintenance", "phase": phase, "step": ""}
    target.record({**event, "at": round(time.time(), 3), "facts": facts})


def _said(asked: Closure, wanted: Closure | None) -> str:
    if wanted is None:
        return f"off: {asked.reason}" if asked.reason else "off"
    return f"on: {wanted.reason or wanted.message}"


def _foretold(hosts: Sequence[Host], wanted: Closure | None) -> None:
    text = "show people the page" if wanted else "let people in"
    for host in hosts:
        report.step("skipped", "door", f"{host.name}: {text}")
    report.say("  nothing was changed (--dry-run)")


def _fit(message: str) -> str:
    """Return a message that people can read.

    Raises:
        Usage: it is empty, too long, or holds what can't be shown.
    """
    text = " ".join(message.split())
    if not text or len(text) > _LONGEST or not text.isprintable():
        raise Usage(
            "the message can't be shown to people",
            where="--message",
            allowed=f"text of 1 to {_LONGEST} characters",
        )
    return text


def _utc(at: float) -> str:
    return time.strftime("%H:%M UTC on %Y-%m-%d", time.gmtime(at))
