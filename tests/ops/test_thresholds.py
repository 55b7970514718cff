"""alerts.toml: what it says, and what it refuses with the path of the key."""

from __future__ import annotations

import json

import pytest

from ops.alerts import bounds, generate, neutral, rules, thresholds
from ops.environment import ROOT
from ops.environment import names as environment_names
from ops.errors import Usage

TEXT = thresholds.FILE.read_text()
BOUNDS = generate.known_bounds()


def changed(before: str, after: str) -> str:
    assert TEXT.count(before) >= 1, before
    return TEXT.replace(before, after, 1)


def refused(text: str) -> Usage:
    with pytest.raises(Usage) as caught:
        rules.rules(thresholds.parse(text), BOUNDS)
    assert caught.value.code == 2
    return caught.value


def test_the_table_is_what_was_asked_for() -> None:
    said = thresholds.load()
    critical, warning = said.levels["critical"], said.levels["warning"]
    assert (critical.response_time_p95, critical.error_rate) == (10, 0.05)
    assert (critical.memory_usage, critical.disk_free) == (0.9, 0.05)
    assert (warning.response_time_p95, warning.error_rate) == (5, 0.01)
    assert (warning.memory_usage, warning.disk_free) == (0.8, 0.1)
    assert said.audiences["staging"].channel == "#staging-alerts"
    assert said.audiences["prod"].channel == "#production-alerts"
    assert said.audiences["prod"].urgent and not said.audiences["staging"].urgent
    assert said.told == {"critical": ("oncall", "devops"), "warning": ("team",)}


def test_every_environment_has_an_audience() -> None:
    assert tuple(thresholds.load().audiences) == environment_names()


def test_deliveries_and_alerts_are_told_in_the_same_channels() -> None:
    from ops.alerts.notice import AUDIENCES

    alerts = thresholds.load().audiences
    for name, audience in AUDIENCES.items():
        same = alerts[name]
        assert (same.title, same.channel) == (audience.title, audience.channel)
        assert (same.suffix, same.urgent) == (audience.suffix, audience.urgent)


@pytest.mark.parametrize(
    ("before", "after", "where"),
    [
        ('memory_usage = "90%"', 'memory = "90%"', "alerts.toml: [critical] memory"),
        ('window = "2m"', 'windows = "2m"', "alerts.toml: [timing.critical] windows"),
        ("[limits]", "[limit]", "alerts.toml: limit"),
        ("rate = 14.4", "rte = 14.4", "alerts.toml: [slo.burn 1] rte"),
        ('title = "local"', 'name = "local"', "alerts.toml: [environments.local] name"),
        ('critical = ["oncall"', 'urgent = ["oncall"', "alerts.toml: [told] urgent"),
    ],
)
def test_an_unknown_key_is_refused_with_its_path(
    before: str, after: str, where: str
) -> None:
    problem = refused(changed(before, after))
    assert problem.where == where
    assert "unknown key" in problem.what and problem.allowed


