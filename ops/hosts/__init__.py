"""Prepare bare Debian hosts for releases: `inv host-setup`.

Look, plan, show, act, look again, over one connection to each host. A host whose key
is not known is refused. What runs there are argument lists, and the small program
`on_host`, which is sent over standard input.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from ops import environment, errors, machine, report, wire
from ops.environment import Address
from ops.hosts import balancer, database, password, plan
from ops.hosts.plan import Facts, Step, Wish
from ops.shell import Result
from ops.targets import link

ON_HOST = Path(__file__).with_name("on_host.py")
_HOME = re.compile(r"(/[A-Za-z0-9._-]+)+")
_KINDS = re.compile(r"(sk-)?(ssh-(ed25519|rsa)|ecdsa-sha2-nistp[0-9]+)(@openssh\.com)?")
_ROLES = {"app": "host", "balancer": "balancer", "database": "database"}
_POSTGRESQL = 5432
# After these steps more is seen of a host than before.
_UNVEILING = ("packages", "postgresql")
# Seconds that nginx may take until its workers are those of the new site.
_SETTLE = 5.0


def host_setup(
    env: str,
    hosts: str = "",
    *,
    role: str = "app",
    user: str = "root",
    door: str = "nginx",
    port: int | None = None,
    key: str = "",
    listen: str = "",
    url_file: str = "",
    dry_run: bool = False,
    yes: bool = False,
    environ: Mapping[str, str] = os.environ,
    ask: Callable[[str], str] = input,
) -> dict[str, tuple[str, ...]]:
    """Prepare hosts for an environment; a second run changes nothing.

    `hosts` are names or addresses with commas, each with `user@` or `:port` where that
    differs; default: the environment's own of that `role`. `user` logs in there: root,
    or one with sudo that asks no password. `port` is the front door's, or the
    balancer's, by default the one in environments.toml. `key` is the file of the
    public key that may deploy. A database listens on `listen`, and its address with
    the password goes to `url_file`, both with a default of their own. Returns the names
    of the steps that were carried out on each host.

    Raises:
        Usage: a name, port or key that is not allowed.
        Refused: a host is not known, lets nobody in, or is not fit; nothing changed.
        StepFailed: a step failed, the ones before it stay done; run it again.
    """
    row = environment.load(env)
    wish = wished(row, role=role, door=door, port=port, key=key, environ=environ)
    places = (
        addresses(hosts, user) if hosts else own_addresses(row, user, environ, role)
    )
    if role == "database":
        wish = _database(wish, row, places, listen, environ)
    prove = partial(_proving, row=row, url_file=url_file, environ=environ)
    with ExitStack() as opened, ThreadPoolExecutor(len(places)) as pool:
        lines = [opened.enter_context(Line(place, environ)) for place in places]
        seen = list(pool.map(lambda line: _look_first(line, wish), lines))
        todo = [
            _show(line, wish, facts) for line, facts in zip(lines, seen, strict=True)
        ]
        if not any(todo):
            report.say("\nall is as wished: nothing to do")
        elif not dry_run:
            _agree(len(lines), yes, environ, ask)
        done = {
            line.name: () if dry_run or not steps else _act(line, wish, facts, prove)
            for line, facts, steps in zip(lines, seen, todo, strict=True)
        }
    report.say(f"\n{_of(wish).firewall(wish)}", "dim")
    if dry_run:
        report.say("nothing was changed (--dry-run)")
    else:
        report.say(f"next: {_next(row, wish, places, url_file, environ)}")
    return done


def _next(
    row: environment.Environment,
    wish: Wish,
    places: Sequence[Address],
    url_file: str,
    environ: Mapping[str, str],
) -> str:
    """Return what to type when hosts are prepared."""
    assert row.fleet is not None  # nosec B101
    kept = _url_file(row, url_file, environ)
    if wish.role == "database" and not environ.get(f"DATABASE_URL{row.suffix}"):
        if kept.exists():
            return f". {shlex.quote(str(kept))}"
    if wish.role == "app" and not environ.get(row.fleet.hosts):
        hosts = ",".join(f"{wish.user}@{each.name}" for each in places)
        return f"export {row.fleet.hosts}={hosts}"
    return f"inv doctor --env {row.name}"


def _url_file(
    row: environment.Environment, url_file: str, environ: Mapping[str, str]
) -> Path:
    """Return the file that holds a database's address with its password."""
    kept = environment.state_home(environ) / row.name / "database.env"
    return Path(url_file).expanduser() if url_file else kept


