"""What browsers report is checked and bounded before it is counted."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mltrading_health import Health, Metrics
from mltrading_health.client import (
    LARGEST_BODY,
    SHIFT_BUCKETS,
    VITAL_BUCKETS,
    ClientTimings,
    Limits,
    Rate,
)

PAGES = ("home", "charts")
HOST = {"HTTP_HOST": "desk.example"}
SEED = {"load_time": 812, "user_agent": "Mozilla/5.0", "timestamp": 1_795_000_000_000}
VITALS = [
    {"name": "LCP", "value": 2400.0, "rating": "good", "delta": 1, "id": "v5-1"},
    {"name": "INP", "value": 80},
    {"name": "CLS", "value": 0.04},
    {"name": "FCP", "value": 900.5},
    {"name": "TTFB", "value": 0},
]


@pytest.fixture
def metrics():
    return Metrics(environ={})


@pytest.fixture
def timings(metrics):
    return ClientTimings(metrics, PAGES, clock=lambda: 0.0)


def request(body, **more):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return {
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(data)),
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.input": io.BytesIO(data),
        **HOST,
        **more,
    }


def code(answer):
    return int(answer[0].split()[0])


def series(metrics):
    return {
        (name, *sorted(labels)): value
        for name, found in metrics.snapshot().samples.items()
        for labels, value in found.items()
        if name.startswith("browser_") and not name.endswith("_bucket") and value
    }


def refused(metrics, reason):
    return metrics.snapshot().total("browser_reports_refused_total", reason=reason)


def test_a_load_time_is_counted_and_the_visitor_is_not(timings, metrics):
    assert timings.receive(request(SEED)) == ("204 No Content", "", b"")
    assert series(metrics) == {
        ("browser_page_load_seconds_count", ("page", "other")): 1,
        ("browser_page_load_seconds_sum", ("page", "other")): 0.812,
    }
    assert b"Mozilla" not in metrics.render(Health("x"))[0]


@pytest.mark.parametrize(
    "body",
    [
        {"page": "charts", "vitals": VITALS},
        [{"page": "charts", **vital} for vital in VITALS],
    ],
)
def test_web_vitals_are_counted_by_page(timings, metrics, body):
    assert code(timings.receive(request(body))) == 204
    found = series(metrics)
    page = ("page", "charts")
    assert found["browser_web_vital_seconds_sum", page, ("vital", "LCP")] == 2.4
    assert found["browser_web_vital_seconds_count", page, ("vital", "TTFB")] == 1
    assert found["browser_layout_shift_sum", page] == 0.04
    assert len(found) == 4 + 3 + 2


def test_one_metric_as_web_vitals_gives_it(timings, metrics):
    beacon = request({**VITALS[0], "page": "home"}, CONTENT_TYPE="text/plain")
    assert code(timings.receive(beacon)) == 204
    sum_of = ("browser_web_vital_seconds_sum", ("page", "home"), ("vital", "LCP"))
    assert series(metrics)[sum_of] == 2.4


@pytest.mark.parametrize("kind", ["text/plain;charset=UTF-8", "Application/JSON"])
def test_a_beacon_is_text(timings, kind):
    assert code(timings.receive(request(SEED, CONTENT_TYPE=kind))) == 204


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"\xff", b"[" * 4000, b'{"load_time": NaN}', b"1" * 4096),
        *({}, [], "x", 5, None, [1], {"vitals": {}}, {"vitals": []}, {"name": "LCP"}),
        *({"load_time": bad} for bad in (-1.79e12, 600_001, "812", True, None, [])),
        {"load_time": 1, "page": 5},
        {"load_time": 1, "timestamp": None},
        {"load_time": 1, "user_agent": 5},
        {"load_time": 1, "vitals": [{"name": "LCP", "value": -1}]},
        {"vitals": [{"name": "CLS", "value": 101}]},
        {"vitals": [{"name": "FID", "value": 1}]},
        {"vitals": [{"name": ["LCP"], "value": 1}]},
        {"vitals": [{"name": "CLS", "value": 0}] * 21},
    ],
)
def test_what_is_no_report_is_refused_whole(timings, metrics, body):
    assert code(timings.receive(request(body))) == 400
    only = {("browser_reports_refused_total", ("reason", "invalid")): 1}
    assert series(metrics) == only


def test_a_report_has_twenty_items(timings):
    body = {"vitals": [{"name": "CLS", "value": 0}] * 20}
    assert code(timings.receive(request(body))) == 204


@pytest.mark.parametrize(
    "more",
    [
        {"CONTENT_LENGTH": "4097"},
        {"CONTENT_LENGTH": "9" * 5000},
        {"CONTENT_LENGTH": "", "wsgi.input_terminated": True},
    ],
)
def test_a_large_report_is_not_read(timings, metrics, more):
    body = request(b" " * 9000, **more)
    assert code(timings.receive(body)) == 413
    assert body["wsgi.input"].tell() <= LARGEST_BODY + 1
    assert refused(metrics, "large") == 1


@pytest.mark.parametrize("length", ["", "-1", "0x5", "²"])
def test_a_length_must_be_known(timings, length):
    assert code(timings.receive(request(SEED, CONTENT_LENGTH=length))) == 400


def test_chunks_are_read(timings):
    chunked = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}
    assert code(timings.receive(request(SEED, **chunked))) == 204


@pytest.mark.parametrize("kind", ["", "text/html", "multipart/form-data"])
def test_other_types_are_refused(timings, metrics, kind):
    assert code(timings.receive(request(SEED, CONTENT_TYPE=kind))) == 415
    assert refused(metrics, "type") == 1


@pytest.mark.parametrize(
    "headers, expected",
    [
        ({}, 204),
        ({"HTTP_SEC_FETCH_SITE": "same-origin"}, 204),
        ({"HTTP_SEC_FETCH_SITE": "same-site"}, 403),
        ({"HTTP_SEC_FETCH_SITE": "cross-site", "HTTP_ORIGIN": "x://desk.example"}, 403),
        ({"HTTP_ORIGIN": "https://Desk.example"}, 204),
        ({"HTTP_ORIGIN": "https://desk.example.evil"}, 403),
        ({"HTTP_ORIGIN": "null"}, 403),
        ({"HTTP_ORIGIN": "null", "HTTP_HOST": ""}, 403),
    ],
)
def test_pages_of_other_sites_cannot_report(timings, metrics, headers, expected):
    assert code(timings.receive(request(SEED, **headers))) == expected
    assert refused(metrics, "origin") == (expected == 403)


def test_a_client_is_slowed_down_and_others_are_not(metrics):
    now = [0.0]
    timings = ClientTimings(
        metrics, PAGES, client=Rate(0.5, 2), clock=lambda: now[0], proxies=1
    )

    def send(address):
        return code(timings.receive(request(SEED, HTTP_X_FORWARDED_FOR=address)))

    assert [send("forged, 192.0.2.7") for _ in range(3)] == [204, 204, 429]
    assert send("192.0.2.8") == 204
    now[0] = 2.0
    assert [send("other, 192.0.2.7") for _ in range(2)] == [204, 429]
    assert refused(metrics, "rate") == 2


@pytest.mark.parametrize(
    "proxies, told, expected",
    [
        (0, "192.0.2.7", "192.0.2.1"),
        (1, "192.0.2.7, 192.0.2.8", "192.0.2.8"),
        (2, "forged, 192.0.2.7, 192.0.2.8", "192.0.2.7"),
        (3, "192.0.2.7", "192.0.2.7"),
        (1, "", ""),
    ],
)
def test_a_client_is_who_our_outermost_proxy_saw(metrics, proxies, told, expected):
    timings = ClientTimings(metrics, PAGES, proxies=proxies)
    assert timings._client(request(SEED, HTTP_X_FORWARDED_FOR=told)) == expected


def test_a_flood_of_addresses_meets_the_limit_of_the_worker_in_bounded_memory():
    limits = Limits(Rate(1, 5), Rate(10, 100), most=50)
    taken = [limits.take(f"client {number}", 0.0) for number in range(5_000)]
    assert sum(taken) == 100 and len(limits._clients) == 50
    assert limits.take("client 1", 1.0)


def test_bounds_of_good_and_poor_are_buckets():
    assert {0.2, 0.5, 0.8, 1.8, 2.5, 3.0, 4.0} < set(VITAL_BUCKETS)
    assert {0.1, 0.25} < set(SHIFT_BUCKETS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["load_time", "vitals", "name", "value", "page"]) | st.text(),
        inner | st.sampled_from(["LCP", "CLS", "charts"]),
        max_size=4,
    ),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None)
@given(st.lists(JSON, max_size=8))
def test_a_flood_of_anything_is_answered_and_makes_no_series(bodies):
    metrics = Metrics(environ={})
    timings = ClientTimings(metrics, PAGES, client=Rate(1, 1000))
    for body in bodies:
        data = json.dumps(body).encode()
        assert code(timings.receive(request(data))) in (204, 400, 413)
    most = 3 * (len(VITAL_BUCKETS) + 3) * 4 + 3 * 26 + 5
    found = metrics.snapshot().samples
    assert sum(len(s) for n, s in found.items() if n.startswith("browser_")) < most
