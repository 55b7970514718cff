"""alerts.json is read strictly: what would watch nothing is refused with its path."""

import json

import pytest

from mltrading_health.watch import rules
from mltrading_health.watch.rules import Level, RulesError, Selector, Slow
from tests.health.watch.given import DISK, ERRORS, labels


def refused(document):
    with pytest.raises(RulesError) as caught:
        rules.parse(document)
    return str(caught.value)


def test_each_kind_is_read_and_what_needs_prometheus_is_named(alerts):
    names = [(rule.alert, rule.severity) for rule in alerts.rules]
    assert names == [
        ("HighErrorRate", "critical"),
        ("HighErrorRate", "warning"),
        ("SlowResponses", "critical"),
        ("DatabaseSlow", "warning"),
        ("LowDisk", "critical"),
    ]
    assert alerts.left_out == ("TargetDown",)
    assert alerts.thresholds["memory"] == {"warning": 0.8, "critical": 0.9}


def test_a_slow_rule_reads_the_bucket_and_the_count(alerts):
    asks = alerts.rules[2].asks
    assert isinstance(asks, Slow)
    assert asks.fast.metric == "http_request_duration_seconds_bucket"
    assert asks.count.metric == "http_request_duration_seconds_count"
    assert asks.fast.le == 10.0


def test_a_level_chooses_the_same_series_of_both_metrics(rule_of):
    asks = rule_of(DISK, match={"disk": "data"}).asks
    assert isinstance(asks, Level)
    assert asks.over == Selector("disk_size_bytes", labels(disk="data"))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("interval_s",), 0, "interval_s: 0 is not in"),
        (("format",), 2, "format: 2 is not known; allowed: 1"),
        (("rules", 0, "treshold"), 1, "rules[0].treshold: not known; allowed: only"),
        (("rules", 0, "kind"), "rate", "rules[0].kind: 'rate'; allowed: ratio, slow"),
        (("rules", 0, "op"), ">=", "rules[0].op: '>='; allowed: >, <"),
        (("rules", 0, "severity"), "page", "allowed: critical, warning"),
        (("rules", 0, "threshold"), "5%", "threshold: a number is wanted, not '5%'"),
        (("rules", 0, "threshold"), True, "threshold: a number is wanted, not True"),
        (("rules", 0, "threshold"), float("nan"), "threshold: nan is not in"),
        (("rules", 0, "window_s"), 3600, "window_s: 3600 is not in 0.001..600"),
        (("rules", 0, "part", "les"), 1, "rules[0].part.les: not known"),
        (("rules", 0, "part", "match"), {"a": 1}, "part.match.a: a text is wanted"),
        (("rules", 0, "part"), "5xx", "rules[0].part: a table is wanted, not '5xx'"),
        (("rules", 4, "over"), 1, "rules[4].over: a text or null is wanted, not 1"),
        (("rules",), {}, "rules: a list is wanted"),
        (("repeat_s", "page"), 1, "repeat_s.page: not known"),
        (("environments", "prod", "mial"), {}, "environments.prod.mial: not known"),
        (("environments", "prod", "urgent"), 1, "true or false is wanted, not 1"),
        (("environments", "prod", "mail", "warning"), "me", "warning: a table"),
        (("environments", "prod", "mail", "warning"), {"A": 1}, "A: a list of texts"),
        (("thresholds", "memory", "warning"), "80%", "memory.warning: a number is"),
        (("more",), 1, "more: not known"),
    ],
)
def test_what_is_not_known_is_refused_with_its_path(document, path, value, said):
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert said in refused(document)


def test_what_is_missing_is_refused_with_its_path(document):
    del document["rules"][1]["for_s"]
    assert refused(document) == "rules[1].for_s: missing"


def test_two_rules_of_one_name_and_severity_are_refused(document):
    document["rules"].append(document["rules"][0])
    assert refused(document) == "rules[6]: a second critical HighErrorRate"