def wished(
    row: environment.Environment,
    *,
    role: str = "app",
    door: str,
    port: int | None,
    key: str,
    environ: Mapping[str, str] = os.environ,
) -> Wish:
    """Return what is asked for.

    Raises:
        Usage: no fleet, role or door, a port out of range, no public key, or a
            balancer without hosts behind it.
    """
    if row.fleet is None:
        raise errors.Usage(
            f'the environment "{row.name}" has no hosts to prepare',
            where=f"--env {row.name}",
            allowed='environments whose target is "ssh"',
        )
    if role not in plan.ROLES:
        raise errors.Usage(
            f'there is no role "{role}"',
            where=f"--role {role}",
            allowed=", ".join(plan.ROLES),
        )
    if port is None:
        own = {"balancer": row.fleet.public, "database": _POSTGRESQL}
        port = own.get(role, row.port)
    if door not in plan.DOORS:
        raise errors.Usage(
            f'there is no door "{door}"',
            where=f"--door {door}",
            allowed=", ".join(plan.DOORS),
        )
    if not 1 <= port <= 65535:
        raise errors.Usage(
            f"{port} is no port", where="--port", allowed="a number from 1 to 65535"
        )
    if role == "database":
        # Nobody logs in there to deploy.
        return Wish(row.name, "", row.fleet.root, door, port, role=role)
    line = public_key(Path(key or "~/.ssh/id_ed25519.pub"))
    wish = Wish(row.name, line, row.fleet.root, door, port, role=role)
    if role == "balancer":
        behind = row.hosts(environ)
        servers = tuple((each.name, f"{each.host}:{row.port}") for each in behind)
        return replace(wish, servers=servers)
    return replace(wish, balancers=tuple(b.host for b in row.balancers(environ)))


def public_key(path: Path) -> str:
    """Return the one public key that a file holds.

    Raises:
        Usage: there is no such file, or it holds something else.
    """
    allowed = "a file with one line: type, key, comment"
    make = "ssh-keygen -t ed25519, or name a file: --key FILE"
    try:
        text = path.expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise errors.Usage(
            f"the public key can't be read: {getattr(error, 'strerror', '') or error}",
            where=str(path),
            allowed=allowed,
            next=make,
        ) from None
    words = text.split(maxsplit=2)
    fit = len(words) > 1 and "\n" not in text and text.isprintable()
    if not (fit and _KINDS.fullmatch(words[0]) and _says(words[1], words[0])):
        private = "a private key" if "PRIVATE KEY" in text else "no public key"
        raise errors.Usage(
            f"the file holds {private}", where=str(path), allowed=allowed, next=make
        )
    return text


def _says(blob: str, kind: str) -> bool:
    """True when the key itself says that it is of a kind."""
    try:
        raw = base64.b64decode(blob, validate=True)
    except binascii.Error:
        return False
    return raw[4 : 4 + int.from_bytes(raw[:4], "big")] == kind.encode()


def addresses(hosts: str, user: str) -> tuple[Address, ...]:
    """Return the hosts of a list with commas; `user` is for those that name none.

    Raises:
        Usage: a name is not allowed, comes twice, or there is none.
    """
    found = []
    for word in filter(None, (word.strip() for word in hosts.split(","))):
        try:
            found.append(Address.parse(word if "@" in word else f"{user}@{word}", ""))
        except errors.Usage:
            raise errors.Usage(
                f'"{word}" is no host, or "{user}" no user',
                where="--hosts, --user",
                allowed="names or addresses with commas: host, user@host, host:2222",
            ) from None
    if not found or len({address.name for address in found}) != len(found):
        raise errors.Usage(
            "a host is named twice" if found else "no host is named",
            where="--hosts",
            allowed="one or more different hosts",
            next="add --hosts NAME,NAME",
        )
    return tuple(found)


