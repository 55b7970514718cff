"""Read alerts.json: what to watch, from when on it is bad, and who hears of it.

The file is generated from ops/alerts.toml, as are the rules for Prometheus. A key that
is not known is refused with its path: a threshold with a typo would watch nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

#: The labels of one series; (name, value) pairs in no order.
Labels = frozenset[tuple[str, str]]
FORMAT = 1
# Reserved by RFC 2606: no mail ever gets there.
PLACEHOLDER = ".example"
SEVERITIES = ("critical", "warning")
UNITS = ("share", "seconds", "bytes", "")
#: Seconds. History is kept in memory, so a window has an end.
LONGEST_WINDOW = 600.0


class RulesError(ValueError):
    """Say what in alerts.json can't be used, where, and what is allowed."""


@dataclass(frozen=True, slots=True)
class Selector:
    """Choose series of one metric: all of ``match``, none of ``unless``.

    A value that ends with * stands for all that begin like it. ``le`` is the bound of a
    histogram's bucket, compared as a number: "10" and "10.0" are the same bound.
    """

    metric: str
    match: Labels = frozenset()
    unless: Labels = frozenset()
    le: float | None = None

    def takes(self, labels: Labels) -> bool:
        """Tell whether a series with these labels is chosen."""
        if not all(_found(label, labels) for label in self.match):
            return False
        if any(_found(label, labels) for label in self.unless):
            return False
        if self.le is None:
            return True
        return any(name == "le" and float(text) == self.le for name, text in labels)


def _found(label: tuple[str, str], labels: Labels) -> bool:
    name, text = label
    if not text.endswith("*"):
        return label in labels
    return any(n == name and t.startswith(text[:-1]) for n, t in labels)


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ask which share of one rate another one is, over a window of seconds."""

    part: Selector
    whole: Selector
    window_s: float
    min_per_s: float


@dataclass(frozen=True, slots=True)
class Slow:
    """Ask which share of a histogram's observations lies above a bound."""

    fast: Selector
    count: Selector
    window_s: float
    min_per_s: float


@dataclass(frozen=True, slots=True)
class Mean:
    """Ask for the mean of a histogram's observations over a window."""

    sum: Selector
    count: Selector
    window_s: float
    min_per_s: float


@dataclass(frozen=True, slots=True)
class Level:
    """Ask for the value of each series now, or for its share of another metric."""

    of: Selector
    over: Selector | None = None


Question = Ratio | Slow | Mean | Level


@dataclass(frozen=True, slots=True)
class Rule:
    """Fire when the answer is beyond a threshold for some seconds.

    ``unit`` is that of the answer: share, seconds, bytes or "". In ``hint``, the
    command to type next, {env} stands for the environment.
    """

    alert: str
    severity: str
    asks: Question
    op: str
    threshold: float
    for_s: float
    unit: str
    summary: str
    hint: str
    runbook: str

    def broken_by(self, value: float) -> bool:
        """Tell whether a value is beyond the threshold; NaN never is."""
        return value > self.threshold if self.op == ">" else value < self.threshold

    def said(self, value: float) -> str:
        """Return a value in the unit of this rule."""
        if not math.isfinite(value):
            return str(value)
        match self.unit:
            case "share":
                return f"{100 * value:.3g} %"
            case "seconds":
                return f"{value:.3g} s"
            case "bytes":
                return f"{value / 2**20:.1f} MiB"
        return f"{value:.6g}"


@dataclass(frozen=True, slots=True)
class Environment:
    """Say who hears of an environment.

    ``mail`` has addresses by severity, ``groups`` the same by what variable replaces
    those of one group. ``suffix`` is that of the variable with its webhook.
    """

    name: str
    title: str
    channel: str
    urgent: bool
    suffix: str
    mail: Mapping[str, tuple[str, ...]]
    groups: Mapping[str, Mapping[str, tuple[str, ...]]]
    sender: str

    def with_people(self, environ: Mapping[str, str]) -> Environment:
        """Return it with the people that variables name, where they name any.

        An address below ``.example`` is a placeholder, and reaches nobody.
        """
        mail = {}
        for severity, groups in self.groups.items():
            found: dict[str, None] = {}
            for variable, addresses in groups.items():
                said = environ.get(variable, "").split(",")
                given = [each.strip() for each in said if each.strip()]
                found |= dict.fromkeys(given or addresses)
            mail[severity] = tuple(a for a in found if not a.endswith(PLACEHOLDER))
        return replace(self, mail=mail, sender=environ.get("MAIL_FROM") or self.sender)

    def webhook(self, environ: Mapping[str, str]) -> str:
        """Return the address of its own Slack webhook, else the common one, or ""."""
        own = environ.get(f"SLACK_WEBHOOK_URL_{self.suffix}", "")
        return own or environ.get("SLACK_WEBHOOK_URL", "")


