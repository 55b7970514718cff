"""The environments: what environments.toml says, validated on load."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ops.command import Secret
from ops.errors import Usage

ROOT = Path(__file__).resolve().parent.parent
FILE = Path(__file__).with_name("environments.toml")
# How much harm it does when the data of an environment is lost.
KINDS = ("development", "staging", "production")
_ADDRESS = re.compile(
    r"(?:(?P<user>[a-z_][a-z0-9_-]{0,31})@)?"
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?)"
    r"(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True, slots=True)
class Web:
    """Size of the web process: gunicorn workers and threads in each."""

    workers: int
    threads: int


@dataclass(frozen=True, slots=True)
class Budget:
    """How long each step may take, in seconds; free disk in MiB."""

    environment: int
    migrate: int
    boot: int
    gate: int
    smoke: int
    watch: int
    stop: int
    free_disk: int


@dataclass(frozen=True, slots=True)
class Address:
    """Where a host is reached: user ("" is who runs us), name or number, port."""

    user: str
    host: str
    port: int = 22

    @property
    def name(self) -> str:
        """What plans and reports call the host; the user is left out."""
        return self.host if self.port == 22 else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" if self.user else self.host

    @classmethod
    def parse(cls, text: str, variable: str) -> Address:
        """Return the address in "deploy@10.0.0.1:2222"; user and port may be left out.

        Raises:
            Usage: the text is none; the message names the variable it is in.
        """
        match = _ADDRESS.fullmatch(text)
        if not match or not 0 < int(match["port"] or 22) < 65536:
            raise Usage(
                f'"{text}" is not a host',
                where=f"the variable {variable}",
                allowed="user@name or user@name:port, separated by commas",
            )
        return cls(match["user"] or "", match["host"], int(match["port"] or 22))


@dataclass(frozen=True, slots=True)
class Fleet:
    """How an ssh environment is found, and what a release may use on a host.

    `hosts`, `balancers` and `url` are names of variables of the deployer's environment,
    so that a clone needs no edit; `root` is below the home folder on the hosts,
    `memory` in MiB, `leave` and `canary` in seconds, `public` the balancers' port.
    """

    hosts: str
    url: str
    root: str
    memory: int
    balancers: str
    public: int
    leave: int
    canary: int


@dataclass(frozen=True, slots=True)
class Environment:
    """One row of environments.toml."""

    name: str
    target: str
    port: int
    gates: tuple[str, ...]
    dirty: bool
    approval: bool
    keep: int
    seed: str
    web: Web
    budget: Budget
    batch: int
    max_unavailable: int
    pages: tuple[str, ...]
    config: Mapping[str, str]
    from_environment: tuple[str, ...]
    promotes_from: str = ""
    required: tuple[str, ...] = ()
    sticky: tuple[str, ...] = ()
    common: tuple[str, ...] = ()
    suffix: str = ""
    fleet: Fleet | None = None
    kind: str = "development"

    @property
    def state(self) -> Path:
        """The folder that holds everything this environment has on this machine."""
        return state_home() / self.name

    def hosts(self, environ: Mapping[str, str]) -> tuple[Address, ...]:
        """Return the hosts of an ssh environment.

        Raises:
            Usage: the variable that lists them is not set, or holds something else.
        """
        variable = self.fleet.hosts if self.fleet else ""
        listed = self._said(environ, variable)
        return self._addresses(listed, variable)

    def balancers(self, environ: Mapping[str, str]) -> tuple[Address, ...]:
        """Return where the balancers of an ssh environment are; none when unset.

        Raises:
            Usage: the variable that lists them holds something else.
        """
        variable = self.fleet.balancers if self.fleet else ""
        listed = environ.get(variable, "").strip()
        return self._addresses(listed, variable) if listed else ()

    def _addresses(self, listed: str, variable: str) -> tuple[Address, ...]:
        words = [word.strip() for word in listed.split(",")]
        found = tuple(Address.parse(word, variable) for word in words if word)
        if not found or len({address.name for address in found}) != len(found):
            raise Usage(
                f"{variable} names {'a host twice' if found else 'no host'}",
                where="the deployer's environment",
                allowed="user@name or user@name:port, separated by commas",
            )
        return found

    def public_url(self, environ: Mapping[str, str]) -> str:
        """Return where people find an ssh environment, ending with a slash.

        Raises:
            Usage: the variable that holds it is not set, or holds something else.
        """
        variable = self.fleet.url if self.fleet else ""
        url = self._said(environ, variable)
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise Usage(
                f"{variable} is not an address of a website",
                where="the deployer's environment",
                allowed="http://… or https://…",
            )
        return url.rstrip("/") + "/"

    def _said(self, environ: Mapping[str, str], variable: str) -> str:
        value = environ.get(variable, "").strip()
        self._refuse([] if value else [variable])
        return value

    def needs(self) -> tuple[str, ...]:
        """Return the variables of the deployer without which nothing is deployed."""
        fleet = (self.fleet.hosts, self.fleet.url) if self.fleet else ()
        return (*fleet, *(name + self.suffix for name in self.required))

    def require(self, environ: Mapping[str, str]) -> None:
        """Refuse to begin where a variable is missing.

        Raises:
            Usage: all that are missing are named in one message.
        """
        self._refuse(
            [name for name in self.needs() if not environ.get(name, "").strip()]
        )

    def _refuse(self, missing: Sequence[str]) -> None:
        examples = {}
        if self.fleet:
            examples[self.fleet.hosts] = "deploy@192.0.2.1,deploy@192.0.2.2"
            examples[self.fleet.url] = "https://example.org"
        if missing:
            are = "is" if len(missing) == 1 else "are"
            raise Usage(
                f"{', '.join(missing)} {are} not set",
                where=f"the deployer's environment, for --env {self.name}",
                next="; ".join(
                    f"export {name}={examples.get(name, '…')}" for name in missing
                ),
            )

    def resolved(self, environ: Mapping[str, str]) -> dict[str, str | Secret]:
        """Return the release's configuration variables.

        A name in `from_environment` that the deployer's environment sets, with the
        environment's suffix, becomes a Secret; one in `common` without the suffix too.
        "{data}" becomes its data folder.

        Raises:
            Usage: one or more that are required are not set; all are named.
        """
        lost = [name + self.suffix for name in self.required]
        self._refuse([name for name in lost if not environ.get(name)])
        values: dict[str, str | Secret] = {}
        for name, value in self.config.items():
            values[name] = value.replace("{data}", str(self.state / "data"))
        for name in self.from_environment:
            value = environ.get(name + self.suffix)
            if not value and name in self.common:
                value = environ.get(name)
            if value:
                values[name] = Secret(value)
        values["ENVIRONMENT_KIND"] = self.kind
        values["WEB_WORKERS"] = str(self.web.workers)
        values["WEB_THREADS"] = str(self.web.threads)
        return values


def state_home(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of all environments' state, by the XDG convention."""
    if environ.get("MLTRADING_STATE"):
        return Path(environ["MLTRADING_STATE"]).resolve()
    base = environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base).resolve() / "mltrading"


