"""Decide which alerts are pending and which fire: values in and out, no clock, no file.

The states are those of Prometheus. An answer beyond its threshold is pending; after
``for_s`` seconds without a break it fires; the first answer that is not beyond it ends
it. Each set of labels is an alert of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mltrading_health.watch.rules import Labels, Level, Mean, Ratio, Rule
from mltrading_health.watch.series import History

PENDING, FIRING, RESOLVED = "pending", "firing", "resolved"
NO_LABELS: Labels = frozenset()
#: Seconds until a service that has just begun has asked its checks: before that a level
#: that is well says nothing about the one that a process before it has seen.
SETTLED_S = 10.0


@dataclass(frozen=True, slots=True)
class Alert:
    """Name an alert: its rule, and the series that it is about."""

    name: str
    severity: str
    labels: Labels = NO_LABELS


@dataclass(frozen=True, slots=True)
class Active:
    """Hold the state of an alert that is not at rest.

    ``since`` is when its answer was first beyond the threshold, on the clock of the
    history. ``inherited``: taken over from a process that has ended, whose history went
    with it.
    """

    phase: str
    since: float
    value: float
    inherited: bool = False


State = Mapping[Alert, Active]


@dataclass(frozen=True, slots=True)
class Transition:
    """Say that an alert is now pending, firing or resolved."""

    alert: Alert
    to: str
    at: float
    since: float
    value: float


def evaluate(
    rules: Iterable[Rule], history: History, now: float, state: State
) -> tuple[State, tuple[Transition, ...]]:
    """Return the state at a time and what became of it since the last one.

    An alert whose rule is gone resolves.
    """
    after: dict[Alert, Active] = {}
    changes = []
    for rule in rules:
        beyond = {
            Alert(rule.alert, rule.severity, labels): value
            for labels, value in answers(rule, history, now).items()
            if rule.broken_by(value)
        }
        for alert, value in beyond.items():
            active = _beyond(rule, state.get(alert), value, now)
            after[alert] = active
            if alert not in state or state[alert].phase != active.phase:
                changes.append(
                    Transition(alert, active.phase, now, active.since, value)
                )
        for alert, active in state.items():
            if (alert.name, alert.severity) != (rule.alert, rule.severity):
                continue
            if alert not in beyond and _unknown(rule, active, history, now):
                after[alert] = active
            elif alert in beyond and active.inherited and _covers(rule, history, now):
                after[alert] = replace(after[alert], inherited=False)
    for alert, active in state.items():
        if alert not in after and active.phase == FIRING:
            changes.append(Transition(alert, RESOLVED, now, active.since, active.value))
    return after, tuple(changes)


def _beyond(rule: Rule, before: Active | None, value: float, now: float) -> Active:
    """Return the state of an alert whose answer is beyond the threshold."""
    if before is None:
        before = Active(PENDING, now, value)
    ripe = before.phase == FIRING or now - before.since >= rule.for_s
    return replace(before, phase=FIRING if ripe else PENDING, value=value)


def _unknown(rule: Rule, active: Active, history: History, now: float) -> bool:
    """Tell whether "not beyond" says nothing: our history is younger than the alert.

    One that fires stays until a whole window says that it is over, one that is pending
    until there is any answer. A level has no window, but must have been measured.
    """
    if not active.inherited:
        return False
    if active.phase == PENDING and not isinstance(rule.asks, Level):
        return history.snapshots < 2
    return not _covers(rule, history, now)


def _covers(rule: Rule, history: History, now: float) -> bool:
    asks, first = rule.asks, history.first_at
    needed = SETTLED_S if isinstance(asks, Level) else asks.window_s
    return first is not None and first <= now - needed


def adopted(state: State, now: float) -> State:
    """Return the state of a process that has ended as that of the one that follows.

    The clock may have begun anew in between: no alert began in the future.
    """
    return {
        alert: replace(active, since=min(active.since, now), inherited=True)
        for alert, active in state.items()
    }


def answers(rule: Rule, history: History, now: float) -> dict[Labels, float]:
    """Return the answer to a rule's question for each set of labels that has one."""
    asks = rule.asks
    if isinstance(asks, Level):
        return _levels(asks, history, now)
    if isinstance(asks, Ratio):
        above, below = asks.part, asks.whole
    elif isinstance(asks, Mean):
        above, below = asks.sum, asks.count
    else:
        above, below = asks.fast, asks.count
    part = history.rate(above, asks.window_s, now)
    whole = history.rate(below, asks.window_s, now)
    if part is None or whole is None or not whole >= asks.min_per_s:
        return {}
    value = _share(part, whole)
    return {NO_LABELS: value if isinstance(asks, Ratio | Mean) else 1 - value}


def _levels(asks: Level, history: History, now: float) -> dict[Labels, float]:
    found = history.values(asks.of, now)
    if asks.over is None:
        return found
    whole = history.values(asks.over, now)
    return {
        labels: _share(value, whole[labels])
        for labels, value in found.items()
        if labels in whole
    }


def _share(part: float, whole: float) -> float:
    """Divide as PromQL does, where nothing of nothing is not a number."""
    if whole:
        return part / whole
    return math.nan if not part or math.isnan(part) else math.copysign(math.inf, part)


def inhibited(state: State) -> frozenset[Alert]:
    """Return the warnings of which people need not hear: the critical one fires."""
    return frozenset(
        alert
        for alert in state
        if alert.severity == "warning"
        and (above := state.get(replace(alert, severity="critical"))) is not None
        and above.phase == FIRING
    )
