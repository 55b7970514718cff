"""Look at everything that an environment needs, changing nothing, host by host.

It goes on where a host is out of reach or a variable is missing: what is missing is
what it is for. Variables are told by their names, never by their values.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing

from ops import machine
from ops.alerts.notice import AUDIENCES
from ops.delivery import load
from ops.environment import Environment
from ops.errors import OpsError, Usage
from ops.preflight import Check, judge, server
from ops.targets import open_target

# What `machine.checks` asks about this machine already.
_OWN = ("disk", "reach", "python", "speed", "clock")


def look(name: str, *, as_json: bool = False) -> None:
    """Show the checks of the deployer and of every host, and what mends each.

    Raises:
        Refused: something that is required is missing.
    """
    environment = load(name)
    extra = [
        *variables(environment, os.environ),
        *_ssh(environment, os.environ),
        *_hosts(environment, os.environ),
    ]
    machine.doctor(name, as_json=as_json, extra=extra)


def variables(environment: Environment, environ: Mapping[str, str]) -> list[Check]:
    """Judge the variables of the deployer's environment, by name only."""
    found = []
    needed = environment.needs()
    for name in needed:
        there = bool(environ.get(name, "").strip())
        mend = "" if there else f"export {name}=…"
        said = "set" if there else "not set"
        found.append(Check(name, "ok" if there else "failed", said, mend))
    for name in environment.from_environment:
        whole = name + environment.suffix
        if whole in needed or name in environment.common:
            continue
        default = "environments.toml has a default"
        without = default if name in environment.config else "the release does without"
        said = "set" if environ.get(whole) else f"not set: {without}"
        found.append(Check(whole, "ok", said))
    if environment.target != "local":
        found += _told(environment, environ)
    return found


def _told(environment: Environment, environ: Mapping[str, str]) -> list[Check]:
    """Judge the variables without which the team hears nothing."""
    found = []
    audience = AUDIENCES.get(environment.name)
    own = f"SLACK_WEBHOOK_URL_{audience.suffix}" if audience else "SLACK_WEBHOOK_URL"
    for names, what in (
        ((own, "SLACK_WEBHOOK_URL"), "Slack"),
        (("SMTP_URL", "SMTP_URL"), "mail"),
    ):
        there = next((name for name in names if environ.get(name)), "")
        if there:
            found.append(Check(there, "ok", "set"))
        else:
            said = f"not set: nobody is told by {what}"
            found.append(Check(names[0], "warned", said, f"export {names[0]}=…"))
    for name in ("HEROKU_API_KEY", "HEROKU_EMAIL"):
        said = "set" if environ.get(name) else "not set"
        found.append(Check(name, "ok", f"{said}; only a Heroku target would need it"))
    return found


def _ssh(environment: Environment, environ: Mapping[str, str]) -> list[Check]:
    """Judge the deployer's key and which hosts it knows; no host is asked."""
    if environment.target != "ssh":
        return []
    from ops.targets import link

    problem, mend = link.identity_problem(environ)
    state = "failed" if problem else "ok"
    found = [Check("SSH key", state, problem or "there", mend)]
    try:
        addresses = environment.hosts(environ)
    except Usage:
        return found
    for address in addresses:
        refused = link.introduced(address, environ)
        said, mend = (refused.what, refused.next) if refused else ("known", "")
        state = "failed" if refused else "ok"
        found.append(Check("host key", state, said, mend, address.name))
    return found


def _hosts(environment: Environment, environ: Mapping[str, str]) -> list[Check]:
    """Ask every host; what can't be asked is a check that failed."""
    variable = f"DATABASE_URL{environment.suffix}"
    url = environ.get(variable) or environment.config.get("DATABASE_URL", "")
    try:
        with closing(open_target(environment)) as target:
            facts = target.examine(server(url))
    except OpsError as error:
        # Which variable it was stands above.
        said = f"not asked: {error.what}"
        return [Check("hosts", "failed", said, error.next)]
    checks = judge(facts, environment, variable)
    if environment.target == "local":
        return [check for check in checks if check.name not in _OWN]
    return list(checks)
