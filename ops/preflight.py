"""Whether hosts are fit for what is about to be done: facts in, checks out. Pure.

Each check has a name, so that a message, a page and a test mean the same thing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from ops import quorum
from ops.environment import Environment
from ops.world import Host

# Seconds that a host's clock may differ from the deployer's: the journal's times and
# the order of log lines suffer first, then certificates and signed answers.
CLOCK_WARNED = 5.0
CLOCK_REFUSED = 30.0
# Seconds: a host that needs longer for a question makes every step that much longer.
SLOW = 1.0
# Files that an installed environment and a few releases need.
INODES = 30_000


@dataclass(frozen=True, slots=True)
class Check:
    """One question and its answer: state is ok, warned or failed; mend is a command.

    `where` is the host it was asked about, "" for the deployer itself.
    """

    name: str
    state: str
    said: str
    mend: str = ""
    where: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found out about one host; nothing but a name where it is out of reach.

    `unreachable` says why, `mend` what to type then. `round_trip` is how many seconds a
    question took beside its work, `skew` how far the host's clock is ahead of ours;
    it is true to half a round trip. `database`: why it does not answer from there, ""
    when it does, None when it was not asked. `faults` are what keeps releases from
    running there, by name.
    """

    name: str
    host: Host | None = None
    address: str = ""
    unreachable: str = ""
    mend: str = ""
    round_trip: float = 0.0
    skew: float = 0.0
    inodes: int | None = None
    database: str | None = None
    faults: dict[str, str] = field(default_factory=dict)


def clocks(sent: float, came: float, left: float, heard: float) -> tuple[float, float]:
    """Return how far another clock is ahead of ours, and the round trip, in seconds.

    A question was sent and its answer heard by our clock, came and left by the other.
    """
    return ((came - sent) + (left - heard)) / 2, (heard - sent) - (left - came)


def server(url: str) -> tuple[str, int] | None:
    """Return host and port of a PostgreSQL address, None where it has none."""
    if not url.startswith(("postgres://", "postgresql://", "postgresql+psycopg://")):
        return None
    try:
        parts = urlsplit(url)
        said = dict(parse_qsl(parts.query))
        host = said.get("host") or parts.hostname or ""
        port = int(said.get("port") or parts.port or 5432)
    except ValueError:
        return None
    # A path is a socket on that host, a comma separates several servers.
    return None if not host or host.startswith("/") or "," in host else (host, port)


def judge(
    found: Sequence[Facts], environment: Environment, database: str = "DATABASE_URL"
) -> tuple[Check, ...]:
    """Return the checks of all hosts, those that fail first within each name.

    `database` is the variable that names it; the value is nobody's business here.
    """
    checks = [*_together(found, environment)]
    questions: tuple[Callable[[Facts, Host, Environment], Check | None], ...] = (
        _speed,
        _disk,
        _inodes,
        _clock,
        _door,
        *(_fault(name) for name in ("systemd", "linger")),
    )
    for facts in found:
        if facts.host is None:
            continue
        for question in questions:
            check = question(facts, facts.host, environment)
            if check is not None:
                checks.append(check)
        if facts.database is not None:
            checks.append(_database(facts, environment, database))
    return tuple(checks)


def failed(checks: Sequence[Check]) -> tuple[Check, ...]:
    return tuple(check for check in checks if check.state == "failed")


def mends(checks: Sequence[Check]) -> str:
    """Return the commands that mend what is not fine, each once."""
    return "; ".join(dict.fromkeys(check.mend for check in checks if check.mend))


# All hosts together -------------------------------------------------------------------


def _together(found: Sequence[Facts], environment: Environment) -> list[Check]:
    away = [facts for facts in found if facts.host is None]
    enough = quorum.enough(
        [facts.name for facts in found],
        [facts.name for facts in found if facts.host is not None],
    )
    allowed = environment.max_unavailable
    state = "warned" if len(away) <= allowed and enough else "failed"
    checks = [
        Check("reach", state, facts.unreachable, facts.mend, facts.name)
        for facts in away
    ]
    checks += [
        Check("reach", "ok", f"reached in {facts.round_trip * 1000:.0f} ms", "", name)
        for facts in found
        if (name := facts.name) and facts.host is not None
    ]
    pythons = {facts.host.python for facts in found if facts.host is not None}
    if len(pythons) > 1:
        checks += [
            Check(
                "python",
                "failed",
                f"{facts.host.python}; all hosts must have the same",
                "bring the hosts to the same release of their distribution",
                facts.name,
            )
            for facts in found
            if facts.host is not None
        ]
    elif pythons:
        checks.append(Check("python", "ok", pythons.pop()))
    return checks


