"""What alerts.toml says, validated on load: numbers with units, people, channels."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ops.errors import Usage

FILE = Path(__file__).resolve().parent.parent / "alerts.toml"
SEVERITIES = ("critical", "warning")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_BYTES = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_WORD = re.compile(r"[a-z][a-z0-9_-]{0,30}")
_ADDRESS = re.compile(r"[^@\s,<>]+@[^@\s,<>]+")


def duration(value: object) -> float:
    """Return the seconds in "500ms", "10s", "2m", "4h" or "3d"."""
    match = re.fullmatch(rf"{_NUMBER}(ms|s|m|h|d)", value if _is_text(value) else "")
    if not match or not float(match[1]):
        raise ValueError('a time above 0 such as "500ms", "10s", "2m", "4h" or "3d"')
    return round(float(match[1]) * _SECONDS[match[2]], 6)


def share(value: object) -> float:
    """Return the share, 0 to 1, in "5%"."""
    match = re.fullmatch(rf"{_NUMBER}%", value if _is_text(value) else "")
    if not match or not 0 < float(match[1]) < 100:
        raise ValueError('a share above 0 % and below 100 %, such as "5%"')
    return round(float(match[1]) / 100, 9)


def size(value: object) -> float:
    """Return the bytes in "512MiB"."""
    match = re.fullmatch(rf"{_NUMBER}(KiB|MiB|GiB)", value if _is_text(value) else "")
    if not match or not float(match[1]):
        raise ValueError('a size above 0 such as "512MiB"')
    return float(match[1]) * _BYTES[match[2]]


def count(value: object) -> int:
    """Return a whole number above 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("a whole number above 0")
    return value


