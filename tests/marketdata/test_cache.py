"""The read cache stays within its bytes and hands out what it was given."""

import numpy as np
import pytest

from mltrading_marketdata.cache import Cache


def held(n: int):
    return {"ts": np.zeros(n)}, []


def test_the_one_not_used_for_longest_leaves_first():
    cache = Cache(limit_bytes=2 * 800)
    cache.put((1, 1), held(100))
    cache.put((2, 1), held(100))
    cache.get((1, 1))
    cache.put((3, 1), held(100))
    assert cache.get((1, 1)) and cache.get((3, 1)) and cache.get((2, 1)) is None


def test_what_is_larger_than_the_whole_cache_is_not_held():
    cache = Cache(limit_bytes=100)
    cache.put((1, 1), held(100))
    assert len(cache) == 0


def test_a_new_version_is_a_new_entry():
    cache = Cache(limit_bytes=10_000)
    cache.put((1, 1), held(1))
    assert cache.get((1, 2)) is None


def test_arrays_in_the_cache_cannot_be_written(store, bars):
    store.upsert_bars("ACME", "1d", bars(3), source="test")
    store.bars("ACME")
    columns, _ = next(iter(store._cache._held.values()))
    with pytest.raises(ValueError, match="read-only"):
        columns["close"][0] = 0
