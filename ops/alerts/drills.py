"""Tests of every rule, for `promtool test rules`: made from the rules, asked in PromQL.

Each rule is put through cases, each in an environment of its own, so that one run of
Prometheus's engine judges all of them:

    fires      beyond the threshold: silent before `for`, firing after it
    below      just on the other side of it: silent
    quiet      far beyond it, but with too few requests: silent
    blip       beyond it for less than `for`: silent
    recovers   beyond it, then well: firing, then silent
    sudden     (of a budget) beyond it, but not for long enough to matter: silent

Nothing at all is a case too: only what is absent fires. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ops.alerts.prometheus import RULES, SLO, length, recorded_every
from ops.alerts.rules import Absent, Burning, Down, Mean, Ratio, Rule, Series, Slow
from ops.alerts.rules import Value as Level
from ops.alerts.thresholds import Alerts

# Steps of a test, in seconds: as often as Prometheus scrapes; of budgets, a minute.
_SLOWLY = 60.0
# How far beyond a threshold, and how far from it, still counts.
_BEYOND, _BELOW = 1.1, 0.9


@dataclass(frozen=True, slots=True)
class Case:
    """Samples of one environment, and when (seconds) a rule fires there or not."""

    rule: Rule
    name: str
    samples: tuple[tuple[str, str], ...]
    firing: tuple[float, ...] = ()
    silent: tuple[float, ...] = ()

    @property
    def environment(self) -> str:
        about = self.rule.about
        pair = (
            f"-{about.slo}-{length(about.long_s)}" if isinstance(about, Burning) else ""
        )
        return f"{self.rule.alert}-{self.rule.severity}{pair}-{self.name}"


def documents(
    alerts: Alerts, rules: Sequence[Rule], environments: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return the tests of each rule file, which watches these environments."""
    burning = [rule for rule in rules if isinstance(rule.about, Burning)]
    others = [rule for rule in rules if not isinstance(rule.about, Burning)]
    absent = [rule for rule in others if isinstance(rule.about, Absent)]
    step = alerts.rhythm.scrape
    plain = [
        case for rule in others if rule not in absent for case in _cases(rule, alerts)
    ]
    slow = [case for rule in burning for case in _burning(rule)]
    return {
        RULES: _file(
            RULES,
            alerts.rhythm.evaluate,
            [
                _test(plain, step),
                _nothing(others, environments, step),
                *(_absent(rule, environments, step) for rule in absent),
            ],
        ),
        SLO: _file(
            SLO,
            recorded_every(alerts),
            [_test(slow, _SLOWLY), _nothing(burning, environments, _SLOWLY)],
        ),
    }


def _file(rules: str, every: float, tests: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "rule_files": [rules],
        # Of each group, whatever interval it asks for.
        "evaluation_interval": length(every),
        "tests": tests,
    }


def _is_absent(rule: Rule) -> bool:
    return isinstance(rule.about, Absent)


def _test(cases: Sequence[Case], step: float) -> dict[str, Any]:
    return {
        "interval": length(step),
        "input_series": [
            {"series": f'{name[:-1]}, env="{case.environment}"}}', "values": values}
            for case in cases
            for name, values in case.samples
        ],
        "promql_expr_test": [
            _asked(case.rule, case.environment, at, fires)
            for case in cases
            for times, fires in ((case.silent, False), (case.firing, True))
            for at in times
        ],
    }


def _asked(rule: Rule, environment: str, at: float, fires: bool) -> dict[str, Any]:
    """Return the question whether a rule fires in an environment at a time."""
    pair = ""
    if isinstance(rule.about, Burning):
        about = rule.about
        windows = f"{length(about.long_s)}/{length(about.short_s)}"
        pair = f', slo="{about.slo}", burn="{windows}"'
    which = (
        f'alertname="{rule.alert}", severity="{rule.severity}", '
        f'alertstate="firing", env="{environment}"{pair}'
    )
    return {
        "expr": f"min(ALERTS{{{which}}})",
        "eval_time": f"{at:g}s",
        "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
    }


# Cases --------------------------------------------------------------------------------

# Values of one sample set: how bad (1 is the threshold) for how many steps, in order.
Course = Sequence[tuple[float, int]]


