"""What fires here fires in Prometheus: the same series, asked of promtool.

The rules are those of ops/alerts.toml: promtool reads them in PromQL, the evaluator in
their neutral form. Each course is a service of its own, so that one run judges all.
"""

import json
import random
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import chain

import pytest

from mltrading_health.watch import rules as neutral_rules
from mltrading_health.watch.evaluate import FIRING, evaluate
from mltrading_health.watch.rules import Level
from mltrading_health.watch.series import History
from ops.alerts import generate, neutral, prometheus

pytestmark = pytest.mark.integration
COURSES, LOOKS = 30, 80


def why_not(item):
    return "" if shutil.which("promtool") else "promtool is missing: inv setup"


@pytest.fixture(scope="module")
def asked():
    """Return alerts.toml, its rules, and what the evaluator reads of them."""
    alerts, rules = generate.asked()
    return alerts, rules, neutral_rules.parse(neutral.document(alerts, rules))


# -- courses --------------------------------------------------------------------------


@dataclass
class Course:
    """What one service counts and measures: a value for each look, None for none.

    At the looks of `unseen` nobody looked.
    """

    name: str
    rng: random.Random
    step: float
    series: dict = field(default_factory=dict)
    unseen: frozenset = frozenset()

    def put(self, metric, values, **labels):
        key = metric, frozenset(labels.items())
        self.series[key] = self.holes(values)

    def holes(self, values):
        """Leave out some: single ones, a beginning, an end, or a stretch."""
        found, rng = list(values), self.rng
        gaps = rng.choice([0, 0, 0, 0.02, 0.1])
        found = [None if rng.random() < gaps else value for value in found]
        kind = rng.choice(["", "", "", "", "late", "ended", "stretch"])
        a, b = sorted(rng.sample(range(LOOKS), 2))
        lost = {
            "late": (0, a // 3),
            "ended": (b, LOOKS),
            "stretch": (a, min(b, a + 20)),
        }
        for i in range(*lost.get(kind, (0, 0))):
            found[i] = None
        return found

    def shape(self, *levels):
        """Return a level for each look: constant, steps, a ramp, bursts, to and fro."""
        rng, (a, b) = self.rng, sorted(self.rng.sample(range(LOOKS), 2))
        low, high = rng.choice([(0.0, rng.choice(levels)), rng.sample(levels, 2)])
        match rng.choice(
            ["constant", "step", "step", "from", "ramp", "bursts", "swing"]
        ):
            case "constant":
                return [high] * LOOKS
            case "step":
                return [high if a <= i < b else low for i in range(LOOKS)]
            case "from":
                return [high if a <= i else low for i in range(LOOKS)]
            case "ramp":
                return [low + (high - low) * i / LOOKS for i in range(LOOKS)]
            case "bursts":
                return [high if rng.random() < 0.2 else low for i in range(LOOKS)]
        each = rng.randint(1, 8)
        return [high if i // each % 2 else low for i in range(LOOKS)]

    def counts(self, *shares, least, window):
        """Return two growing counts: all, and those that are bad, by the shares."""
        rng, shape = self.rng, self.shape(*shares)
        # Around what is too little to judge by, and far above.
        each = least / window * self.step * rng.choice([0.5, 0.9, 1.1, 3, 50])
        restart = rng.choice([None, None, rng.randrange(LOOKS)])
        every, bad, found = 0, 0, []
        for i in range(LOOKS):
            if i == restart:
                every = bad = 0
            new = int(each) + (rng.random() < each % 1)
            every, bad = every + new, bad + min(new, round(new * shape[i]))
            found.append((every, bad))
        return zip(*found, strict=True)


def near(threshold):
    """Return values well below, just below, just above and well above a threshold."""
    return [threshold * by for by in (0.2, 0.9, 0.99, 1.01, 1.1, 4.0)]


def course(number, alerts):
    """Return a course of every metric that a rule reads."""
    made = Course(f"c{number}", random.Random(number), alerts.rhythm.evaluate)
    rng, limits = made.rng, alerts.limits
    critical, warning = alerts.levels["critical"], alerts.levels["warning"]
    pace = rng.choice(list(alerts.paces.values()))
    rate = {"least": pace.least, "window": pace.window}

    shares = near(critical.error_rate) + near(warning.error_rate) + [1.0]
    for route in ("/", "/charts")[: rng.randint(1, 2)] + ("<unknown callback>",):
        every, bad = made.counts(*shares, **rate)
        good = [a - b for a, b in zip(every, bad, strict=True)]
        made.put("http_requests_total", good, route=route, status="2xx")
        made.put("http_requests_total", bad, route=route, status="5xx")
        timed(made, "http_request_duration_seconds", [5.0, 10.0], rate, 0.05, route)
    for name in ("chart candles", "chart volume", "ingestion"):
        chart = {"least": limits.chart_least, "window": pace.window}
        bound, share = limits.chart_time, limits.chart_share
        timed(made, "function_duration_seconds", [bound], chart, share, name, "name")
    counts, _ = made.counts(0.0, 0.0, **rate)
    counts, means = list(counts), made.shape(*near(limits.query_mean))
    total, sums, before = 0.0, [], 0
    for count, mean in zip(counts, means, strict=True):
        total = 0.0 if count < before else total
        total += mean * (count - before if count >= before else count)
        sums.append(total)
        before = count
    made.put("database_query_duration_seconds_sum", sums, name="bars")
    made.put("database_query_duration_seconds_count", counts, name="bars")

    full = near(critical.memory_usage) + near(warning.memory_usage)
    gauge(made, "service_memory_used_bytes", "service_memory_limit_bytes", full)
    for disk in ("data", "logs"):
        free = near(critical.disk_free) + near(warning.disk_free)
        gauge(made, "disk_free_bytes", "disk_size_bytes", free, disk=disk)
    pool = near(limits.pool_used)
    gauge(made, "database_connections_in_use", "database_connections_limit", pool)
    for worker in "01":
        memory = made.shape(*near(limits.worker_memory))
        made.put("worker_memory_bytes", memory, worker=worker)
        made.put("health_check_status", made.shape(0, 1, 2), check=f"check {worker}")
    made.put("service_ready", made.shape(0, 1))
    if rng.random() < 0.3:
        # Nobody looked at all: what was known last is what is known.
        first = rng.randrange(1, LOOKS)
        made.unseen = frozenset(range(first, min(first + rng.randint(1, 40), LOOKS)))
    return made


def timed(made, metric, bounds, rate, share, text, label="route"):
    """Put a histogram in which some share lies above each bound."""
    every, slow = map(list, made.counts(*near(share), 0.5, **rate))
    for bound in bounds:
        within = [a - b for a, b in zip(every, slow, strict=True)]
        made.put(f"{metric}_bucket", within, **{label: text, "le": str(bound)})
    made.put(f"{metric}_count", every, **{label: text})


def gauge(made, metric, over, shares, **labels):
    size = made.rng.choice([0, 1000, 512e6, 512e6])
    made.put(metric, [share * size for share in made.shape(*shares)], **labels)
    made.put(over, [size] * LOOKS, **labels)


# -- both sides -----------------------------------------------------------------------

BY = ("service", "alertname", "severity", "alertstate")


def evaluated(course, rules):
    """Return what is not at rest at each look, as BY has it."""
    history, state, found = History(rules), {}, []
    # In the order of labels, as they are added up there: 0.1 + 0.2 + 0.3 has two sums.
    series = sorted(course.series.items(), key=lambda each: sorted(each[0][1]))
    for i in range(LOOKS):
        if i not in course.unseen:
            samples = {}
            for (metric, labels), values in series:
                if values[i] is not None:
                    samples.setdefault(metric, {})[labels] = values[i]
            history.add(i * course.step, samples)
        state, _ = evaluate(rules, history, i * course.step, state)
        found.append(
            [
                (course.name, alert.name, alert.severity, active.phase)
                for alert, active in state.items()
            ]
        )
    return found


def named(metric, labels):
    return metric + "{%s}" % ", ".join(f"{k}={json.dumps(labels[k])}" for k in labels)


def written(values, unseen=frozenset()):
    """Return values as promtool reads them: "stale" is what a scrape misses."""
    return " ".join(
        "_" if i in unseen else "stale" if value is None else f"{value:.17g}"
        for i, value in enumerate(values)
    )


def expectations(expected, apart):
    """Return what the evaluator says, as series: `here`, and `doubt` near a change."""
    series = {}
    for key in {key for look in expected for key in look}:
        here = [look[key] or None for look in expected]
        doubt = [
            1 if len(set(here[max(0, i - apart) : i + apart + 1])) > 1 else None
            for i in range(LOOKS)
        ]
        labels = dict(zip(BY, key, strict=True))
        series[named("here", labels)] = written(here)
        series[named("doubt", labels)] = written(doubt)
    return series


def questions(courses, expected, apart):
    """Return a test for promtool: at each look, what only one side says is nothing."""
    step, by = f"{courses[0].step:g}s", ", ".join(BY)
    series = {
        named(metric, {"service": course.name, "env": "prod", **dict(labels)}): (
            written(values, course.unseen)
        )
        for course in courses
        for (metric, labels), values in course.series.items()
    }
    series |= expectations(expected, apart)
    there = f"sum by ({by}) (ALERTS)"
    sides = {
        "only here or another number": f"here unless on ({by}) ({there} == here)",
        "only promtool": f"{there} unless on ({by}) here",
    }
    asked = [
        {"expr": f"({side}) unless on ({by}) doubt", "eval_time": f"{i}s"}
        for i in range(0, LOOKS * int(courses[0].step), int(courses[0].step))
        for side in sides.values()
    ]
    test = {
        "interval": step,
        "input_series": [{"series": k, "values": v} for k, v in series.items()],
        "promql_expr_test": asked,
    }
    return {"rule_files": ["rules.yml"], "evaluation_interval": step, "tests": [test]}


def apart():
    """Return the number of evaluations by which this promtool may differ.

    A newer one has another idea of the edges of a window.
    """
    said = subprocess.run(["promtool", "--version"], capture_output=True, text=True)
    return 0 if "version 2." in said.stdout + said.stderr else 1


def judged(folder, asked, courses, expected):
    """Return what promtool has against the states that are expected."""
    alerts, rules, watched = asked
    kept = [rule for rule in rules if rule.alert not in watched.left_out]
    files = prometheus.rule_files(alerts, kept, ["prod"])
    (folder / "rules.yml").write_text(json.dumps(files[prometheus.RULES]))
    tests = questions(courses, expected, apart())
    (folder / "tests.yml").write_text(json.dumps(tests))
    said = subprocess.run(
        ["promtool", "test", "rules", "tests.yml"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return "" if said.returncode == 0 else (said.stdout + said.stderr)[:3000]


def states(courses, rules):
    every = [evaluated(course, rules) for course in courses]
    return [Counter(chain(*looks)) for looks in zip(*every, strict=True)]


def test_what_is_pending_and_fires_is_what_prometheus_says(tmp_path, asked):
    alerts, _, watched = asked
    courses = [course(number, alerts) for number in range(COURSES)]
    expected = states(courses, watched.rules)
    assert judged(tmp_path, asked, courses, expected) == ""
    # What was compared is worth it: each rule fires somewhere, and ends somewhere.
    fired = {key[1:3] for look in expected for key in look if key[3] == FIRING}
    assert fired == {(rule.alert, rule.severity) for rule in watched.rules}


@pytest.mark.parametrize(
    "other",
    [
        lambda rule: replace(rule, for_s=rule.for_s + 30),
        lambda rule: replace(rule, threshold=rule.threshold * 1.3),
        lambda rule: replace(rule, asks=longer(rule.asks)),
    ],
    ids=["for", "threshold", "window"],
)
def test_an_evaluator_that_goes_by_other_rules_is_found_out(tmp_path, asked, other):
    alerts, _, watched = asked
    courses = [course(number, alerts) for number in range(5)]
    expected = states(courses, [other(rule) for rule in watched.rules])
    assert "FAILED" in judged(tmp_path, asked, courses, expected)


def longer(asks):
    return asks if isinstance(asks, Level) else replace(asks, window_s=450.0)