@dataclass(frozen=True, slots=True)
class Alerts:
    """Hold what alerts.json says.

    ``left_out`` names what needs a Prometheus, ``repeat_s`` when people are told again,
    by severity.
    """

    interval_s: float
    repeat_s: Mapping[str, float]
    rules: tuple[Rule, ...]
    left_out: tuple[str, ...]
    environments: Mapping[str, Environment]
    thresholds: Mapping[str, float | Mapping[str, float]]

    def environment(self, name: str) -> Environment:
        """Return an environment by name.

        Raises:
            RulesError: there is none of that name.
        """
        found = self.environments.get(name)
        if found is None:
            known = ", ".join(sorted(self.environments)) or "none"
            raise RulesError(f"environments: no {name!r}; known: {known}")
        return found


def load(path: Path) -> Alerts:
    """Read a file.

    Raises:
        RulesError: it is no JSON, or says what is not known.
        OSError: it can't be read.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RulesError(f"{path.name}: no JSON: {error}") from error
    try:
        return parse(document)
    except RulesError as error:
        raise RulesError(f"{path.name}: {error}") from error


def parse(document: object) -> Alerts:
    """Return the alerts of a parsed document; pure.

    Raises:
        RulesError: a key or a value is not known.
    """
    top = Reader(document, "")
    if (found := top.number("format")) != FORMAT:
        raise RulesError(f"format: {found:g} is not known; allowed: {FORMAT}")
    interval = top.number("interval_s", least=0.001)
    repeat = top.table("repeat_s")
    repeat_s = {severity: repeat.number(severity, least=1) for severity in SEVERITIES}
    repeat.end()
    environments = {
        name: _environment(name, each) for name, each in top.tables("environments")
    }
    rules: dict[tuple[str, str], Rule] = {}
    left_out = []
    for each in top.list("rules"):
        if each.text("only", allowed=("", "prometheus"), default=""):
            left_out.append(each.text("alert"))
            continue  # what else it says is for others
        rule = _rule(each)
        if rules.setdefault((rule.alert, rule.severity), rule) is not rule:
            raise RulesError(f"{each.path}: a second {rule.severity} {rule.alert}")
    thresholds = top.numbers("thresholds")
    top.end()
    return Alerts(
        interval_s=interval,
        repeat_s=repeat_s,
        rules=tuple(rules.values()),
        left_out=tuple(dict.fromkeys(left_out)),
        environments=environments,
        thresholds=thresholds,
    )


class Reader:
    """Take values out of a table by name, and refuse what nobody took."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise RulesError(f"{path or 'document'}: a table is wanted, not {value!r}")
        self.path = path
        self._left: dict[str, Any] = dict(value)
        self._taken: list[str] = []

    def keys(self) -> list[str]:
        """Return the names that are left."""
        return list(self._left)

    def take(self, key: str, default: object = ...) -> Any:
        """Return a value."""
        self._taken.append(key)
        if key not in self._left:
            if default is ...:
                raise RulesError(f"{self.at(key)}: missing")
            return default
        return self._left.pop(key)

    def number(
        self, key: str, *, least: float = -math.inf, most: float = math.inf
    ) -> float:
        """Return a finite number."""
        value = self.take(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RulesError(f"{self.at(key)}: a number is wanted, not {value!r}")
        if not (math.isfinite(value) and least <= value <= most):
            raise RulesError(f"{self.at(key)}: {value} is not in {least:g}..{most:g}")
        return float(value)

    def text(
        self, key: str, *, allowed: Collection[str] = (), default: object = ...
    ) -> str:
        """Return a text, one of those that are allowed if any are named."""
        value = self.take(key, default)
        if not isinstance(value, str):
            raise RulesError(f"{self.at(key)}: a text is wanted, not {value!r}")
        if allowed and value not in allowed:
            names = ", ".join(filter(None, allowed))
            raise RulesError(f"{self.at(key)}: {value!r}; allowed: {names}")
        return value

    def numbers(self, key: str) -> dict[str, float | dict[str, float]]:
        """Return a table of numbers and of tables of numbers."""
        table = self.table(key, {})
        found: dict[str, float | dict[str, float]] = {}
        for name in table.keys():
            if isinstance(table._left[name], dict):
                each = table.table(name)
                found[name] = {inner: each.number(inner) for inner in each.keys()}
            else:
                found[name] = table.number(name)
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts; empty if there is none."""
        value = self.take(key, [])
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise RulesError(f"{self.at(key)}: a list of texts is wanted")
        return tuple(value)

    def flag(self, key: str) -> bool:
        """Return true or false; false if it is left out."""
        value = self.take(key, False)
        if not isinstance(value, bool):
            raise RulesError(f"{self.at(key)}: true or false is wanted, not {value!r}")
        return value

    def labels(self, key: str) -> Labels:
        """Return labels; none if they are left out."""
        table = Reader(self.take(key, {}), self.at(key))
        return frozenset((name, table.text(name)) for name in table.keys())

    def excluded(self, key: str) -> Labels:
        """Return labels of which none may be there: a value, or a list of them."""
        table = Reader(self.take(key, {}), self.at(key))
        found: set[tuple[str, str]] = set()
        for name in table.keys():
            several = isinstance(table._left[name], list)
            values = table.texts(name) if several else (table.text(name),)
            found |= {(name, value) for value in values}
        return frozenset(found)

    def table(self, key: str, default: object = ...) -> Reader:
        """Return a table inside this one."""
        return Reader(self.take(key, default), self.at(key))

    def tables(self, key: str) -> list[tuple[str, Reader]]:
        """Return the tables of a table by name; none if it is left out."""
        outer = self.table(key, {})
        return [(name, outer.table(name)) for name in outer.keys()]

    def list(self, key: str) -> list[Reader]:
        """Return the tables of a list."""
        value = self.take(key)
        if not isinstance(value, list):
            raise RulesError(f"{self.at(key)}: a list is wanted, not {value!r}")
        return [Reader(each, f"{self.at(key)}[{i}]") for i, each in enumerate(value)]

    def at(self, key: str) -> str:
        """Return the path of a key."""
        return f"{self.path}.{key}" if self.path else key

    def end(self) -> None:
        """Refuse what is left."""
        for key in self._left:
            names = ", ".join(dict.fromkeys(self._taken))
            raise RulesError(f"{self.at(key)}: not known; allowed: {names}")


def _environment(name: str, table: Reader) -> Environment:
    mail = table.table("mail", {})
    groups = {severity: _group(mail, severity) for severity in SEVERITIES}
    found = Environment(
        name=name,
        title=table.text("title", default=name),
        channel=table.text("channel", default=""),
        urgent=table.flag("urgent"),
        suffix=table.text("suffix", default=name.upper()),
        mail={
            severity: tuple(dict.fromkeys(a for each in found.values() for a in each))
            for severity, found in groups.items()
        },
        groups=groups,
        sender=mail.text("sender", default=""),
    )
    _end(mail, table)
    return found


def _group(mail: Reader, severity: str) -> dict[str, tuple[str, ...]]:
    """Return the addresses that hear of a severity, by their variable."""
    table = mail.table(severity, {})
    found = {variable: table.texts(variable) for variable in table.keys()}
    table.end()
    return found


def _rule(table: Reader) -> Rule:
    kind = table.text("kind", allowed=tuple(_KINDS))
    rule = Rule(
        alert=table.text("alert"),
        severity=table.text("severity", allowed=SEVERITIES),
        asks=_KINDS[kind](table),
        op=table.text("op", allowed=(">", "<")),
        threshold=table.number("threshold"),
        for_s=table.number("for_s", least=0),
        unit=table.text("unit", allowed=UNITS, default=""),
        summary=table.text("summary"),
        hint=table.text("hint", default=""),
        runbook=table.text("runbook", default=""),
    )
    table.end()
    return rule


def _end(*tables: Reader) -> None:
    for table in tables:
        table.end()


def _selector(table: Reader) -> Selector:
    found = Selector(
        table.text("metric"), table.labels("match"), table.excluded("unless")
    )
    table.end()
    return found


def _window(table: Reader) -> tuple[float, float]:
    window = table.number("window_s", least=0.001, most=LONGEST_WINDOW)
    return window, table.number("min_per_s", least=0)


def _ratio(table: Reader) -> Ratio:
    part, whole = _selector(table.table("part")), _selector(table.table("whole"))
    return Ratio(part, whole, *_window(table))


def _slow(table: Reader) -> Slow:
    metric, match = table.text("metric"), table.labels("match")
    unless, le = table.excluded("unless"), table.number("le", least=0)
    return Slow(
        Selector(f"{metric}_bucket", match, unless, le),
        Selector(f"{metric}_count", match, unless),
        *_window(table),
    )


def _mean(table: Reader) -> Mean:
    metric, match = table.text("metric"), table.labels("match")
    unless = table.excluded("unless")
    return Mean(
        Selector(f"{metric}_sum", match, unless),
        Selector(f"{metric}_count", match, unless),
        *_window(table),
    )


def _level(table: Reader) -> Level:
    match, unless = table.labels("match"), table.excluded("unless")
    of, over = Selector(table.text("metric"), match, unless), table.take("over", None)
    if over is None:
        return Level(of)
    if not isinstance(over, str):
        raise RulesError(f"{table.at('over')}: a text or null is wanted, not {over!r}")
    return Level(of, Selector(over, match, unless))


_KINDS = {"ratio": _ratio, "slow": _slow, "mean": _mean, "level": _level}
