"""How often one address may ask, and what who asks more often gets."""

import pytest

from mltrading_dashboard import assets, rate
from mltrading_dashboard.app import create_service
from mltrading_dashboard.rate import Count, Own, Shared, wait, who
from mltrading_dashboard.settings import Settings
from tests.caches import cache

LIMIT = 5


@pytest.mark.parametrize(
    ("before", "now", "elapsed", "seconds"),
    [
        (0, 5, 0, 0),
        (0, 6, 0, 60 + 20),  # the next minute, until 4 of its 6 are left
        (0, 6, 59, 1 + 20),
        (5, 1, 0, 24),  # each 12 s one of the 5 leaves the view
        (5, 1, 12, 0),
        (5, 3, 30, 18),
        (9, 5, 59.9, 0.1 + 12),
        (100, 1, 59.9, 0),
    ],
)
def test_a_request_waits_until_a_minute_holds_it(before, now, elapsed, seconds):
    count = Count(before, now)
    assert wait(count, LIMIT, elapsed) == pytest.approx(seconds)


@pytest.mark.parametrize("before", range(12))
@pytest.mark.parametrize("now", range(1, 12))
@pytest.mark.parametrize("elapsed", [0, 7.3, 30, 59.5])
def test_who_waits_as_long_as_told_may_ask(before, now, elapsed):
    seconds = wait(Count(before, now), LIMIT, elapsed)
    assert 0 <= seconds <= 120
    if seconds:
        then = elapsed + seconds + 1e-6
        later = Count(before, now + 1) if then < 60 else Count(now, 1)
        assert wait(later, LIMIT, then % 60) == 0


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        (None, ""),
        ("", ""),
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("unknown", "unknown"),
        ("x" * 900, "x" * 64),
    ],
)
def test_an_address_is_counted_as_what_one_visitor_has(address, counted):
    assert who(address) == counted


def test_a_worker_counts_by_address_and_minute_and_forgets_the_oldest():
    own = Own(most=2)
    assert [own.add("a", 1) for _ in range(3)][-1] == Count(0, 3)
    assert own.add("b", 1) == Count(0, 1)
    assert own.add("a", 2) == Count(3, 1)
    assert own.add("a", 4) == Count(0, 1)
    own.add("c", 4)
    assert own.add("b", 4) == Count(0, 1)


def test_a_cache_that_is_away_is_left_in_peace_and_the_worker_counts():
    class Away:
        asked = 0

        def pipeline(self, transaction):
            Away.asked += 1
            return self

        def __getattr__(self, name):
            return lambda *args: None

        def execute(self):
            raise ConnectionError

    now = [0.0]
    shared = Shared(Away(), KeyError, "test", clock=lambda: now[0])
    assert [shared.add("a", 1).now for _ in range(4)] == [1, 2, 3, 4]
    assert Away.asked == 1
    now[0] = rate.REST_S
    assert shared.add("a", 1).now == 5 and Away.asked == 2


@pytest.fixture
def limited(store, monkeypatch):
    """A service that an address may ask five times, in a minute that does not end."""
    monkeypatch.setattr(rate.limit, "__defaults__", (lambda: 600.0,))
    settings = Settings("test", "sqlite:///a.db", trusted_proxies=1, rate_limit=LIMIT)
    return create_service(settings, store).server.test_client()


@pytest.mark.integration
def test_all_workers_count_together_in_a_cache(tmp_path):
    with cache(tmp_path) as url:
        one, other = (rate.counts(url, "test") for _ in range(2))
        assert [counts.add("a", 7).now for counts in (one, other, one)] == [1, 2, 3]
        assert other.add("a", 8) == Count(3, 1)
        assert rate.counts(url, "other").add("a", 7) == Count(0, 1)


def ask(client, url="/none", **headers):
    return client.get(url, headers=headers, buffered=True)


def test_who_asks_too_often_is_told_when_to_come_again(limited):
    one, other = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}
    found = [ask(limited, **one) for _ in range(LIMIT + 1)]
    assert [answer.status_code for answer in found] == [404] * LIMIT + [429]
    assert 60 <= int(found[-1].headers["Retry-After"]) <= 120
    assert found[-1].headers["X-Frame-Options"] == "DENY"
    assert ask(limited, **other).status_code == 404


def test_nobody_gets_more_by_writing_who_asks(limited):
    for number in range(LIMIT):
        ask(limited, **{"X-Forwarded-For": f"198.51.100.{number}, 192.0.2.3"})
    forged = {"X-Forwarded-For": "198.51.100.9, 192.0.2.3"}
    assert ask(limited, **forged).status_code == 429


@pytest.mark.parametrize("url", ["/livez", "/readyz", "/version", "/metrics", "file"])
def test_probes_metrics_and_files_are_not_counted(limited, url):
    url = assets.url(assets.STYLE) if url == "file" else url
    one = {"X-Forwarded-For": "192.0.2.4"}
    found = {ask(limited, url, **one).status_code for _ in range(3 * LIMIT)}
    assert found == {200}
    assert ask(limited, **one).status_code == 404


def test_who_has_no_address_is_not_counted(limited):
    nobody = {"environ_base": {"REMOTE_ADDR": ""}, "buffered": True}
    found = {limited.get("/none", **nobody).status_code for _ in range(3 * LIMIT)}
    assert found == {404}
