"""The rules in PromQL, and what Prometheus is told to scrape. Pure.

Documents are mappings that go out as JSON, which is YAML too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ops.alerts.rules import (
    Absent,
    Burning,
    Down,
    Mean,
    Promise,
    Ratio,
    Rule,
    Series,
    Slow,
    Value,
    promises,
)
from ops.alerts.site import Site
from ops.alerts.thresholds import Alerts

#: Names of the rule files.
RULES, SLO = "rules.yml", "slo.yml"
#: What an alert is about; hosts and workers of a service are summed.
BY = "env, service"
_SPECIAL = re.compile(r"([\\.+*?()|\[\]{}^$])")
_SHOWN = {
    "share": "{{ $value | humanizePercentage }}",
    "seconds": "{{ $value | humanizeDuration }}",
    "bytes": "{{ $value | humanize1024 }}B",
    "": "{{ $value }}",
}
# More series than this from one host are a defect of it, not something to store.
_MOST_SAMPLES = 20_000


def rule_files(
    alerts: Alerts, rules: Sequence[Rule], environments: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return the rule files that watch these environments, by name.

    Promises have a file of their own: they are recorded first, and judged more slowly.
    """

    def judged(rules: Sequence[Rule]) -> list[dict[str, Any]]:
        return [
            _alert(rule, labels, expression)
            for rule in rules
            for labels, expression in _asked(rule, alerts, environments)
        ]

    burning = [rule for rule in rules if isinstance(rule.about, Burning)]
    others = [rule for rule in rules if not isinstance(rule.about, Burning)]
    return {
        RULES: _group("alerts", alerts.rhythm.evaluate, judged(others)),
        SLO: _group(
            "slo", recorded_every(alerts), [*records(alerts), *judged(burning)]
        ),
    }