def own_addresses(
    row: environment.Environment,
    user: str,
    environ: Mapping[str, str],
    role: str = "app",
) -> tuple[Address, ...]:
    """Return an environment's own hosts of a role, to be entered by another user.

    Raises:
        Usage: the variable that lists them is not set.
    """
    own = row.hosts(environ) if role == "app" else ()
    if role == "balancer":
        own = row.balancers(environ)
    if not own:
        fleet = row.fleet
        variable = fleet.balancers if fleet and role == "balancer" else ""
        raise errors.Usage(
            f"{variable} is not set" if variable else f"which host is the {role}?",
            where=f"--role {role}",
            allowed="one or more hosts",
            next=f"export {variable}=deploy@…" if variable else "add --hosts NAME",
        )
    return tuple(replace(address, user=user) for address in own)


def _database(
    wish: Wish,
    row: environment.Environment,
    places: Sequence[Address],
    listen: str,
    environ: Mapping[str, str],
) -> Wish:
    """Return what is asked of a database: where it listens, who may come.

    Raises:
        Usage: several hosts, or a name that has no address.
    """
    if len(places) != 1:
        raise errors.Usage(
            "an environment has one database",
            where="--hosts",
            allowed="one host",
        )
    clients = [_resolved(each.host) for each in row.hosts(environ)]
    return replace(
        wish,
        account=database.account(row.name),
        listen=_resolved(listen or places[0].host),
        clients=tuple(f"{client}/32" for client in sorted({*clients})),
    )


def _resolved(name: str) -> str:
    """Return the address of a name, as it is seen from here."""
    try:
        return wire.address_of(name)
    except OSError:
        raise errors.Usage(
            f"{name} has no IPv4 address",
            where="--listen, --hosts or the variable that lists the hosts",
            allowed="addresses, or names that this machine can look up",
        ) from None


def _proving(
    wish: Wish, row: environment.Environment, url_file: str, environ: Mapping[str, str]
) -> Wish:
    """Return the wish with what proves the password of the role, which stays here.

    It is that of the environment's own variable, or one that is made and kept in a
    file which only we can read.
    """
    variable = f"DATABASE_URL{row.suffix}"
    if environ.get(variable):
        secret = password.of_url(environ[variable], variable, wish.account)
        report.say(f"  the password is that of {variable}")
    else:
        path = _url_file(row, url_file, environ)
        where = f"{wish.listen}:{wish.port}"
        secret = password.keep(path, variable, wish.account, where)
        report.say(f"  {variable} is in {path}, which only you can read")
    return replace(wish, verifier=password.verifier(secret, os.urandom(16)))


def _of(wish: Wish) -> Any:
    """Return the module that decides for a role: its steps, table and firewall."""
    return {"app": plan, "balancer": balancer, "database": database}[wish.role]


class Line:
    """One connection to a host, as root or as somebody who may become root."""

    def __init__(
        self, address: Address, environ: Mapping[str, str] = os.environ
    ) -> None:
        self.address = address
        self.name, self.user = address.name, address.user
        self._environ = environ
        self._connection: Any = None

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._connection is not None:
            self._connection.close()

    def open(self) -> None:
        """Connect and log in.

        Raises:
            Refused: the host is not known, not there, or does not let us in.
        """
        try:
            self._connection = link.connect(self.address, self._environ)
        except link.Unreachable as error:
            port = "" if self.address.port == 22 else f"-p {self.address.port} "
            raise errors.Refused(
                f"{self.name} can't be reached: {error}",
                where=f"{self.user}@{self.name}",
                next=f"ssh {port}{self.address} true",
            ) from None

    def run(
        self, argv: Sequence[str], *, text: str = "", timeout: float = 60
    ) -> Result:
        """Run a program on the host as root, with a text on its standard input.

        Raises:
            StepFailed: it had no end in time, or the connection was cut.
        """
        become = () if self.user == "root" else ("sudo", "-n", "--")
        words = shlex.join((*become, "env", "LC_ALL=C.UTF-8", *argv))
        begun = time.monotonic()
        try:
            # Not by Fabric's run: it types its input one character at a time.
            with self._connection.transport.open_session(timeout=timeout) as channel:
                channel.settimeout(timeout)
                channel.exec_command(words)
                with suppress(OSError):
                    # A program may end before it has read all.
                    channel.sendall(text.encode())
                    channel.shutdown_write()
                out = _all(channel.recv, channel, begun + timeout)
                err = _all(channel.recv_stderr, channel, begun + timeout)
                code = channel.recv_exit_status()
        except TimeoutError:
            raise self._lost(argv, f"no end after {timeout:g} s") from None
        except OSError as error:
            raise self._lost(argv, f"the connection was cut: {error}") from None
        if code < 0:
            raise self._lost(argv, "the connection was cut")
        return Result(code, out, err, time.monotonic() - begun)

    def call(self, verb: str, arguments: Mapping[str, object]) -> dict[str, Any]:
        """Run one verb of `on_host` and return what it says.

        Raises:
            StepFailed: it failed.
        """
        argv = ("python3", "-I", "-", verb, json.dumps(arguments))
        result = self.run(argv, text=ON_HOST.read_text())
        if not result.ok:
            raise errors.StepFailed(
                f"{verb} failed", where=self.name, detail=result.tail(5)
            )
        return json.loads(result.out)

    def _lost(self, argv: Sequence[str], why: str) -> errors.StepFailed:
        return errors.StepFailed(
            f"{argv[0]}: {why}",
            where=self.name,
            next="look at the host, then run it again",
        )


