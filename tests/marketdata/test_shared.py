"""The cache that processes share, on a real server, and its absence."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from mltrading_marketdata import StoreError, open_store
from mltrading_marketdata.adjustment import Action
from mltrading_marketdata.shared import key, open_shared, packed, unpacked
from tests.caches import cache

ROWS = [(3, 2, b"abc"), (1, 2, b"")]
ACTIONS = [Action(7, "split", 2.0)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with cache(tmp_path) as url:
        yield url


def test_what_is_packed_comes_back_and_what_is_not_ours_does_not():
    value = packed(ROWS, ACTIONS)
    assert unpacked(value) == (ROWS, ACTIONS)
    assert unpacked(packed([], [])) == ([], [])
    for other in (b"", b"junk", value[:-1], value + b"x", b"\0" * 40 + value):
        assert unpacked(other) is None


def test_databases_versions_and_intervals_have_keys_of_their_own():
    every = {
        key("host/a", 1, "1d", 7),
        key("host/b", 1, "1d", 7),
        key("host/a", 2, "1d", 7),
        key("host/a", 1, "1h", 7),
        key("host/a", 1, "1d", 8),
    }
    assert len(every) == 5


@pytest.mark.parametrize("url", ["http://x/0", "valkey://u:p@h:port/0", "nothing"])
def test_an_address_that_is_none_is_refused_without_its_password(url):
    with pytest.raises(StoreError, match="CACHE_URL") as told:
        open_shared(url, 300)
    assert "u:p" not in str(told.value)


@pytest.mark.integration
def test_a_second_process_reads_from_the_cache(store, url, bars, server):
    store.upsert_bars("ACME", "1d", bars(600), source="test")
    store.upsert_actions("ACME", ACTIONS)
    with open_store(url, cache_url=server) as one:
        first = one.bars("ACME", adjust="all")
    heard = []
    with open_store(url, cache_url=server) as two:
        two._stored = lambda *_: heard.append("the database")
        again = two.bars("ACME", adjust="all")
    pd.testing.assert_frame_equal(first, again)
    assert heard == []


@pytest.mark.integration
def test_a_new_version_is_not_taken_from_the_cache(store, url, bars, server):
    with open_store(url, cache_url=server) as one:
        store.upsert_bars("ACME", "1d", bars(3), source="test")
        assert len(one.bars("ACME")) == 3
        store.upsert_bars("ACME", "1d", bars(5), source="test")
    with open_store(url, cache_url=server) as two:
        assert len(two.bars("ACME")) == 5


def test_a_cache_that_is_away_is_not_needed_and_left_in_peace(store, url, bars):
    store.upsert_bars("ACME", "1d", bars(600), source="test")
    with socket.socket() as taken:
        # Nobody listens there: bound, so that nobody else takes it meanwhile.
        taken.bind(("127.0.0.1", 0))
        away = f"valkey://127.0.0.1:{taken.getsockname()[1]}/0"
        with open_store(url, cache_url=away) as opened:
            assert len(opened.bars("ACME")) == 600
            assert opened._shared._rests_until > 0
            assert opened._shared.get("anything") is None
