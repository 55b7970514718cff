"""The rules and routes that are committed, asked of promtool and amtool themselves.

What alerts.toml promises is written here once more in plain numbers, so that a rule
that was made wrongly, and its drill with it, is still noticed.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops import quality
from ops.alerts import alertmanager, drills, generate, grafana, prometheus, proving
from ops.alerts.site import committed
from ops.alerts.thresholds import SEVERITIES
from ops.cache import Verdict
from ops.command import Command
from ops.environment import ROOT
from ops.errors import Refused
from ops.shell import run

pytestmark = pytest.mark.integration
FOLDER = ROOT / generate.FOLDER
REQUESTS = 'http_requests_total{env="prod", service="dashboard", route="/", status='
TIMED = 'http_request_duration_seconds_%s{env="prod", service="dashboard"%s}'


def told(folder: Path, name: str, document: dict[str, Any]) -> str:
    """Return what promtool has against tests of the rules in a folder."""
    place = folder / name
    place.write_text(json.dumps(document))
    result = run(Command(("promtool", "test", "rules", str(place)), timeout=60))
    return "" if result.ok else result.tail(200)


def fired(folder: Path, series: dict[str, str], at: str, fires: set[str]) -> str:
    """Return what is wrong with which alerts fire in prod at a time; "" for nothing."""
    shutil.copyfile(FOLDER / "rules.yml", folder / "rules.yml")
    series = {'release_info{env="prod", service="dashboard"}': "1x400", **series}
    firing = 'count by (alertname, severity) (ALERTS{alertstate="firing", env="prod"})'
    samples = [
        {
            "labels": f'{{alertname="{name}", severity="{word}"}}',
            "value": 1,
        }
        for name, _, word in (each.partition(" ") for each in sorted(fires))
    ]
    asked = {"expr": firing, "eval_time": at, "exp_samples": samples}
    return told(
        folder,
        "tests.yml",
        {
            "rule_files": ["rules.yml"],
            "evaluation_interval": "10s",
            "tests": [
                {
                    "interval": "10s",
                    "input_series": [
                        {"series": name, "values": values}
                        for name, values in series.items()
                    ],
                    "promql_expr_test": [asked],
                }
            ],
        },
    )


def test_what_is_committed_is_in_order() -> None:
    assert proving.problems() == []


@pytest.mark.parametrize(
    ("series", "at", "fires"),
    [
        # Of 100 requests in 10 s six fail: more than 5 %, and than 1 %.
        (
            {REQUESTS + '"5xx"}': "0+6x60", REQUESTS + '"2xx"}': "0+94x60"},
            "5m",
            {"HighErrorRate critical", "HighErrorRate warning"},
        ),
        (
            {REQUESTS + '"5xx"}': "0+4x60", REQUESTS + '"2xx"}': "0+96x60"},
            "5m",
            {"HighErrorRate warning"},
        ),
        (
            {REQUESTS + '"5xx"}': "0+0.9x60", REQUESTS + '"2xx"}': "0+99x60"},
            "5m",
            set(),
        ),
        # All fail, from now on: told after half a minute and two looks.
        (
            {
                REQUESTS + '"5xx"}': "0x20 0+100x60",
                REQUESTS + '"2xx"}': "0+100x20 2000x60",
            },
            "4m20s",
            {"HighErrorRate critical"},
        ),
        # After a rollback the release before answers again, with the failures of its
        # past in its counts: nothing fails now.
        (
            {
                REQUESTS + '"5xx", release="v1"}': "0+60x5 300x18 _x36 300x30",
                REQUESTS + '"2xx", release="v1"}': "0+100x24 _x36 2500+100x30",
                REQUESTS + '"2xx", release="v2"}': "_x25 0+100x35 _x31",
            },
            "12m",
            set(),
        ),
        # What strangers make up is not counted.
        (
            {
                REQUESTS.replace('"/"', '"<unknown callback>"') + '"5xx"}': "0+50x60",
                REQUESTS + '"2xx"}': "0+50x60",
            },
            "5m",
            set(),
        ),
        # Six of 100 answers take 20 s each. A quantile over these buckets would say
        # at most 10 s; the share says the truth.
        (
            {
                TIMED % ("bucket", ', le="5.0"'): "0+94x60",
                TIMED % ("bucket", ', le="10.0"'): "0+94x60",
                TIMED % ("bucket", ', le="30.0"'): "0+100x60",
                TIMED % ("count", ""): "0+100x60",
            },
            "5m",
            {"SlowResponses critical", "SlowResponses warning"},
        ),
        (
            {
                TIMED % ("bucket", ', le="5.0"'): "0+94x60",
                TIMED % ("bucket", ', le="10.0"'): "0+96x60",
                TIMED % ("count", ""): "0+100x60",
            },
            "5m",
            {"SlowResponses warning"},
        ),
        # One host of two is full to 91 %, the other to 50 %.
        (
            {
                f'service_memory_{kind}_bytes{{env="prod", instance="{host}"}}': n
                for host, used in (("a", "91x60"), ("b", "50x60"))
                for kind, n in (("used", used), ("limit", "100x60"))
            },
            "2m",
            {"HighMemory critical", "HighMemory warning"},
        ),
        (
            {
                'disk_free_bytes{env="prod", disk="data"}': "4x60",
                'disk_size_bytes{env="prod", disk="data"}': "100x60",
            },
            "2m",
            {"LowDisk critical", "LowDisk warning"},
        ),
        (
            {
                'disk_free_bytes{env="prod", disk="data"}': "6x60",
                'disk_size_bytes{env="prod", disk="data"}': "100x60",
            },
            "2m",
            {"LowDisk warning"},
        ),
        ({'worker_memory_bytes{env="prod", worker="1"}': "536870911x60"}, "2m", set()),
        (
            {'worker_memory_bytes{env="prod", worker="1"}': "536870913x60"},
            "2m",
            {"WorkerMemory warning"},
        ),
        ({'service_ready{env="prod"}': "0x60"}, "50s", {"NotReady critical"}),
        ({'health_check_status{env="prod", check="database"}': "1x60"}, "5m", set()),
        (
            {'health_check_status{env="prod", check="database"}': "2x60"},
            "2m",
            {"HealthFailing warning"},
        ),
        # What HighMemory and LowDisk measure is not told a second time.
        (
            {'health_check_status{env="prod", check="memory_usage"}': "2x60"},
            "2m",
            set(),
        ),
        (
            {'health_check_status{env="prod", check="disk_space"}': "2x60"},
            "2m",
            set(),
        ),
        (
            {
                'up{env="prod", service="dashboard", instance="a"}': "0x60",
                'up{env="prod", service="dashboard", instance="b"}': "1x60",
            },
            "2m",
            {"TargetDown warning"},
        ),
        (
            {'up{env="prod", service="dashboard", instance="a"}': "0x60"},
            "2m",
            {"TargetDown critical", "TargetDown warning"},
        ),
    ],
)  # fmt: skip
def test_what_fires(
    tmp_path: Path, series: dict[str, str], at: str, fires: set[str]
) -> None:
    assert fired(tmp_path, series, at, fires) == ""


def test_nothing_that_is_measured_is_told_by_name(tmp_path: Path) -> None:
    none = {'release_info{env="prod", service="dashboard"}': "_x60"}
    assert fired(tmp_path, none, "3m", {"MetricsAbsent critical"}) == ""


WRONG = [
    ("rules.yml", r"> 0\.05 and", "> 0.06 and"),
    ("rules.yml", r"> 0\.01 and", "> 0.008 and"),
    ("rules.yml", r">= 0\.166666667", ">= 0"),
    ("rules.yml", r'"for": "30s"', '"for": "10s"'),
    ("rules.yml", r'"for": "1m"', '"for": "5m"'),
    ("rules.yml", r'le=\\"10\.0\\"', r'le=\\"10\\"'),
    ("rules.yml", r"< 0\.05", "> 0.05"),
    ("rules.yml", r"service_ready < 1", "service_ready < 0"),
    ("rules.yml", r"max by", "min by"),
    ("rules.yml", r"_sum\[5m\]", "_count[5m]"),
    ("slo.yml", r"_5m\{slo=\\\"availability\\\"\} > 0.072 and ", "_1h > 0 and "),
    ("slo.yml", r"> 0\.144", "> 0.2"),
    ("slo.yml", r">= 100", ">= 1"),
    ("slo.yml", r" or 0 \* slo:requests:rate_5m", ""),
]  # fmt: skip


@pytest.mark.parametrize(("file", "pattern", "instead"), WRONG)
def test_a_rule_that_is_changed_does_not_pass_its_drill(
    tmp_path: Path, file: str, pattern: str, instead: str
) -> None:
    alerts, rules = generate.asked()
    text = (FOLDER / file).read_text()
    changed, many = re.subn(pattern, lambda _: instead, text, count=1)
    assert many == 1
    (tmp_path / file).write_text(changed)
    document = drills.documents(alerts, rules, alerts.monitoring.environments)[file]
    assert "FAILED" in told(tmp_path, "tests.yml", document)


def test_every_alert_has_a_page_that_says_what_to_do() -> None:
    for rule in generate.asked()[1]:
        page, _, anchor = rule.runbook.partition("#")
        headings = re.findall(r"^### (.+)$", (ROOT / page).read_text(), re.M)
        assert anchor in [heading.lower() for heading in headings]


def test_every_rule_is_drilled_both_ways() -> None:
    alerts, rules = generate.asked()
    text = json.dumps(drills.documents(alerts, rules, ("prod",)))
    for rule in rules:
        assert f'alertname=\\"{rule.alert}\\", severity=\\"{rule.severity}\\"' in text


@pytest.mark.parametrize("env", ["local", "staging", "prod"])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_environment_and_severity_pick_who_is_told(
    tmp_path: Path, env: str, severity: str
) -> None:
    alerts, _ = generate.asked()
    site = committed(alerts)
    every = tuple(alerts.audiences)
    webhooks = {name: f"/s/{name}" for name in every}
    site = replace(site, environments=every, webhooks=webhooks)
    document = alertmanager.configuration(alerts, site)
    place = tmp_path / "alertmanager.yml"
    place.write_text(generate.text(document))
    argv = ("amtool", "config", "routes", "test", f"--config.file={place}")
    said = run(Command((*argv, f"env={env}", f"severity={severity}"))).out.strip()
    (receiver,) = (one for one in document["receivers"] if one["name"] == said)
    channels = {
        "local": "#local-alerts",
        "staging": "#staging-alerts",
        "prod": "#production-alerts",
    }
    people = {
        "critical": "oncall@mltrading.example, devops@mltrading.example",
        "warning": "team@mltrading.example",
    }
    (slack,), (mail,) = receiver["slack_configs"], receiver["email_configs"]
    assert slack["channel"] == channels[env]
    assert slack["api_url_file"] == f"/s/{env}" and "api_url" not in slack
    assert mail["to"] == people[severity]
    urgent = any(each["value"] == "high" for each in slack["fields"])
    assert urgent == (env == "prod" and severity == "critical")
    assert slack["send_resolved"] and mail["send_resolved"]


def test_what_the_dashboard_of_grafana_asks_can_be_asked(tmp_path: Path) -> None:
    panels = grafana.dashboard(generate.asked()[0])["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len({panel["id"] for panel in panels}) == len(panels) > 15
    rules = [
        {"record": f"panel:{n}", "expr": each.replace("$__rate_interval", "5m")}
        for n, each in enumerate(asked)
    ]
    place = tmp_path / "rules.yml"
    place.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    result = run(Command(("promtool", "check", "rules", str(place))))
    assert result.ok, result.tail()


def test_secrets_are_files_only() -> None:
    alerts, _ = generate.asked()
    said = generate.text(alertmanager.configuration(alerts, committed(alerts)))
    said += generate.text(prometheus.configuration(alerts, committed(alerts)))
    for key in ("api_url", "smtp_auth_password", "credentials", "password"):
        assert f'"{key}"' not in said
    assert '"credentials_file"' in said and '"api_url_file"' in said


def test_where_promtool_is_missing_what_mends_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Refused) as caught:
        proving.problems()
    assert caught.value.next == "inv setup" and "promtool, amtool" in caught.value.what


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a checkout that holds the alerts and what they are made from."""
    monkeypatch.setenv("MLTRADING_CACHE", str(tmp_path / "cache"))
    homes = [file for file, _ in generate.HOMES.values()]
    for path in (*generate.files(), "ops/alerts.toml", *homes):
        (tmp_path / "here" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, tmp_path / "here" / path)
    return tmp_path / "here"


