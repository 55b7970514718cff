"""The read cache stays within its bytes and hands out what it was given."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mltrading_marketdata.cache import Cache


def held(n: int):
    return {"ts": np.zeros(n)}, []


def test_the_one_not_used_for_longest_leaves_first():
    cache = Cache(limit_bytes=2 * 800)
    cache.put((1, "1d", 1), held(100))
    cache.put((2, "1d", 1), held(100))
    cache.get((1, "1d", 1))
    cache.put((3, "1d", 1), held(100))
    assert (
        cache.get((1, "1d", 1))
        and cache.get((3, "1d", 1))
        and cache.get((2, "1d", 1)) is None
    )


def test_what_is_larger_than_the_whole_cache_is_not_held():
    cache = Cache(limit_bytes=100)
    cache.put((1, "1d", 1), held(100))
    assert len(cache) == 0


def test_a_new_version_is_a_new_entry():
    cache = Cache(limit_bytes=10_000)
    cache.put((1, "1d", 1), held(1))
    assert cache.get((1, "1d", 2)) is None


def test_arrays_in_the_cache_cannot_be_written(store, bars):
    store.upsert_bars("ACME", "1d", bars(3), source="test")
    store.bars("ACME")
    _, (columns, _) = next(iter(store._cache._held.values()))
    with pytest.raises(ValueError, match="read-only"):
        columns["close"][0] = 0


def test_nothing_is_held_for_longer_than_its_time():
    now = [0.0]
    cache = Cache(10_000, ttl_s=300, clock=lambda: now[0])
    cache.put((1, "1d", 1), held(1))
    now[0] = 299
    assert cache.get((1, "1d", 1))
    now[0] = 300
    assert cache.get((1, "1d", 1)) is None


def test_what_several_lack_is_read_once():
    cache, reads, all_there = Cache(10_000), [], threading.Barrier(8)

    def read():
        reads.append(1)
        return held(1)

    def ask(_):
        all_there.wait()
        return cache.fetch((1, "1d", 1), read)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert len(reads) == 1 and all(one is answers[0] for one in answers)


def test_a_read_that_fails_is_left_to_the_next():
    cache, tries, begun, go = Cache(10_000), [], threading.Event(), threading.Event()

    def read():
        tries.append(1)
        if len(tries) == 1:
            begun.set()
            go.wait()
            raise OSError("gone")
        return held(1)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.fetch, (1, "1d", 1), read)
        begun.wait()
        second = pool.submit(cache.fetch, (1, "1d", 1), read)
        go.set()
        with pytest.raises(OSError, match="gone"):
            first.result()
        assert second.result() and len(tries) == 2


def test_a_forked_child_waits_for_no_thread_of_its_parent():
    cache, begun, go = Cache(10_000), threading.Event(), threading.Event()

    def read():
        begun.set()
        go.wait()
        return held(1)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(cache.fetch, (1, "1d", 1), read)
        begun.wait()
        child = os.fork()
        if not child:
            cache.fetch((1, "1d", 1), lambda: held(1))
            os._exit(0)
        go.set()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
