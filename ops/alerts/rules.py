"""The rules that alerts.toml asks for, as values: neither PromQL nor JSON. Pure.

A rule is a question about counters and gauges (`about`), a threshold, and how long the
answer must stay beyond it. A rule that could never fire, or that one failed request
would fire, is refused here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ops.alerts.thresholds import Alerts
from ops.errors import Usage

# A rate needs two samples; of four, one that is lost leaves enough.
_SCRAPES = 4
_P95 = 0.05
# Nobody of ours asked for it: a forged output of a callback (see the dashboard).
_STRANGERS = {"route": "<unknown callback>"}
# Checks of what HighMemory and LowDisk measure: one fault is told once.
_MEASURED = {"check": ("memory_usage", "disk_space")}
# What a service keeps of its own past, to judge itself where there is no Prometheus.
_LONGEST = 600


@dataclass(frozen=True, slots=True)
class Series:
    """Samples of one metric: with all labels of `match`, without any of `unless`.

    A value that ends with * stands for all that begin like it; `unless` may name
    several values of a label.
    """

    metric: str
    match: Mapping[str, str] = field(default_factory=dict)
    unless: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ratio:
    """The share of `part` in `whole` over a window, with so many in it at least."""

    part: Series
    whole: Series
    window_s: float
    least: int


@dataclass(frozen=True, slots=True)
class Slow:
    """The share of a histogram's observations above the bound `le`."""

    of: Series
    le: float
    window_s: float
    least: int


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of a histogram's observations."""

    of: Series
    window_s: float
    least: int


@dataclass(frozen=True, slots=True)
class Value:
    """A gauge, or its share of another one; each series by itself."""

    of: Series
    over: str = ""


@dataclass(frozen=True, slots=True)
class Down:
    """A host that does not answer the scrape; `every`: no host of a service does."""

    every: bool


@dataclass(frozen=True, slots=True)
class Absent:
    """A metric that nobody gives."""

    of: Series


@dataclass(frozen=True, slots=True)
class Burning:
    """The speed at which a budget burns: bad share over both windows / budget."""

    slo: str
    long_s: float
    short_s: float
    least: int