@pytest.mark.parametrize(
    ("before", "after", "where", "allowed"),
    [
        ('p95 = "10s"', 'p95 = "10"', "[critical] response_time_p95", '"10s"'),
        ('p95 = "10s"', "p95 = 10", "[critical] response_time_p95", '"10s"'),
        ('p95 = "10s"', 'p95 = "0s"', "[critical] response_time_p95", "above 0"),
        ('error_rate = "5%"', 'error_rate = "100%"', "[critical] error_rate", "100 %"),
        ('error_rate = "5%"', 'error_rate = "0%"', "[critical] error_rate", "above 0"),
        ('error_rate = "5%"', "", "[critical] error_rate", "share"),
        ('memory = "512MiB"', 'memory = "512MB"', "[limits] worker_memory", '"512MiB"'),
        ("least = 20", "least = true", "[timing.critical] least", "whole number"),
        ('"#staging-alerts"', '"staging"', "[environments.staging] channel", "Slack"),
        ('["team@mltrading.example"]', "[]", "[recipients.team] addresses", "empty"),
        ('["oncall", "devops"]', '["boss"]', "[told] critical", "oncall, devops, team"),
        ('["staging", "prod"]', '["stage"]', "[monitoring] environments", "staging"),
        ('severity = "critical"', 'severity = "bad"', "[slo.burn 1] severity", "'cri"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_what_is_allowed(
    before: str, after: str, where: str, allowed: str
) -> None:
    problem = refused(changed(before, after))
    assert problem.where == f"alerts.toml: {where}"
    assert allowed in problem.allowed


@pytest.mark.parametrize(
    ("before", "after", "where", "why"),
    [
        (
            'p95 = "10s"',
            'p95 = "8s"',
            "[critical] response_time_p95",
            "no bound of the buckets",
        ),
        (
            'p95 = "10s"',
            'p95 = "30s"',
            "[critical] response_time_p95",
            "the last bound",
        ),
        ('chart_time = "3s"', 'chart_time = "4s"', "[limits] chart_time", "no bound"),
        ('within = "3s"', 'within = "4s"', "[slo] latency_within", "no bound"),
        ('window = "2m"', 'window = "30s"', "[timing.critical] window", "4 scrapes"),
        ('scrape = "10s"', 'scrape = "1m"', "[timing.critical] window", "4 scrapes"),
        ('window = "5m"', 'window = "11m"', "[timing.warning] window", "remembers"),
        ('"99.5%"', '"90%"', "[slo.burn 1] rate", "never fires"),
        ('short = "5m"', 'short = "2h"', "[slo.burn 1] short", "not shorter"),
        ('long = "3d"', 'long = "30d"', "[slo.burn 4] long", "whole period"),
        ('error_rate = "1%"', 'error_rate = "5%"', "[warning] error_rate", "silent"),
        ('free = "10%"', 'free = "4%"', "[warning] disk_free", "silent"),
        ("least = 20", "least = 19", "[timing.critical] least", "would fire for it"),
        ("chart_least = 10", "chart_least = 9", "[limits] chart_least", "would fire"),
    ],
)
def test_a_threshold_that_can_never_fire_or_fires_for_one_is_refused(
    before: str, after: str, where: str, why: str
) -> None:
    problem = refused(changed(before, after))
    assert problem.where == f"alerts.toml: {where}"
    assert why in problem.what
    assert problem.allowed and "inv alerts" in problem.next


def test_a_text_that_is_no_toml_is_refused() -> None:
    assert "not valid TOML" in refused("[critical").what


def test_variables_name_other_people() -> None:
    said = thresholds.load()
    environ = {"MAIL_TO_ONCALL": "a@example.org, b@example.org", "MAIL_TO_DEVOPS": ""}
    assert said.people("critical", environ) == (
        "a@example.org",
        "b@example.org",
        "devops@mltrading.example",
    )
    with pytest.raises(Usage) as caught:
        said.people("warning", {"MAIL_TO_TEAM": "not an address"})
    assert "MAIL_TO_TEAM" in caught.value.where


def test_bounds_are_read_from_the_source_without_importing_it() -> None:
    from mltrading_health import metrics, timed

    assert BOUNDS["http_request_duration_seconds"] == metrics.BUCKETS
    assert BOUNDS["function_duration_seconds"] == timed.BUCKETS
    assert bounds.bounds("X: tuple[float, ...] = (0.5, 1, 2.5)", "X") == (0.5, 1, 2.5)


@pytest.mark.parametrize(
    "source", ["", "X = (2, 1)", "X = ()", "X = (1, 1)", "X = (*Y,)", "X = compute()"]
)
def test_a_source_without_growing_bounds_is_no_home(source: str) -> None:
    with pytest.raises(ValueError):
        bounds.bounds(source, "X")


def test_the_neutral_form_is_whole_and_holds_no_pattern_of_prometheus() -> None:
    said = neutral.document(*generate.asked())
    kinds = {rule["kind"] for rule in said["rules"]}
    assert kinds == {"ratio", "slow", "mean", "level", "down", "absent", "burn"}
    for rule in said["rules"]:
        own = rule["kind"] in ("ratio", "slow", "mean", "level")
        assert ("only" in rule) != own
        assert rule["severity"] in ("critical", "warning") and rule["hint"]
    assert "rate(" not in json.dumps(said)


def test_what_was_made_is_what_is_committed() -> None:
    assert generate.drift(ROOT) == []
