"""The rules as the service itself reads them, where there is no Prometheus. Pure.

Times are seconds, shares 0 to 1. A value of `match` or `unless` that ends with * stands
for all that begin like it; `unless` may hold a list of values of a label. {env} in a
hint stands for the environment. Rules that are "only"
for Prometheus ask what a service can't know of itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ops.alerts.rules import (
    Absent,
    Burning,
    Down,
    Mean,
    Ratio,
    Rule,
    Series,
    Slow,
    Value,
)
from ops.alerts.thresholds import SEVERITIES, Alerts

FORMAT = 1


def document(alerts: Alerts, rules: Sequence[Rule]) -> dict[str, Any]:
    """Return alerts.json as a mapping."""
    levels = alerts.levels
    return {
        "format": FORMAT,
        "interval_s": _number(alerts.rhythm.evaluate),
        "thresholds": {
            "memory": {word: levels[word].memory_usage for word in SEVERITIES},
            "disk_free": {word: levels[word].disk_free for word in SEVERITIES},
            "worker_memory_bytes": _number(alerts.limits.worker_memory),
        },
        "repeat_s": {word: _number(alerts.paces[word].repeat) for word in SEVERITIES},
        "environments": {
            name: {
                "title": audience.title,
                "channel": audience.channel,
                "urgent": audience.urgent,
                "suffix": audience.suffix,
                "mail": {
                    **{
                        word: {
                            alerts.groups[one].variable: list(
                                alerts.groups[one].addresses
                            )
                            for one in alerts.told[word]
                        }
                        for word in SEVERITIES
                    },
                    "sender": alerts.mail.sender,
                },
            }
            for name, audience in alerts.audiences.items()
        },
        "rules": [rule_of(rule) for rule in rules],
    }


def rule_of(rule: Rule) -> dict[str, Any]:
    """Return one rule."""
    return {
        "alert": rule.alert,
        "severity": rule.severity,
        **_about(rule),
        "op": rule.op,
        "threshold": _number(rule.threshold),
        "for_s": _number(rule.for_s),
        "unit": rule.shown,
        "summary": rule.summary,
        "hint": rule.hint,
        "runbook": rule.runbook,
    }


def _about(rule: Rule) -> Mapping[str, Any]:
    match rule.about:
        case Ratio(part, whole, window, least):
            said = {"kind": "ratio", "part": _series(part), "whole": _series(whole)}
            return {**said, **_rate(window, least)}
        case Slow(of, le, window, least):
            return {"kind": "slow", **_series(of), "le": le, **_rate(window, least)}
        case Mean(of, window, least):
            return {"kind": "mean", **_series(of), **_rate(window, least)}
        case Value(of, over):
            return {"kind": "level", **_series(of), "over": over or None}
        case Down():
            return {"kind": "down", "only": "prometheus"}
        case Absent():
            return {"kind": "absent", "only": "prometheus"}
        case Burning(slo, long, short, _):
            windows = {"long_s": _number(long), "short_s": _number(short)}
            return {"kind": "burn", "only": "prometheus", "slo": slo, **windows}


def _series(series: Series) -> dict[str, Any]:
    return {
        "metric": series.metric,
        "match": dict(series.match),
        "unless": {
            name: said if isinstance(said, str) else list(said)
            for name, said in series.unless.items()
        },
    }


def _rate(window: float, least: int) -> dict[str, Any]:
    """Return a window and the rate that `least` in it come to, per second."""
    return {"window_s": _number(window), "min_per_s": round(least / window, 9)}


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value
