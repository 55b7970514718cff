"""What the alerts ask about is what the dashboard measures: names, labels, bounds."""

import json
import math
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from werkzeug.test import Client

from mltrading_dashboard.app import create_service
from mltrading_dashboard.health import alerts
from mltrading_dashboard.settings import Settings
from mltrading_marketdata import open_store
from tests.dashboard.test_app import PAGE, page_request

# Rules of Prometheus alone: what only it knows, and what is recorded from the rest.
ALONE = {"down", "absent", "burn"}
RULES = [rule for rule in alerts()["rules"] if rule["kind"] not in ALONE]
PANELS = Path(__file__).parents[2] / "ops" / "monitoring" / "dashboard.json"
ENDINGS = {"slow": ("_bucket", "_count"), "mean": ("_sum", "_count")}


@pytest.fixture(scope="module")
def exposed(database_url):
    """What /metrics says after a chart and a callback that does not exist."""
    with pytest.MonkeyPatch.context() as patch:
        opened = []

        def keep(*args, **kwargs):
            opened.append(open_store(*args, **kwargs))
            return opened[-1].__enter__()

        patch.setattr("mltrading_dashboard.app.open_store", keep)
        client = Client(create_service(Settings("test", database_url)).server)
        for body in (page_request("/charts/AAPL"), {"output": "made.up"}):
            client.post("/_dash-update-component", json=body, buffered=True)
        client.get("/health", buffered=True)
        text = client.get("/metrics", buffered=True).text
        for store in opened:
            store.__exit__(None, None, None)
    return text


@pytest.fixture(scope="module")
def samples(exposed):
    families = text_string_to_metric_families(exposed)
    return [sample for family in families for sample in family.samples]


def asked(rule):
    """Return the selectors of a rule as (metric, match)."""
    if rule["kind"] == "ratio":
        return [
            (rule[part]["metric"], rule[part]["match"]) for part in ("part", "whole")
        ]
    names = [rule["metric"] + end for end in ENDINGS.get(rule["kind"], ("",))]
    names += [rule["over"]] if rule.get("over") else []
    return [(name, rule["match"]) for name in names]


@pytest.mark.parametrize(
    "rule", RULES, ids=lambda rule: f"{rule['alert']}-{rule['severity']}"
)
def test_what_a_rule_asks_about_is_measured(samples, rule):
    for metric, match in asked(rule):
        found = [sample for sample in samples if sample.name == metric]
        assert found, f"{metric} is not measured"
        for name, value in match.items():
            values = {sample.labels[name] for sample in found}
            wanted = value.removesuffix("*")
            assert any(each.startswith(wanted) for each in values), values
    if rule["kind"] == "slow":
        bounds = {
            float(sample.labels["le"])
            for sample in samples
            if sample.name == f"{rule['metric']}_bucket"
        }
        assert rule["le"] in bounds - {max(bounds - {math.inf}), math.inf}


def test_what_strangers_ask_for_has_the_label_that_is_left_out(samples):
    routes = {s.labels["route"] for s in samples if s.name == "http_requests_total"}
    left_out = {
        rule[part]["unless"]["route"]
        for rule in RULES
        if rule["kind"] == "ratio"
        for part in ("part", "whole")
    }
    assert left_out == {"<unknown callback>"} and left_out < routes
    assert f"callback {PAGE}" in routes


def test_what_the_panels_of_grafana_show_is_measured(exposed):
    panels = json.loads(PANELS.read_text())["panels"]
    asked = " ".join(each["expr"] for panel in panels for each in panel["targets"])
    names = set(re.findall(r"\b([a-z]+_[a-z_]+)\{", asked))
    known = set(re.findall(r"^# TYPE (\S+) ", exposed, re.M))
    kinds = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
    assert len(kinds) > 12 and kinds <= known | {"slo"}