def _cases(rule: Rule, alerts: Alerts) -> list[Case]:
    about = rule.about
    step = alerts.rhythm.scrape
    if isinstance(about, (Ratio, Slow, Mean)):
        return _rates(rule, about, about.window_s, about.least, step)
    draw = _levels(rule)
    # Firing after `for`, found at the next look.
    late = rule.for_s + 2 * alerts.rhythm.evaluate
    steps = int(late / step) + 2
    brief = max(1, int(rule.for_s / step) - 1)
    bad, good = 2, 0
    return [
        Case(
            rule, "fires", draw([(bad, 2 * steps)]),
            firing=(late,), silent=(max(0, rule.for_s - step),),
        ),
        Case(rule, "below", draw([(good, 2 * steps)]), silent=(late, 2 * late)),
        Case(
            rule, "blip", draw([(bad, brief), (good, 2 * steps)]),
            silent=(rule.for_s, late, 2 * late),
        ),
        Case(
            rule, "recovers", draw([(bad, steps), (good, steps)]),
            firing=(late,), silent=((steps + 2) * step,),
        ),
    ]  # fmt: skip


def _levels(rule: Rule) -> Callable[[Course], tuple[tuple[str, str], ...]]:
    """Return what draws a gauge: 0 is just well, anything else just too much."""
    down = rule.op == "<"

    def draw(course: Course) -> tuple[tuple[str, str], ...]:
        about = rule.about
        if isinstance(about, Down):
            hosts = [_gauge(course, 1.0, 0.0)]
            if about.every:
                # One host of two is enough to be there.
                hosts.append(_gauge(course, 0.0, 0.0))
            return tuple(
                (f'up{{service="dashboard", instance="h{number}"}}', values)
                for number, values in enumerate(hosts)
            )
        if not isinstance(about, Level):
            raise AssertionError(rule)
        at = rule.threshold
        well, ill = at * _BELOW, at * _BEYOND
        if down:
            well, ill = ill, well
        if rule.shown == "":
            # States, not amounts: what is just well is the threshold itself.
            well, ill = at, at + (-1 if down else 1)
        whole = 1000.0 if about.over else 1.0
        name = _labelled(about.of)
        found = [(name, _gauge(course, well * whole, ill * whole))]
        if about.over:
            found.append((_labelled(Series(about.over)), _gauge(course, whole, whole)))
        return tuple(found)

    return draw


def _gauge(course: Course, well: float, ill: float) -> str:
    return " ".join(
        f"{ill if level else well:.10g}x{steps - 1}" for level, steps in course
    )


def _rates(
    rule: Rule, about: Ratio | Slow | Mean, window: float, least: int, step: float
) -> list[Case]:
    """Return the cases of what is counted; its rates need the window to change."""
    busy = 2.0 * least
    few = 0.8 * least / window * step
    late = rule.for_s + 3 * step
    held = int(late / step) + 2
    over = int(window / step) + 3
    return [
        Case(
            rule, "fires", _counted(about, [(_BEYOND, held)], rule.threshold, busy),
            firing=(late,), silent=(rule.for_s - step,),
        ),
        Case(
            rule, "below", _counted(about, [(_BELOW, held)], rule.threshold, busy),
            silent=(late, held * step),
        ),
        Case(
            rule, "quiet",
            _counted(about, [(1 / rule.threshold, held)], rule.threshold, few),
            silent=(late, held * step),
        ),
        Case(
            rule, "recovers",
            _counted(about, [(_BEYOND, held), (0, over)], rule.threshold, busy),
            firing=(late,), silent=((held + over) * step,),
        ),
    ]  # fmt: skip


def _counted(
    about: Ratio | Slow | Mean, course: Course, threshold: float, each: float
) -> tuple[tuple[str, str], ...]:
    """Return counters of `each` requests a step, of which a share is bad."""
    if isinstance(about, Mean):
        of = about.of
        return (
            (
                _labelled(of, "_sum"),
                _counter([(x * threshold, n) for x, n in course], each),
            ),
            (_labelled(of, "_count"), _counter([(1.0, n) for _, n in course], each)),
        )
    bad = [(x * threshold, n) for x, n in course]
    good = [(1 - share, n) for share, n in bad]
    if isinstance(about, Slow):
        within = Series(about.of.metric, {**about.of.match, "le": repr(about.le)})
        return (
            (_labelled(within, "_bucket"), _counter(good, each)),
            (_labelled(about.of, "_count"), _counter([(1.0, n) for _, n in bad], each)),
        )
    other = Series(about.whole.metric, {"status": "2xx"})
    return (
        (_labelled(about.part), _counter(bad, each)),
        (_labelled(other), _counter(good, each)),
    )


def _counter(course: Course, each: float) -> str:
    """Return a counter's samples: `share * each` more at every step."""
    value, parts = 0.0, []
    for share, steps in course:
        grows = share * each
        parts.append(f"{value:.10g}+{grows:.10g}x{steps - 1}")
        value += grows * steps
    return " ".join(parts)