About = Ratio | Slow | Mean | Value | Down | Absent | Burning


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert: fires when `about` is beyond the threshold for `for_s` seconds.

    `shown` is the unit of the value: share, seconds, bytes, times or "". In `hint`,
    the command to type next, {env} stands for the environment.
    """

    alert: str
    severity: str
    about: About
    op: str
    threshold: float
    for_s: float
    shown: str
    summary: str
    hint: str

    @property
    def runbook(self) -> str:
        """The part of the page on alerts that tells what to do."""
        return f"docs/how-to/alerts.md#{self.alert.lower()}"


@dataclass(frozen=True, slots=True)
class Promise:
    """An objective: its budget is the share of requests that may be bad."""

    name: str
    budget: float
    bad: Series | Slow


def promises(alerts: Alerts) -> tuple[Promise, ...]:
    """Return what is promised about requests."""
    said = alerts.objectives
    return (
        Promise(
            "availability",
            round(1 - said.availability, 9),
            Series("http_requests_total", {"status": "5xx"}, _STRANGERS),
        ),
        Promise(
            "latency",
            round(1 - said.latency, 9),
            Slow(_requests_timed(), said.latency_within, 0, said.least),
        ),
    )


def rules(alerts: Alerts, bounds: Mapping[str, Sequence[float]]) -> tuple[Rule, ...]:
    """Return all rules, critical ones first where a name has both severities.

    `bounds` are the bucket bounds of each histogram.

    Raises:
        Usage: a rule could never fire, or would fire for one request.
    """
    found = (
        *_by_severity(alerts),
        *_limits(alerts),
        *_burning(alerts),
    )
    _refuse_milder(alerts)
    for rule in found:
        _refuse_silent(rule, alerts, bounds)
    return found


def _requests_timed() -> Series:
    return Series("http_request_duration_seconds", {}, _STRANGERS)


def _by_severity(alerts: Alerts) -> list[Rule]:
    found = []
    for severity, level in alerts.levels.items():
        pace = alerts.paces[severity]

        def rule(
            alert: str, about: About, op: str, threshold: float, summary: str, hint: str
        ) -> None:
            # Bound here: it is called before the loop goes on.
            found.append(
                Rule(
                    alert, severity, about, op, threshold, pace.for_, "share",
                    summary, hint,
                )  # fmt: skip
            )

        rule(
            "HighErrorRate",
            Ratio(
                Series("http_requests_total", {"status": "5xx"}, _STRANGERS),
                Series("http_requests_total", {}, _STRANGERS),
                pace.window,
                pace.least,
            ),
            ">",
            level.error_rate,
            f"more than {_percent(level.error_rate)} of the requests fail",
            "inv logs --env {env} --since 10m --grep ERROR",
        )
        seconds = level.response_time_p95
        rule(
            "SlowResponses",
            Slow(_requests_timed(), seconds, pace.window, pace.least),
            ">",
            _P95,
            f"more than {_percent(_P95)} of the requests take over {seconds:g} s",
            "inv logs --env {env} --since 10m --grep slow",
        )
        rule(
            "HighMemory",
            Value(Series("service_memory_used_bytes"), "service_memory_limit_bytes"),
            ">",
            level.memory_usage,
            f"more than {_percent(level.memory_usage)} of the memory limit is used",
            "inv restart --env {env}",
        )
        rule(
            "LowDisk",
            Value(Series("disk_free_bytes"), "disk_size_bytes"),
            "<",
            level.disk_free,
            f"less than {_percent(level.disk_free)} of a disk is free",
            "inv prune --env {env}",
        )
    return sorted(found, key=lambda rule: rule.alert)


def _limits(alerts: Alerts) -> list[Rule]:
    critical, warning = alerts.paces["critical"], alerts.paces["warning"]
    limits, service = alerts.limits, alerts.monitoring.service
    status = "inv status --env {env}"
    return [
        Rule(
            "WorkerMemory", "warning", Value(Series("worker_memory_bytes")),
            ">", limits.worker_memory, warning.for_, "bytes",
            f"a worker uses more than {limits.worker_memory / 2**20:g} MiB",
            "inv restart --env {env}",
        ),
        Rule(
            "ChartSlow", "warning",
            Slow(
                Series("function_duration_seconds", {"name": "chart *"}),
                limits.chart_time, warning.window, limits.chart_least,
            ),
            ">", limits.chart_share, warning.for_, "share",
            f"more than {_percent(limits.chart_share)} of the charts take over "
            f"{limits.chart_time:g} s",
            "inv logs --env {env} --since 10m --grep slow",
        ),
        Rule(
            "DatabaseSlow", "warning",
            Mean(
                Series("database_query_duration_seconds"), warning.window,
                critical.least,
            ),
            ">", limits.query_mean, warning.for_, "seconds",
            f"a question to the database takes over {limits.query_mean * 1000:g} ms "
            "on average",
            "inv logs --env {env} --since 10m --grep 'slow query'",
        ),
        Rule(
            "PoolSaturated", "warning",
            Value(
                Series("database_connections_in_use"), "database_connections_limit"
            ),
            ">", limits.pool_used, warning.for_, "share",
            f"more than {_percent(limits.pool_used)} of the database connections "
            "are in use",
            "inv config --env {env}",
        ),
        Rule(
            "NotReady", "critical", Value(Series("service_ready")),
            "<", 1.0, critical.for_, "",
            "the service says that it can't take requests", status,
        ),
        Rule(
            "HealthFailing", "warning",
            Value(Series("health_check_status", {}, _MEASURED)),
            ">", 1.0, warning.for_, "",
            "a check of the service fails", status,
        ),
        Rule(
            "TargetDown", "critical", Down(every=True),
            "<", 1.0, critical.for_, "",
            "no host of the service answers", status,
        ),
        Rule(
            "TargetDown", "warning", Down(every=False),
            "<", 1.0, warning.for_, "",
            "a host of the service does not answer", "inv doctor --env {env}",
        ),
        Rule(
            "MetricsAbsent", "critical",
            Absent(Series("release_info", {"service": service})),
            ">", 0.0, warning.for_, "",
            "nobody measures the service", "inv monitor --env {env}",
        ),
    ]  # fmt: skip


def _burning(alerts: Alerts) -> list[Rule]:
    found = []
    for promise in promises(alerts):
        for burn in alerts.burns:
            words = f"burns {burn.rate:g} times as fast as it may"
            if burn.rate == 1:
                words = "is being used up"
            found.append(
                Rule(
                    "ErrorBudgetBurn",
                    burn.severity,
                    Burning(
                        promise.name, burn.long, burn.short, alerts.objectives.least
                    ),
                    ">",
                    round(burn.rate * promise.budget, 9),
                    0.0,
                    "share",
                    f"the error budget of {promise.name} {words}",
                    "inv history --env {env}",
                )
            )
    return found


def _percent(value: float) -> str:
    return f"{round(value * 100, 6):g} %"


# Refusals -----------------------------------------------------------------------------


def _refuse_milder(alerts: Alerts) -> None:
    """Refuse a warning that is no milder than the critical alert of its name.

    The critical one would keep it silent whenever it fires.
    """
    critical, warning = alerts.levels["critical"], alerts.levels["warning"]
    for key, milder in (
        ("response_time_p95", warning.response_time_p95 < critical.response_time_p95),
        ("error_rate", warning.error_rate < critical.error_rate),
        ("memory_usage", warning.memory_usage < critical.memory_usage),
        ("disk_free", warning.disk_free > critical.disk_free),
    ):
        if not milder:
            raise _silent(
                f"the warning {key} is no milder than the critical one, "
                "which would keep it silent",
                f"[warning] {key}",
                "a threshold that is passed before the critical one",
            )


def _refuse_silent(
    rule: Rule, alerts: Alerts, bounds: Mapping[str, Sequence[float]]
) -> None:
    about = rule.about
    if isinstance(about, (Ratio, Slow, Mean)):
        key = f"[timing.{rule.severity}] window"
        _refuse_window(about.window_s, alerts, key, _LONGEST)
    if isinstance(about, Slow):
        key = f"[{rule.severity}] response_time_p95"
        if rule.alert == "ChartSlow":
            key = "[limits] chart_time"
        _refuse_bound(about.of.metric, about.le, bounds, key)
    if isinstance(about, (Ratio, Slow)) and about.least * rule.threshold < 1:
        key = f"[timing.{rule.severity}] least"
        if rule.alert == "ChartSlow":
            key = "[limits] chart_least"
        raise _silent(
            f"of {about.least} requests a single bad one is more than "
            f"{_percent(rule.threshold)}: {rule.alert} would fire for it",
            key,
            f"{-(-1 // rule.threshold):g} or more",
        )
    if isinstance(about, Burning):
        _refuse_burn(rule, about, alerts, bounds)


def _refuse_burn(
    rule: Rule,
    about: Burning,
    alerts: Alerts,
    bounds: Mapping[str, Sequence[float]],
) -> None:
    if about.slo == "latency":
        within = alerts.objectives.latency_within
        metric = "http_request_duration_seconds"
        _refuse_bound(metric, within, bounds, "[slo] latency_within")
    number = 1 + next(
        index
        for index, burn in enumerate(alerts.burns)
        if (burn.long, burn.short) == (about.long_s, about.short_s)
    )
    place = f"[slo.burn {number}]"
    if rule.threshold >= 1:
        raise _silent(
            f"{_percent(rule.threshold)} of the requests can't be bad: with a promise "
            f"of {about.slo} this low the pair never fires",
            f"{place} rate",
            "a smaller rate, or a higher promise in [slo]",
        )
    if about.short_s >= about.long_s:
        raise _silent(
            "the short window is not shorter than the long one",
            f"{place} short",
            f"less than {about.long_s:g} s",
        )
    if about.long_s >= alerts.objectives.period:
        raise _silent(
            "the long window is as long as the whole period",
            f"{place} long",
            f"less than {alerts.objectives.period:g} s",
        )
    _refuse_window(about.short_s, alerts, f"{place} short")


def _refuse_window(
    seconds: float, alerts: Alerts, key: str, most: float = math.inf
) -> None:
    least = _SCRAPES * alerts.rhythm.scrape
    if seconds > most:
        raise _silent(
            f"a window of {seconds:g} s is longer than what a service remembers",
            key,
            f"from {least:g} s to {most:g} s",
        )
    if seconds < least:
        raise _silent(
            f"a window of {seconds:g} s holds fewer than {_SCRAPES} scrapes",
            key,
            f"{least:g} s or more, as [timing] scrape is {alerts.rhythm.scrape:g} s",
        )


def _refuse_bound(
    metric: str, le: float, bounds: Mapping[str, Sequence[float]], key: str
) -> None:
    known = bounds[metric]
    if le not in known[:-1]:
        last = " but the last, beyond which nothing is told apart"
        raise _silent(
            f"{le:g} s is {'the last' if le == known[-1] else 'no'} bound of the "
            f"buckets of {metric}: it can never fire",
            key,
            f"one of {', '.join(f'{bound:g}' for bound in known[:-1])} s"
            + (last if le == known[-1] else ""),
        )


def _silent(what: str, key: str, allowed: str) -> Usage:
    return Usage(
        what,
        where=f"alerts.toml: {key}",
        allowed=allowed,
        next="edit ops/alerts.toml; then inv alerts",
    )