def _all(read: Callable[[int], bytes], channel: Any, until: float) -> str:
    """Return what comes until its end, or TimeoutError."""
    parts = []
    while True:
        channel.settimeout(max(until - time.monotonic(), 0.001))
        part = read(65536)
        if not part:
            return b"".join(parts).decode(errors="replace")
        parts.append(part)


def _look_first(line: Line, wish: Wish) -> Facts:
    """Look at a host for the first time, and whether we may become root there."""
    line.open()
    root = line.run(("true",), timeout=30)
    if not root.ok:
        raise errors.Refused(
            f"{line.user} may not become root on {line.name}",
            where=f"{line.user}@{line.name}",
            allowed="root, or a user with sudo that asks no password",
            next="add --user root, or allow sudo without a password",
        )
    return look(line, wish)


def look(line: Line, wish: Wish) -> Facts:
    """Return the facts of a host, changing nothing.

    Raises:
        Refused: it has no dpkg, or a home whose name would need quotes.
    """
    form = "-f=${Package} ${db:Status-Status}\n"
    asked = line.run(("dpkg-query", "-W", form, *wish.packages))
    if asked.code not in (0, 1):
        raise errors.Refused(
            "the host has no Debian packages",
            where=line.name,
            allowed="Debian 12 or newer, or a system made from it",
            next="prepare it by hand, by docs/how-to/prepare-hosts.md",
        )
    there = {name for name, state in _pairs(asked.out) if state == "installed"}
    missing = tuple(name for name in wish.packages if name not in there)
    if not line.run(("python3", "-c", "")).ok:
        return Facts(missing=missing)
    arguments = {
        "user": wish.user,
        "root": wish.root,
        "key": wish.key,
        "door": wish.door,
        "port": wish.port,
        "site": wish.site,
        "role": wish.role,
        "config": balancer.config_path(wish),
        "unit": balancer.unit_path(wish),
        "rules": "",
    }
    more: dict[str, Any] = {}
    if wish.role == "database" and not missing:
        asked = line.run(database.asking(wish), text=database.QUESTION)
        more = {**database.seen(asked.out), "active": True} if asked.ok else {}
        arguments["rules"] = more.get("rules_path", "")
    seen = line.call("observe", arguments)
    unit = "nginx" if wish.role == "app" else balancer.unit_name(wish)
    units = ("systemctl", "show", f"{unit}.service", "-pUnitFileState", "-pActiveState")
    states = dict(_pairs(line.run(units).out, "="))
    facts = Facts(
        **{
            **seen,
            "missing": missing,
            "python": tuple(seen["python"]),
            "others": tuple(seen.get("others", ())),
            "folders": {path: tuple(row) for path, row in seen["folders"].items()},
            "enabled": states.get("UnitFileState") == "enabled",
            "active": states.get("ActiveState") == "active",
            **({"active": False} if wish.role == "database" else {}),
            **more,
        }
    )
    if facts.home and not _HOME.fullmatch(facts.home):
        raise errors.Refused(
            f"the home of {wish.user} is {facts.home!r}",
            where=line.name,
            allowed="a path of letters, digits, dots, dashes and underscores",
            next=f"usermod --home /home/{wish.user} --move-home {wish.user}",
        )
    return facts