def _port(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 65536:
        raise ValueError("a port from 1 to 65535, or 0 for a free one")
    return value


def _factor(value: object) -> float:
    if not isinstance(value, float) or not 1 <= value <= 1000:
        raise ValueError("a number from 1.0 to 1000.0")
    return value


def _severity(value: object) -> str:
    if value not in SEVERITIES:
        raise ValueError(", ".join(repr(word) for word in SEVERITIES))
    return str(value)


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _text(value: object) -> str:
    if not _is_text(value) or not value:
        raise ValueError("a text that is not empty")
    return str(value)


def _channel(value: object) -> str:
    if not _is_text(value) or not re.fullmatch(r"#[a-z0-9_-]{1,79}", str(value)):
        raise ValueError('a Slack channel such as "#staging-alerts"')
    return str(value)


def _variable(value: object) -> str:
    if not _is_text(value) or not re.fullmatch(r"[A-Z][A-Z0-9_]*", str(value)):
        raise ValueError("letters A to Z, digits and _")
    return str(value)


def _address(value: object) -> str:
    if not _is_text(value) or not _ADDRESS.fullmatch(str(value)):
        raise ValueError("an address such as team@example.org")
    return str(value)


def _host_port(value: object) -> str:
    if not _is_text(value) or not re.fullmatch(r"[A-Za-z0-9.-]+:[0-9]+", str(value)):
        raise ValueError('host and port such as "mail.example.org:587"')
    return str(value)


def _folder(value: object) -> str:
    if not _is_text(value) or not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", str(value)):
        raise ValueError('an absolute folder such as "/etc/mltrading"')
    return str(value)


def _some(each: Callable[[object], Any], what: str) -> Callable[[object], Any]:
    def read(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            raise ValueError(f"a list of {what} that is not empty")
        return tuple(each(one) for one in value)

    return read


_addresses = _some(_address, "addresses")
_words = _some(_text, "names")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _read(by: Callable[[object], Any], name: str = "") -> Any:
    """Say by which function a field is read, and its key where that is no name."""
    return field(metadata={"by": by, "key": name})


@dataclass(frozen=True, slots=True)
class Level:
    """The thresholds of one severity: seconds, and shares from 0 to 1."""

    response_time_p95: float = _read(duration)
    error_rate: float = _read(share)
    memory_usage: float = _read(share)
    disk_free: float = _read(share)


@dataclass(frozen=True, slots=True)
class Limits:
    """Further thresholds: bytes, seconds, shares, a number of charts."""

    worker_memory: float = _read(size)
    chart_time: float = _read(duration)
    chart_share: float = _read(share)
    chart_least: int = _read(count)
    query_mean: float = _read(duration)
    pool_used: float = _read(share)


@dataclass(frozen=True, slots=True)
class Pace:
    """How a severity is judged and told: seconds, and requests in the window."""

    window: float = _read(duration)
    for_: float = _read(duration, "for")
    group_wait: float = _read(duration)
    repeat: float = _read(duration)
    least: int = _read(count)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often is asked and judged, in seconds."""

    scrape: float = _read(duration)
    scrape_timeout: float = _read(duration)
    evaluate: float = _read(duration)
    group_interval: float = _read(duration)


@dataclass(frozen=True, slots=True)
class Burn:
    """A pair of windows in seconds, and the speed at which a budget burns."""

    rate: float = _read(_factor)
    long: float = _read(duration)
    short: float = _read(duration)
    severity: str = _read(_severity)


@dataclass(frozen=True, slots=True)
class Objectives:
    """What is promised over `period` seconds, as shares; `latency_within` seconds."""

    period: float = _read(duration)
    least: int = _read(count)
    availability: float = _read(share)
    latency: float = _read(share)
    latency_within: float = _read(duration)


@dataclass(frozen=True, slots=True)
class Mail:
    """Who sends, and through which server (host:port)."""

    sender: str = _read(_address)
    smarthost: str = _read(_host_port)


@dataclass(frozen=True, slots=True)
class Group:
    """People: their addresses, and the variable that replaces them."""

    addresses: tuple[str, ...] = _read(_addresses)
    variable: str = _read(_variable)


@dataclass(frozen=True, slots=True)
class Audience:
    """Who hears about an environment; `suffix` is that of its variables."""

    title: str = _read(_text)
    channel: str = _read(_channel)
    urgent: bool = _read(_truth)
    suffix: str = _read(_variable)


@dataclass(frozen=True, slots=True)
class Monitoring:
    """What Prometheus and Alertmanager are told about where they run."""

    service: str = _read(_text)
    environments: tuple[str, ...] = _read(_words)
    prometheus_port: int = _read(_port)
    alertmanager_port: int = _read(_port)
    secrets: str = _read(_folder)


@dataclass(frozen=True, slots=True)
class Alerts:
    """All of alerts.toml."""

    levels: Mapping[str, Level]
    limits: Limits
    rhythm: Rhythm
    paces: Mapping[str, Pace]
    objectives: Objectives
    burns: tuple[Burn, ...]
    mail: Mail
    groups: Mapping[str, Group]
    told: Mapping[str, tuple[str, ...]]
    audiences: Mapping[str, Audience]
    monitoring: Monitoring

    def people(self, severity: str, environ: Mapping[str, str]) -> tuple[str, ...]:
        """Return the addresses that get mail of a severity; variables of environ win.

        Raises:
            Usage: a variable holds no addresses.
        """
        groups = self.told[severity]
        found = [one for name in groups for one in self.addresses(name, environ)]
        return tuple(dict.fromkeys(found))

    def addresses(self, name: str, environ: Mapping[str, str]) -> tuple[str, ...]:
        """Return the addresses of a group; raises as `people` does."""
        group = self.groups[name]
        said = environ.get(group.variable, "").split(",")
        given = tuple(word.strip() for word in said if word.strip())
        if not all(_ADDRESS.fullmatch(word) for word in given):
            raise Usage(
                f"{group.variable} holds something that is no address",
                where=f"the variable {group.variable}",
                allowed="addresses with commas between: a@b.org,c@b.org",
            )
        return given or group.addresses


def load(file: Path = FILE) -> Alerts:
    """Return what a file says.

    Raises:
        Usage: an unknown or missing key, or a value of the wrong kind; the message
            holds the path of the key and what is allowed.
    """
    try:
        return parse(file.read_text(), file.name)
    except OSError as error:
        raise Usage(
            f"can't be read: {error.strerror}", where=str(file), next="git status"
        ) from None


def parse(text: str, name: str = FILE.name) -> Alerts:
    """Return what a text says; raises as `load` does."""
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Usage(
            f"not valid TOML: {error}", where=name, next=f"git diff {name}"
        ) from None
    at = _Place(name)
    known = (
        *("critical", "warning", "limits", "timing", "slo", "mail", "recipients"),
        *("told", "environments", "monitoring"),
    )
    _refuse_unknown(said, known, at)
    timing, slo = _table(said, "timing", at), _table(said, "slo", at)
    told = _table(said, "told", at)
    groups = _named(Group, said, "recipients", at)
    audiences = _named(Audience, said, "environments", at)
    _refuse_unknown(told, SEVERITIES, at.below("told"))
    found = Alerts(
        levels={
            word: _record(Level, _table(said, word, at), at.below(word))
            for word in SEVERITIES
        },
        limits=_record(Limits, _table(said, "limits", at), at.below("limits")),
        rhythm=_record(Rhythm, timing, at.below("timing"), beside=SEVERITIES),
        paces={
            word: _record(
                Pace,
                _table(timing, word, at.below("timing")),
                at.below("timing", word),
            )
            for word in SEVERITIES
        },
        objectives=_record(Objectives, slo, at.below("slo"), beside=("burn",)),
        burns=_burns(slo, at.below("slo")),
        mail=_record(Mail, _table(said, "mail", at), at.below("mail")),
        groups=groups,
        told={
            word: _value(_words, told, word, at.below("told")) for word in SEVERITIES
        },
        audiences=audiences,
        monitoring=_record(
            Monitoring, _table(said, "monitoring", at), at.below("monitoring")
        ),
    )
    for word in SEVERITIES:
        _refuse_others(found.told[word], groups, at.below("told"), word)
    watched = found.monitoring.environments
    _refuse_others(watched, audiences, at.below("monitoring"), "environments")
    return found


@dataclass(frozen=True, slots=True)
class _Place:
    """A table of a file; called with a key it says where that key is."""

    file: str
    tables: tuple[str, ...] = ()

    def __call__(self, key: str) -> str:
        table = f"[{'.'.join(self.tables)}] " if self.tables else ""
        return f"{self.file}: {table}{key}"

    def below(self, *tables: str) -> _Place:
        return _Place(self.file, (*self.tables, *tables))


def _refuse_unknown(table: Mapping[str, Any], known: Sequence[str], at: _Place) -> None:
    for key in table:
        if key not in known:
            raise Usage(
                f'unknown key "{key}"', where=at(key), allowed=", ".join(sorted(known))
            )


def _refuse_others(
    names: Sequence[str], known: Mapping[str, Any], at: _Place, key: str
) -> None:
    for name in names:
        if name not in known:
            raise Usage(
                f'the key "{key}" names "{name}"',
                where=at(key),
                allowed=", ".join(known),
            )


def _table(table: Mapping[str, Any], key: str, at: _Place) -> Mapping[str, Any]:
    value = table.get(key)
    if not isinstance(value, dict):
        said = "is missing" if value is None else f"has the value {value!r}"
        raise Usage(f'the table "{key}" {said}', where=at(key), allowed="a table")
    return value


def _value(
    by: Callable[[object], Any], table: Mapping[str, Any], key: str, at: _Place
) -> Any:
    value = table.get(key)
    try:
        return by(value)
    except ValueError as error:
        said = "is missing" if value is None else f"has the value {value!r}"
        raise Usage(
            f'the key "{key}" {said}', where=at(key), allowed=str(error)
        ) from None


def _record(
    kind: type, table: Mapping[str, Any], at: _Place, beside: Sequence[str] = ()
) -> Any:
    """Return a table as a dataclass; `beside` are tables in it that others read."""
    keys = {f.name: f.metadata["key"] or f.name for f in fields(kind)}
    _refuse_unknown(table, (*keys.values(), *beside), at)
    return kind(
        **{
            f.name: _value(f.metadata["by"], table, keys[f.name], at)
            for f in fields(kind)
        }
    )


def _named(kind: type, said: Mapping[str, Any], key: str, at: _Place) -> dict[str, Any]:
    """Return a table of tables by their names."""
    found = {}
    for name in _table(said, key, at):
        if not _WORD.fullmatch(name):
            raise Usage(
                f'"{name}" is no name',
                where=at.below(key)(name),
                allowed="small letters, digits, - and _",
            )
        row = _table(said[key], name, at.below(key))
        found[name] = _record(kind, row, at.below(key, name))
    return found


def _burns(slo: Mapping[str, Any], at: _Place) -> tuple[Burn, ...]:
    rows = slo.get("burn")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Usage(
            'the key "burn" is no list of tables',
            where=at("burn"),
            allowed="[[slo.burn]], one for each pair of windows",
        )
    return tuple(
        _record(Burn, row, at.below(f"burn {number}"))
        for number, row in enumerate(rows, 1)
    )