def test_a_file_that_is_no_json_is_refused_by_name(tmp_path):
    path = tmp_path / "alerts.json"
    path.write_text("{")
    with pytest.raises(RulesError, match="alerts.json: no JSON"):
        rules.load(path)


def test_a_file_is_named_in_what_it_says_wrong(tmp_path, document):
    path = tmp_path / "alerts.json"
    path.write_text(json.dumps(document))
    assert len(rules.load(path).rules) == 5
    path.write_text(json.dumps({**document, "more": 1}))
    with pytest.raises(RulesError, match="alerts.json: more: not known"):
        rules.load(path)


def test_an_environment_that_is_not_known_is_refused(alerts):
    with pytest.raises(RulesError, match="no 'porduction'; known: local, prod"):
        alerts.environment("porduction")


def test_variables_name_people_where_they_are_set(alerts):
    prod = alerts.environment("prod")
    assert prod.with_people({}) == prod
    environ = {
        "MAIL_TO_ONCALL": "a@b, c@d",
        "MAIL_TO_DEVOPS": "c@d",
        "MAIL_FROM": "m@b",
    }
    told = prod.with_people(environ)
    assert told.mail == {"critical": ("a@b", "c@d"), "warning": ("team@example.org",)}
    assert told.sender == "m@b"
    # Whoever names one group has said nothing of the other.
    told = prod.with_people({"MAIL_TO_ONCALL": "a@b"})
    assert told.mail["critical"] == ("a@b", "devops@example.org")


def test_a_placeholder_gets_no_mail(document):
    prod = document["environments"]["prod"]
    prod["mail"]["critical"]["MAIL_TO_DEVOPS"] = ["devops@mltrading.example"]
    told = rules.parse(document).environment("prod").with_people({})
    assert told.mail["critical"] == ("oncall@example.org",)


def test_the_webhook_of_an_environment_comes_before_the_common_one(alerts):
    prod = alerts.environment("prod")
    common = {"SLACK_WEBHOOK_URL": "https://common"}
    own = {**common, "SLACK_WEBHOOK_URL_PRODUCTION": "https://own"}
    assert prod.webhook({}) == ""
    assert prod.webhook(common) == "https://common"
    assert prod.webhook(own) == "https://own"


@pytest.mark.parametrize(
    ("selector", "taken"),
    [
        (Selector("m"), True),
        (Selector("m", labels(status="5xx")), True),
        (Selector("m", labels(status="5xx", route="/other")), False),
        (Selector("m", labels(method="GET")), False),
        (Selector("m", labels(route="/cha*")), True),
        (Selector("m", labels(route="/pie*")), False),
        (Selector("m", unless=labels(route="/charts")), False),
        (Selector("m", unless=labels(route="/c*")), False),
        (Selector("m", unless=labels(method="GET")), True),
        (Selector("m", le=10.0), True),
        (Selector("m", le=5.0), False),
    ],
)
def test_a_selector_takes_by_labels(selector, taken):
    series = labels(status="5xx", route="/charts", le="10")
    assert selector.takes(series) is taken


def test_several_values_of_a_label_can_be_left_out(rule_of):
    of = rule_of(DISK, unless={"disk": ["data", "logs"], "env": "local"}).asks.of
    assert of.unless == labels(env="local") | {("disk", "data"), ("disk", "logs")}
    with pytest.raises(RulesError, match="unless.disk: a list of texts is wanted"):
        rule_of(DISK, unless={"disk": [1]})


@pytest.mark.parametrize(
    ("unit", "value", "said"),
    [
        ("share", 0.0512, "5.12 %"),
        ("seconds", 0.5, "0.5 s"),
        ("bytes", 2.0**29, "512.0 MiB"),
        ("", 2.0, "2"),
        ("share", float("inf"), "inf"),
    ],
)
def test_a_value_is_said_in_its_unit(rule_of, unit, value, said):
    assert rule_of(ERRORS, unit=unit).said(value) == said