def _pairs(text: str, between: str = " ") -> list[tuple[str, str]]:
    cut = [line.partition(between) for line in text.splitlines()]
    return [(name, value) for name, _, value in cut]


def _show(line: Line, wish: Wish, facts: Facts) -> tuple[Step, ...]:
    """Print what a host has and what it will have; return the steps."""
    steps = _of(wish).steps(wish, facts, line.name)
    report.say(
        f"\n{line.name}: {_ROLES[wish.role]} of {wish.env}, seen as {line.user}", "bold"
    )
    rows = _of(wish).table(wish, facts)
    changing = {step.name for step in steps}
    tones = {i: "yellow" for i, row in enumerate(rows) if row[0] in changing}
    report.say(report.table(rows, ("part", "is there", "to do"), tones=tones))
    if not facts.python:
        report.say("  the host has no Python yet: looked at again once it has")
    return steps


def _agree(
    count: int, yes: bool, environ: Mapping[str, str], ask: Callable[[str], str]
) -> None:
    """Ask a person at a terminal."""
    if yes or environ.get("CI") or not sys.stdin.isatty():
        return
    if ask(f"\nprepare {count} host(s)? [y/N] ").strip().lower() != "y":
        raise errors.Refused("not prepared", next="add --yes to not be asked")


def _act(
    line: Line,
    wish: Wish,
    facts: Facts,
    prove: Callable[[Wish], Wish] = lambda wish: wish,
) -> tuple[str, ...]:
    """Carry out what a host lacks, look again, and return the steps' names."""
    report.say(f"\n{line.name}", "bold")
    done = []
    steps = _of(wish).steps(wish, facts, line.name)
    while steps and steps[0].name in _UNVEILING:
        first = steps[0]
        installs = first.name == "packages"
        act = partial(_install, line, facts.missing) if installs else None
        _step(line, first, act or partial(_carry_out, line, first))
        done.append(first.name)
        facts = look(line, wish)
        steps = _of(wish).steps(wish, facts, line.name)
    if wish.role == "database" and not facts.account:
        wish = prove(wish)
        steps = _of(wish).steps(wish, facts, line.name)
    for step in steps:
        _step(line, step, partial(_carry_out, line, step))
        done.append(step.name)
    until = time.monotonic() + _SETTLE
    while left := _of(wish).steps(wish, look(line, wish), line.name):
        if time.monotonic() > until:
            raise errors.StepFailed(
                f"not all is as wished: {', '.join(step.name for step in left)}",
                where=line.name,
                detail="\n".join(step.said for step in left),
                next="look at journalctl there, then run it again",
            )
    return tuple(done)


def _step(line: Line, step: Step, act: Callable[[], None]) -> None:
    """Print how one step ended, and after how long."""
    begun = time.monotonic()
    try:
        act()
    except errors.OpsError:
        report.step("failed", step.name, step.said, time.monotonic() - begun)
        raise
    report.step("ok", step.name, step.said, time.monotonic() - begun)


def _install(line: Line, packages: Sequence[str]) -> None:
    """Install packages; lists that could not be renewed may be good enough."""
    update, install = machine.installation(packages, ())
    line.run(update.argv, timeout=update.timeout)
    _must(line, install.argv, timeout=install.timeout)


def _carry_out(line: Line, step: Step) -> None:
    if step.argv:
        _must(line, step.argv, text=step.text)
        return
    before = line.call(step.verb, step.arguments)
    if step.check:
        try:
            _must(line, step.check)
        except errors.OpsError:
            line.call(step.undo, before)
            raise


def _must(
    line: Line, argv: Sequence[str], *, timeout: float = 60, text: str = ""
) -> None:
    result = line.run(argv, timeout=timeout, text=text)
    if not result.ok:
        raise errors.StepFailed(
            f"{argv[0]} ended with {result.code}",
            where=f"{line.name}: {shlex.join(argv)}",
            detail=result.tail(8),
            next="mend that on the host and run it again",
        )