def load(name: str, file: Path = FILE) -> Environment:
    """Return one environment.

    Raises:
        Usage: no such environment, an unknown key, or a value of the wrong kind;
            the message holds the path of the key and what is allowed.
    """
    rows = _read(file)
    if name not in rows:
        close = difflib.get_close_matches(name, rows, n=1)
        raise Usage(
            f'there is no environment "{name}"',
            where=f"--env {name}",
            allowed=", ".join(rows),
            next=f"use --env {close[0] if close else next(iter(rows))}",
        )
    return _environment(name, rows[name], file)


def names(file: Path = FILE) -> tuple[str, ...]:
    """Return the names of all environments, in the file's order."""
    return tuple(_read(file))


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except tomllib.TOMLDecodeError as error:
        raise Usage(
            f"not valid TOML: {error}",
            where=file.name,
            next=f"git diff {file.name}",
        ) from None


def _environment(name: str, row: Mapping[str, Any], file: Path) -> Environment:
    def at(*keys: str) -> str:
        return f"{file.name}: [{'.'.join((name, *keys[:-1]))}] {keys[-1]}"

    known = (
        "target",
        "port",
        "gates",
        "dirty",
        "approval",
        "promotes_from",
        "kind",
        "keep",
        "seed",
        "batch",
        "max_unavailable",
    )
    tables = ("web", "budget", "smoke", "config", "secrets", "fleet")
    _refuse_unknown(row, (*known, *tables), at)
    return Environment(
        name=name,
        target=_choice(row, "target", ("local", "ssh"), at),
        port=_integer(row, "port", at, low=0, high=65535),
        gates=_words(row, "gates", at),
        dirty=_typed(row, "dirty", bool, "true or false", at),
        approval=_typed(row, "approval", bool, "true or false", at),
        promotes_from=_source(name, row, file, at),
        kind=_choice(row, "kind", KINDS, at),
        keep=_integer(row, "keep", at, low=1, high=100),
        seed=_choice(row, "seed", ("", "sample"), at),
        web=_record(Web, row, "web", at),
        batch=_integer(row, "batch", at, low=0),
        max_unavailable=_integer(row, "max_unavailable", at, low=0),
        budget=_record(Budget, row, "budget", at),
        pages=_listed(row, "smoke", "pages", at),
        config=_config(row, at),
        **_secrets(row, at),
        fleet=_fleet(row, at) if row["target"] == "ssh" else None,
    )


def _refuse_unknown(row: Mapping[str, Any], known: tuple[str, ...], at: Any) -> None:
    for key in row:
        if key not in known:
            raise Usage(
                f'unknown key "{key}"', where=at(key), allowed=", ".join(sorted(known))
            )


def _typed(row: Mapping[str, Any], key: str, kind: type, allowed: str, at: Any) -> Any:
    value = row.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        said = "is missing" if value is None else f"has the value {value!r}"
        raise Usage(f'the key "{key}" {said}', where=at(key), allowed=allowed)
    return value