# One host -----------------------------------------------------------------------------


def _speed(facts: Facts, host: Host, environment: Environment) -> Check | None:
    if facts.round_trip < SLOW:
        return None
    said = (
        f"answers after {facts.round_trip:.1f} s; a step there is given up one minute "
        "after its budget, a host that is silent for 15 s at once"
    )
    return Check("speed", "warned", said, f"ping {facts.name}", facts.name)


def _disk(facts: Facts, host: Host, environment: Environment) -> Check:
    needed = environment.budget.free_disk
    if host.free_disk >= needed:
        return Check("disk", "ok", f"{host.free_disk:,} MiB free", "", facts.name)
    said = f"{host.free_disk:,} MiB free, {needed:,} needed"
    return Check("disk", "failed", said, _prune(environment), facts.name)


def _inodes(facts: Facts, host: Host, environment: Environment) -> Check | None:
    if facts.inodes is None:
        return None
    if facts.inodes >= INODES:
        return Check("inodes", "ok", f"{facts.inodes:,} free", "", facts.name)
    said = f"{facts.inodes:,} more files possible, {INODES:,} needed"
    return Check("inodes", "failed", said, _prune(environment), facts.name)


def _prune(environment: Environment) -> str:
    return f"inv prune --env {environment.name}"


def _clock(facts: Facts, host: Host, environment: Environment) -> Check:
    # What the way there and back may account for is not held against the host.
    sure = max(0.0, abs(facts.skew) - facts.round_trip / 2)
    state = "ok"
    if sure > CLOCK_WARNED:
        state = "failed" if sure > CLOCK_REFUSED else "warned"
    side = "ahead" if facts.skew > 0 else "behind"
    said = f"{abs(facts.skew):.1f} s {side} of ours" if sure > 0.5 else "as ours"
    if state != "ok":
        said += f"; {CLOCK_WARNED:g} s are fine, {CLOCK_REFUSED:g} s the most"
    mend = f"ssh {facts.address or facts.name} sudo timedatectl set-ntp true"
    return Check("clock", state, said, mend if state != "ok" else "", facts.name)


def _door(facts: Facts, host: Host, environment: Environment) -> Check:
    if host.front.pid is not None:
        said = f"open on port {host.front.port}"
        return Check("front door", "ok", said, "", facts.name)
    if environment.target == "ssh":
        said = f"nothing answers on port {environment.port}"
        return Check(
            "front door", "failed", said, _setup(facts, environment), facts.name
        )
    if host.port_holder:
        said = f"port {environment.port} is taken by {host.port_holder}"
        mend = "add --port 0 for a free port, or end that program"
        return Check("front door", "failed", said, mend, facts.name)
    return Check("front door", "ok", "its port can be had", "", facts.name)


def _fault(name: str) -> Callable[[Facts, Host, Environment], Check | None]:
    def question(facts: Facts, host: Host, environment: Environment) -> Check | None:
        if environment.target != "ssh":
            return None
        said = facts.faults.get(name, "")
        if not said:
            return Check(name, "ok", "as it should be", "", facts.name)
        return Check(name, "failed", said, _setup(facts, environment), facts.name)

    return question


def _setup(facts: Facts, environment: Environment) -> str:
    return f"inv host-setup --env {environment.name} --hosts {facts.name}"


def _database(facts: Facts, environment: Environment, variable: str) -> Check:
    if not facts.database:
        return Check("database", "ok", "answers from there", "", facts.name)
    said = f"what {variable} names does not answer from there: {facts.database}"
    mend = (
        "pg_isready there, with -h and -p of that address; then the server's "
        "listen_addresses and what is between them"
    )
    return Check("database", "failed", said, mend, facts.name)
