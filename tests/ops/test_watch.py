"""The watch window: what two releases counted, and what follows from it."""

from __future__ import annotations

import pytest

from ops.watch import Sample, judge, parse, together

TEXT = """# HELP http_requests_total Requests answered
http_requests_total{method="GET",route="/",status="2xx"} 90.0
http_requests_total{method="GET",route="/a b",status="5xx"} 10.0
http_requests_created{method="GET",route="/",status="2xx"} 1.7e+09
http_request_duration_seconds_bucket{le="0.1",method="GET",route="/"} 50.0
http_request_duration_seconds_bucket{le="1.0",method="GET",route="/"} 99.0
http_request_duration_seconds_bucket{le="+Inf",method="GET",route="/"} 100.0
"""


def sample(answers: float, errors: float = 0.0, p95: float = 0.1) -> Sample:
    return Sample(answers, errors, {p95: answers, float("inf"): answers})


def test_an_exposition_is_read() -> None:
    found = parse(TEXT)
    assert (found.answers, found.errors, found.p95) == (100.0, 10.0, 1.0)


def test_hosts_count_together() -> None:
    found = together([sample(10, 1), sample(30, 2)])
    assert (found.answers, found.errors, found.within[0.1]) == (40, 3, 40)


def test_an_answer_without_figures_is_an_empty_sample() -> None:
    assert parse("<html>") == Sample()


def test_only_what_came_since_counts() -> None:
    after = Sample(150, 11, {1.0: 140, float("inf"): 150})
    found = after.since(parse(TEXT))
    assert (found.answers, found.errors, found.within[1.0]) == (50, 1, 41)


CASES = [
    ("too few to judge", sample(29, errors=29), sample(1000), "INCONCLUSIVE"),
    ("as good as the old one", sample(100), sample(1000), "PASS"),
    ("one error of a hundred is allowed", sample(100, 1), sample(1000), "PASS"),
    ("two are not", sample(100, 2), sample(1000), "FAIL"),
    ("what the old one failed too", sample(100, 5), sample(100, 5), "PASS"),
    ("slower than before but fast", sample(100, p95=0.9), sample(99, p95=0.1), "PASS"),
    ("more than twice as slow", sample(100, p95=3.0), sample(99, p95=1.0), "FAIL"),
    ("no old one to compare with", sample(100, p95=2.5), Sample(), "FAIL"),
    ("no old one, all well", sample(100), Sample(), "PASS"),
    ("one error alone", sample(30, 1), sample(100), "PASS"),
    ("an old one with too few to compare with", sample(99, 9), sample(9, 9), "FAIL"),
]


@pytest.mark.parametrize(
    ("why", "new", "old", "state"), CASES, ids=[c[0] for c in CASES]
)
def test_the_verdict_of_a_case(why: str, new: Sample, old: Sample, state: str) -> None:
    assert judge(new, old).state == state