def judged(root: Path) -> Verdict:
    (verdict,) = quality.run(("alerts",), root=root)
    return verdict


def test_the_gate_keeps_its_verdict_until_a_file_changes(copied: Path) -> None:
    assert judged(copied).state == "green" and judged(copied).cached
    (copied / generate.NEUTRAL).write_text("{}")
    verdict = judged(copied)
    assert verdict.state == "red" and verdict.fix.startswith("inv alerts")
    assert (
        verdict.findings == f"{generate.NEUTRAL} is not what ops/alerts.toml asks for"
    )
    generate.write(copied)
    assert judged(copied).state == "green"


def test_the_gate_names_what_is_not_allowed(copied: Path) -> None:
    file = copied / "ops" / "alerts.toml"
    file.write_text(file.read_text().replace('p95 = "10s"', 'p95 = "8s"'))
    verdict = judged(copied)
    assert verdict.state == "red"
    assert "[critical] response_time_p95: 8 s is no bound" in verdict.findings


def test_without_promtool_the_gate_compares_and_warns(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proving, "missing", lambda: ["promtool"])
    verdict = judged(copied)
    assert (verdict.state, verdict.fix) == ("warned", "inv setup")
    (copied / generate.FOLDER / "rules.yml").write_text("{}")
    assert judged(copied).state == "red"


def test_a_file_that_nothing_asks_for_is_named_and_removed(copied: Path) -> None:
    assert generate.drift(copied) == []
    (copied / generate.FOLDER / "old.yml").write_text("")
    (copied / generate.FOLDER / "slo.yml").write_text("{}")
    wrong = [f"{generate.FOLDER}/slo.yml", f"{generate.FOLDER}/old.yml"]
    assert generate.drift(copied) == wrong
    assert generate.write(copied) == wrong
    assert generate.drift(copied) == []
