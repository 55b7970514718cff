"""The status page, and the look at the service that it shows."""

import fcntl
import json
from datetime import datetime, timezone

import pandas as pd
import pytest

from mltrading_dashboard import security
from mltrading_dashboard.app import create_service
from mltrading_dashboard.pages.status import age
from mltrading_dashboard.settings import Settings
from mltrading_health.firing import firing
from mltrading_marketdata import Unavailable
from tests.dashboard.test_app import ask, page_request

BEAT = {
    "output": "standing.children",
    "outputs": {"id": "standing", "property": "children"},
    "inputs": [{"id": "beat", "property": "data", "value": 7}],
    "changedPropIds": ["beat.data"],
}
LOW = {"alert": "LowDisk", "severity": "critical", "labels": [["disk", "data"]]}
HIGH = {"alert": "HighMemory", "severity": "warning", "labels": [["env", "prod"]]}


def service(store, **more):
    told = {"metrics": "open", "release": "v7", "commit": "c0ffee" * 6, **more}
    return create_service(Settings("test", "sqlite:///a.db", **told), store)


def shown(made):
    return ask(made.server.test_client(), page_request("/status"))


@pytest.mark.smoke
def test_the_page_shows_checks_data_release_and_alerts(store):
    made = service(store)
    text = shown(made).text
    for part in (
        "All checks pass",
        "Disk space",
        "2013-03-01",
        "years ago",
        "v7",
        "c0ffeec0ffee",
        "ALERTS is off",
        "Seen at 20",
    ):
        assert part in text, part
    assert '"Status"' in text
    assert made.server.test_client().get("/status").status_code == 200


def test_a_beat_draws_what_is_true_now(store):
    made = service(store)
    now = [True]
    made.health.checks["disk_space"].fn = lambda: now[0]
    made.health.checks["disk_space"].ttl = 0.0
    client = made.server.test_client()
    assert "A check fails" not in ask(client, BEAT).text
    now[0] = False
    made.health.checks["disk_space"].fall = 1
    assert "A check fails" in ask(client, BEAT).text


def test_a_lost_database_is_told_and_the_rest_stays(no_answer):
    made = service(no_answer)
    text = shown(made).text
    assert "A check fails" in text and "Market data is unavailable" in text
    assert "v7" in text and "Data unavailable" in text
    assert made.server.test_client().get("/status").status_code == 503


def test_an_outage_is_never_covered_by_an_older_page(store):
    made = service(store)
    assert "All checks pass" in shown(made).text

    def gone():
        raise Unavailable("the secret host does not answer")

    made.health.checks["database"].fn = gone
    made.health.checks["database"].ttl = 0.0
    made.health._kept.clear()
    made.health.checks["database"]._kept_for = 0.0
    assert "A check fails" in shown(made).text


def test_strangers_are_told_no_numbers_and_no_reasons(no_answer):
    def gone():
        raise Unavailable("host db-7 is away")

    made = service(no_answer, metrics="token", health_token="t" * 16)
    made.health.checks["database"].fn = gone
    text = shown(made).text
    assert "A check fails" in text and "db-7" not in text and "MiB" not in text
    assert "for who may read the metrics" in text
    made = service(no_answer)
    made.health.checks["database"].fn = gone
    assert "db-7" in shown(made).text


def book(folder, *alerts):
    document = {"format": 1, "alerts": list(alerts), "waiting": []}
    (folder / "watch.json").write_text(json.dumps(document))


def test_what_fires_is_known_while_somebody_watches(tmp_path):
    fires = [{**LOW, "phase": p} for p in ("firing", "pending", "")]
    book(tmp_path, *fires, {**HIGH, "phase": "firing"})
    assert firing(tmp_path, labels=True) is None
    with (tmp_path / "watch.lock").open("w") as seat:
        fcntl.flock(seat, fcntl.LOCK_EX)
        found = firing(tmp_path, labels=True)
        assert found == ("critical LowDisk (disk data)", "warning HighMemory")
        hidden = firing(tmp_path, labels=False)
        assert hidden == ("critical LowDisk", "warning HighMemory")
        book(tmp_path)
        assert firing(tmp_path, labels=True) == ()
    assert firing(tmp_path, labels=True) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"alerts": [1]}', "null"])
def test_a_book_that_is_none_is_not_known(tmp_path, text):
    (tmp_path / "watch.json").write_text(text)
    with (tmp_path / "watch.lock").open("w") as seat:
        fcntl.flock(seat, fcntl.LOCK_EX)
        assert firing(tmp_path, labels=True) is None


@pytest.mark.parametrize(
    ("alerts", "said"),
    [
        ("evaluator", "Alerts firing: 1"),
        ("prometheus", "Prometheus judges the metrics"),
        ("off", "ALERTS is off"),
    ],
)
def test_the_page_says_who_judges_and_what_fires(store, tmp_path, alerts, said):
    book(tmp_path, {**LOW, "phase": "firing"})
    with (tmp_path / "watch.lock").open("w") as seat:
        fcntl.flock(seat, fcntl.LOCK_EX)
        text = shown(service(store, alerts=alerts, shared_dir=tmp_path)).text
    assert said in text
    assert ("critical LowDisk (disk data)" in text) == (alerts == "evaluator")


def test_an_empty_seat_is_not_taken_for_peace(store, tmp_path):
    text = shown(service(store, alerts="evaluator", shared_dir=tmp_path)).text
    assert "Nobody judges the metrics at the moment" in text
    assert "No alert fires" not in text


@pytest.mark.parametrize(
    ("day", "said"),
    [
        ("2026-11-26", "today"),
        ("2026-11-25", "yesterday"),
        ("2026-11-20", "6 days ago"),
        ("2013-03-01", "13.7 years ago"),
    ],
)
def test_the_age_of_data_is_in_words(day, said):
    now = datetime(2026, 11, 26, 1, 2, tzinfo=timezone.utc)
    assert age(pd.Timestamp(day, tz="UTC"), now) == said


def test_a_beat_from_another_site_is_refused(store):
    client = service(store).server.test_client()
    headers = {"Sec-Fetch-Site": "cross-site"}
    answer = client.post(security.CALLBACKS, json=BEAT, headers=headers)
    assert answer.status_code == 403