def _burning(rule: Rule) -> list[Case]:
    """Return the cases of a budget, in minutes: a long window may not be full yet."""
    about = rule.about
    if not isinstance(about, Burning):
        raise AssertionError(rule)
    each = about.least / 2
    few = 0.8 * about.least / 20
    at = 20 * _SLOWLY

    def case(name: str, course: Course, many: float, **when: Any) -> Case:
        return Case(rule, name, _requests(about.slo, course, many), **when)

    bad, good = rule.threshold * _BEYOND, rule.threshold * _BELOW
    found = [
        case("fires", [(bad, 22)], each, firing=(at,)),
        case("below", [(good, 22)], each, silent=(at,)),
        case("quiet", [(1.0, 16)], few, silent=(15 * _SLOWLY,)),
        # A quarter of the time, at twice the speed: half of what is too much.
        case(
            "sudden", [(0.0, 16), (min(1.0, 2 * rule.threshold), 6)], each, silent=(at,)
        ),
    ]
    short = int(about.short_s / _SLOWLY)
    if short <= 5 and 5 * rule.threshold <= 1:
        # The long window still remembers, the short one has forgotten.
        worse = 5 * rule.threshold
        course = [(worse, 10), (0.0, short + 8)]
        until = (10 + short + 7) * _SLOWLY
        found.append(
            case("recovers", course, each, firing=(10 * _SLOWLY,), silent=(until,))
        )
    return found


def _requests(slo: str, course: Course, each: float) -> tuple[tuple[str, str], ...]:
    """Return requests of which a share breaks one promise and none the other."""
    whole = [(1.0, steps) for _, steps in course]
    good = [(1 - share, steps) for share, steps in course]
    if slo == "availability":
        # Nobody has counted a failure before there was one.
        first = course[0]
        bad = _counter(course, each)
        if not first[0]:
            bad = f"_x{first[1] - 1} {_counter(course[1:], each)}"
        return (
            ('http_requests_total{status="5xx"}', bad),
            ('http_requests_total{status="2xx"}', _counter(good, each)),
        )
    timed = "http_request_duration_seconds"
    return (
        ('http_requests_total{status="2xx"}', _counter(whole, each)),
        (f'{timed}_bucket{{le="3.0"}}', _counter(good, each)),
        (f'{timed}_count{{route="/"}}', _counter(whole, each)),
    )


def _labelled(series: Series, ending: str = "") -> str:
    """Return a series with one label at least; a pattern becomes what fits it."""
    labels = {name: value.replace("*", "x") for name, value in series.match.items()}
    labels["instance"] = "h0"
    said = ", ".join(f'{name}="{value}"' for name, value in labels.items())
    return f"{series.metric}{ending}{{{said}}}"


# What is not there --------------------------------------------------------------------


def _nothing(
    rules: Sequence[Rule], environments: Sequence[str], step: float
) -> dict[str, Any]:
    """Return the test that without any sample only what is absent fires."""
    absent = {rule.alert for rule in rules if _is_absent(rule)}
    late = f"{max(rule.for_s for rule in rules) + 60:g}s"
    firing = 'ALERTS{alertstate="firing"}'
    many = len(absent) * len(environments)
    others = f'{firing} unless ALERTS{{alertname=~"{"|".join(sorted(absent))}"}}'
    return {
        "interval": length(step),
        "input_series": [],
        "promql_expr_test": [
            {"expr": others, "eval_time": late, "exp_samples": []},
            {
                "expr": f"count({firing})",
                "eval_time": late,
                "exp_samples": [{"labels": "{}", "value": many}] if many else [],
            },
        ],
    }


def _absent(rule: Rule, environments: Sequence[str], step: float) -> dict[str, Any]:
    """Return the test of what is not there at first, and then comes."""
    if not isinstance(rule.about, Absent):
        raise AssertionError(rule)
    of = rule.about.of
    comes = int((rule.for_s + 60) / step)
    labels = "".join(f', {name}="{value}"' for name, value in of.match.items())
    return {
        "interval": length(step),
        "input_series": [
            {
                "series": f'{of.metric}{{env="{name}"{labels}}}',
                "values": f"_x{comes} 1x{comes}",
            }
            for name in environments
        ],
        "promql_expr_test": [
            _asked(rule, name, at, fires)
            for name in environments
            for at, fires in (
                (rule.for_s - step, False),
                (rule.for_s + 2 * step, True),
                ((comes + 3) * step, False),
            )
        ],
    }