def _integer(
    row: Mapping[str, Any], key: str, at: Any, *, low: int = 1, high: int = 86_400
) -> int:
    allowed = f"a whole number from {low} to {high}"
    value = _typed(row, key, int, allowed, at)
    if not low <= value <= high:
        raise Usage(
            f'the key "{key}" has the value {value}', where=at(key), allowed=allowed
        )
    return value


def _choice(row: Mapping[str, Any], key: str, known: tuple[str, ...], at: Any) -> str:
    value = row.get(key)
    if value not in known:
        raise Usage(
            f'the key "{key}" has the value {value!r}',
            where=at(key),
            allowed=", ".join(repr(word) for word in known),
        )
    return value


def _source(name: str, row: Mapping[str, Any], file: Path, at: Any) -> str:
    """Return the environment that must have passed what comes here, "" for none."""
    others = [other for other in _read(file) if other != name]
    return _choice(row, "promotes_from", ("", *others), at)


def _words(row: Mapping[str, Any], key: str, at: Any) -> tuple[str, ...]:
    value = _typed(row, key, list, "a list of words", at)
    for word in value:
        if not isinstance(word, str):
            raise Usage(
                f'the key "{key}" holds {word!r}',
                where=at(key),
                allowed="a list of words",
            )
    return tuple(value)


def _listed(row: Mapping[str, Any], table: str, key: str, at: Any) -> tuple[str, ...]:
    """Return the one list that a table holds."""

    def inside(name: str) -> str:
        return at(table, name)

    found = _typed(row, table, dict, "a table", at)
    _refuse_unknown(found, (key,), inside)
    return _words(found, key, inside)


def _secrets(row: Mapping[str, Any], at: Any) -> dict[str, Any]:
    """Return what is taken from the deployer's environment, and under which names."""

    def inside(name: str) -> str:
        return at("secrets", name)

    found = {
        "required": [],
        "sticky": [],
        "common": [],
        "suffix": "",
        **_typed(row, "secrets", dict, "a table", at),
    }
    known = ("from_environment", "required", "sticky", "common", "suffix")
    _refuse_unknown(found, known, inside)
    taken = _words(found, "from_environment", inside)
    some = {key: _words(found, key, inside) for key in ("sticky", "common")}
    for key, names in some.items():
        if not {*names} <= {*taken}:
            raise Usage(
                f'the key "{key}" has the value {list(names)}',
                where=inside(key),
                allowed=f"names in from_environment: {', '.join(taken)}",
            )
    return {
        "from_environment": taken,
        **some,
        "required": _words(found, "required", inside),
        "suffix": _typed(found, "suffix", str, "the end of a variable's name", inside),
    }


def _fleet(row: Mapping[str, Any], at: Any) -> Fleet:
    """Return how an environment's hosts are found."""

    def inside(name: str) -> str:
        return at("fleet", name)

    table = _typed(row, "fleet", dict, "a table", at)
    _refuse_unknown(table, tuple(field.name for field in fields(Fleet)), inside)
    for key, pattern, allowed in (
        ("hosts", r"[A-Z][A-Z0-9_]*", "the name of a variable"),
        ("balancers", r"[A-Z][A-Z0-9_]*", "the name of a variable"),
        ("url", r"[A-Z][A-Z0-9_]*", "the name of a variable"),
        ("root", r"\w[\w-]*(/\w[\w-]*)+", "a folder below the home folder: a/b"),
    ):
        value = _typed(table, key, str, allowed, inside)
        if not re.fullmatch(pattern, value):
            raise Usage(
                f'the key "{key}" has the value {value!r}',
                where=inside(key),
                allowed=allowed,
            )
    return Fleet(
        hosts=table["hosts"],
        url=table["url"],
        root=table["root"],
        memory=_integer(table, "memory", inside, low=64, high=1_000_000),
        balancers=table["balancers"],
        public=_integer(table, "public", inside, high=65535),
        leave=_integer(table, "leave", inside, high=600),
        canary=_integer(table, "canary", inside),
    )


def _record(kind: type, row: Mapping[str, Any], key: str, at: Any) -> Any:
    table = _typed(row, key, dict, "a table", at)
    names = tuple(field.name for field in fields(kind))

    def inside(name: str) -> str:
        return at(key, name)

    _refuse_unknown(table, names, inside)
    # No time to watch is a choice, no time to boot is a mistake.
    return kind(
        **{
            name: _integer(table, name, inside, low=0 if name == "watch" else 1)
            for name in names
        }
    )


def _config(row: Mapping[str, Any], at: Any) -> dict[str, str]:
    table = _typed(row, "config", dict, "a table", at)
    for name, value in table.items():
        if not isinstance(value, str):
            raise Usage(
                f"the variable {name} has the value {value!r}",
                where=at("config", name),
                allowed="text in quotes",
            )
    return dict(table)