def _group(name: str, every: float, rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {"groups": [{"name": name, "interval": length(every), "rules": rules}]}


def configuration(alerts: Alerts, site: Site) -> dict[str, Any]:
    """Return what Prometheus is started with; its rules lie beside it."""
    return {
        "global": {
            "scrape_interval": length(alerts.rhythm.scrape),
            "scrape_timeout": length(alerts.rhythm.scrape_timeout),
            "evaluation_interval": length(alerts.rhythm.evaluate),
        },
        "rule_files": [RULES, SLO],
        "alerting": {
            "alertmanagers": [{"static_configs": [{"targets": [site.alertmanager]}]}]
        },
        "scrape_configs": [_scrape(name, alerts, site) for name in site.environments],
    }


def _scrape(name: str, alerts: Alerts, site: Site) -> dict[str, Any]:
    service = alerts.monitoring.service
    said: dict[str, Any] = {
        "job_name": f"{service}-{name}",
        "metrics_path": "/metrics",
        "sample_limit": _MOST_SAMPLES,
        # What a service says about itself does not change what we say about it.
        "honor_labels": False,
    }
    if site.tokens.get(name):
        said["authorization"] = {
            "type": "Bearer",
            "credentials_file": site.tokens[name],
        }
    labels = {"env": name, "service": service}
    if name in site.targets:
        found = {"targets": list(site.targets[name]), "labels": labels}
        return {**said, "static_configs": [found]}
    replaced = [{"target_label": key, "replacement": labels[key]} for key in labels]
    return {
        **said,
        "file_sd_configs": [{"files": [f"targets/{name}.json"]}],
        "relabel_configs": replaced,
    }


# PromQL -------------------------------------------------------------------------------


def _asked(
    rule: Rule, alerts: Alerts, environments: Sequence[str]
) -> list[tuple[dict[str, str], str]]:
    """Return what a rule asks and with which labels: of what is not there, by name."""
    if not isinstance(rule.about, Absent):
        return [({}, expression(rule, alerts))]
    of = rule.about.of
    named = [(name, {"env": name, **of.match}) for name in environments]
    return [
        ({"env": name}, f"absent({selector(Series(of.metric, match))})")
        for name, match in named
    ]


def expression(rule: Rule, alerts: Alerts) -> str:
    """Return what a rule asks of what is there."""
    beyond = f"{rule.op} {rule.threshold:.10g}"
    match rule.about:
        case Ratio(part, whole, window, least):
            every = total(whole, window)
            enough = f"{every} >= {_per_second(least, window)}"
            return f"{total(part, window)} / {every} {beyond} and {enough}"
        case Slow(of, _, window, least):
            enough = f"{counted(of, window)} >= {_per_second(least, window)}"
            return f"{slow(rule.about, window)} {beyond} and {enough}"
        case Mean(of, window, least):
            every = counted(of, window)
            enough = f"{every} >= {_per_second(least, window)}"
            return f"{mean(of, window)} {beyond} and {enough}"
        case Value(of, over):
            value = selector(of)
            if over:
                whole = selector(Series(over, of.match, of.unless))
                value = f"{value} / {whole}"
            return f"{value} {beyond}"
        case Down(every):
            up = selector(Series("up", {"service": alerts.monitoring.service}))
            return f"max by ({BY}) ({up}) {beyond}" if every else f"{up} {beyond}"
        case Burning(slo, long, short, least):
            burnt = [
                f'slo:bad:ratio_{length(each)}{{slo="{slo}"}} {beyond}'
                for each in (long, short)
            ]
            # Counted by what was recorded: a monitor that has just been started has
            # seen little, whatever its windows are.
            rate = f"slo:requests:rate_{_base(alerts)}[{length(long)}]"
            traffic = f"{recorded_every(alerts):g} * sum_over_time({rate})"
            return f"{' and '.join(burnt)} and on ({BY}) {traffic} >= {least}"
    raise AssertionError(f"no expression for {rule.about}")


def records(alerts: Alerts) -> list[dict[str, Any]]:
    """Return the recording rules: rates over the shortest window, ratios over all.

    A ratio over a long window is that of the mean rates: what was recorded is read
    instead of each sample of each route, which over three days would be millions.
    """
    base = _base(alerts)
    seconds = min(burn.short for burn in alerts.burns)
    requests = f"slo:requests:rate_{base}"
    every = Series("http_requests_total", {}, promises(alerts)[0].bad.unless)
    found: list[dict[str, Any]] = [
        {"record": requests, "expr": total(every, seconds)},
    ]
    windows = sorted(
        {each for burn in alerts.burns for each in (burn.short, burn.long)}
    )
    for promise in promises(alerts):
        label = {"slo": promise.name}
        bad = f"slo:bad:rate_{base}"
        # Where nothing was bad yet there is no series, which is not the same as none.
        found.append(
            {
                "record": bad,
                "expr": f"{_bad(promise, seconds)} or 0 * {requests}",
                "labels": label,
            }
        )
        for window in windows:
            over = f'avg_over_time({bad}{{slo="{promise.name}"}}[{length(window)}])'
            of = f"avg_over_time({requests}[{length(window)}])"
            found.append(
                {
                    "record": f"slo:bad:ratio_{length(window)}",
                    "expr": f"{over} / on ({BY}) {of}",
                    "labels": label,
                }
            )
    return found


def recorded_every(alerts: Alerts) -> float:
    """Return how often promises are judged, in seconds: their windows are long."""
    return 3 * alerts.rhythm.evaluate


def _base(alerts: Alerts) -> str:
    return length(min(burn.short for burn in alerts.burns))


def _bad(promise: Promise, window: float) -> str:
    """Return the rate of requests that break a promise."""
    if isinstance(promise.bad, Slow):
        of, within = promise.bad.of, _bucket(promise.bad)
        return f"{counted(of, window)} - {total(within, window)}"
    return total(promise.bad, window)


def slow(about: Slow, window: float) -> str:
    """Return the share of observations above the bound."""
    within = total(_bucket(about), window)
    return f"1 - {within} / {counted(about.of, window)}"


def mean(series: Series, window: float) -> str:
    """Return the mean of a histogram's observations."""
    return f"{total(_named(series, '_sum'), window)} / {counted(series, window)}"


def counted(series: Series, window: float) -> str:
    """Return the rate of a histogram's observations."""
    return total(_named(series, "_count"), window)


def total(series: Series, window: float) -> str:
    """Return a counter's rate, summed over what an alert is about."""
    return f"sum by ({BY}) (rate({selector(series)}[{length(window)}]))"


def selector(series: Series) -> str:
    """Return what selects the samples of a series."""
    matchers = [
        f"{name}{_matching(value, True)}" for name, value in series.match.items()
    ]
    for name, said in series.unless.items():
        values = (said,) if isinstance(said, str) else said
        matchers += [f"{name}{_matching(value, False)}" for value in values]
    return series.metric + (f"{{{', '.join(matchers)}}}" if matchers else "")


def _matching(value: str, yes: bool) -> str:
    if value.endswith("*"):
        pattern = _SPECIAL.sub(r"\\\1", value[:-1]) + ".*"
        return ("=~" if yes else "!~") + json.dumps(pattern, ensure_ascii=False)
    return ("=" if yes else "!=") + json.dumps(value, ensure_ascii=False)


def _bucket(about: Slow) -> Series:
    named = _named(about.of, "_bucket")
    # As prometheus-client writes a bound: "10.0".
    match = {**named.match, "le": repr(float(about.le))}
    return Series(named.metric, match, named.unless)


def _named(series: Series, ending: str) -> Series:
    return Series(series.metric + ending, series.match, series.unless)


def _per_second(least: int, window: float) -> str:
    return f"{round(least / window, 9):.10g}"


def length(seconds: float) -> str:
    """Return a time as Prometheus writes it: "30s", "5m", "3d"."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{round(seconds * 1000)}ms"


def _alert(rule: Rule, more: Mapping[str, str], asked: str) -> dict[str, Any]:
    labels = {"severity": rule.severity, **more}
    if isinstance(rule.about, Burning):
        labels["slo"] = rule.about.slo
        labels["burn"] = f"{length(rule.about.long_s)}/{length(rule.about.short_s)}"
    said: dict[str, Any] = {"alert": rule.alert, "expr": asked}
    if rule.for_s:
        said["for"] = length(rule.for_s)
    annotations = {
        "summary": rule.summary,
        "do": rule.hint.replace("{env}", "{{ $labels.env }}"),
        "runbook": rule.runbook,
    }
    if not isinstance(rule.about, (Absent, Down)) and rule.shown:
        annotations["value"] = _SHOWN[rule.shown]
    return {**said, "labels": labels, "annotations": annotations}
