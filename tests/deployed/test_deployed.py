"""What must be true of a dashboard that serves, wherever it is; nothing is written.

The smoke tests are asked of prod after a deploy, all of them of staging.
"""

from __future__ import annotations

import json
import os

import pytest

from ops import probe
from ops.command import Answer

pytestmark = pytest.mark.integration


@pytest.mark.smoke
def test_it_is_live_ready_and_healthy(ask):
    assert [ask(path).status for path in ("/livez", "/readyz", "/health")] == [200] * 3


@pytest.mark.smoke
def test_it_is_the_artefact_that_was_deployed(ask):
    said = ask("/version").json()
    assert said["service"]
    expected = os.environ.get("MLTRADING_EXPECTED_ARTEFACT") or said["artefact"]
    assert said["artefact"] == expected


@pytest.mark.smoke
@pytest.mark.parametrize("path", ["/", "/charts/AAPL"])
def test_a_page_comes_with_its_headers(ask, path):
    page = ask(path)
    assert page.status == 200 and page.headers["content-type"].startswith("text/html")
    assert {name: page.headers.get(name) for name in probe.HEADERS} == probe.HEADERS


@pytest.mark.smoke
def test_the_parts_that_a_browser_fetches_come(ask):
    layout = ask("/_dash-layout")
    assert layout.status == 200 and layout.json()


@pytest.mark.parametrize("path", ["/", "/charts/AAPL"])
def test_a_page_draws_by_the_callback_that_a_browser_posts(ask, path):
    described = ask("/_dash-dependencies")
    answer = Answer(described.status, body=described.text.encode())
    (question,) = probe.callbacks(answer, [path])
    drawn = ask(question.request.path, post=json.loads(question.request.body))
    body = drawn.text.encode()
    assert question.judge(Answer(drawn.status, drawn.headers, body)) == ""


def test_an_address_that_is_none_says_so(ask):
    assert ask("/no/such/page").status == 404


def test_metrics_are_in_the_text_that_prometheus_reads_or_for_nobody_here(ask):
    token = os.environ.get("HEALTH_TOKEN", "")
    metrics = ask("/metrics", token=token)
    if metrics.status == 200:
        assert "# TYPE" in metrics.text
    else:
        assert not token and metrics.status == 401 and "# TYPE" not in metrics.text


def test_health_names_its_checks(ask):
    said = ask("/health").json()
    assert said["status"] == "healthy"
    assert {"database", "memory_usage", "disk_space"} <= set(said["checks"])
