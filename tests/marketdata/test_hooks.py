"""What a watcher is told: names, counts and times, never values."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from mltrading_marketdata import Hooks, Store, UnknownSymbol, open_store


class News(list):
    """Everything that was told, as (hook, *what)."""

    def hooks(self) -> Hooks:
        def tell(hook: str):
            return lambda *what: self.append((hook, *what))

        return Hooks(*(tell(hook) for hook in Hooks.__slots__))

    def of(self, hook: str) -> list[tuple]:
        return [what for told, *what in self if told == hook]


@pytest.fixture
def news() -> News:
    return News()


@pytest.fixture
def watched(url, news) -> Iterator[Store]:
    with open_store(url, hooks=news.hooks()) as store:
        store.upsert_symbols(pd.DataFrame(index=["ACME"]))
        news.clear()
        yield store


def test_a_read_is_told_by_the_name_of_the_question(watched, news):
    watched.symbols()
    ((name, seconds, outcome),) = news.of("asked")
    assert (name, outcome) == ("Store.symbols", "ok") and 0 < seconds < 5
    (had,) = news.of("connected")
    assert 0 <= had[0] <= seconds


def test_a_write_is_told_by_the_name_of_the_method(watched, news, bars):
    watched.upsert_bars("ACME", "1d", bars(1), source="test")
    watched.set_meta("a", "b")
    told = [name for name, _, outcome in news.of("asked") if outcome == "ok"]
    assert told == ["Store.upsert_bars", "Store.set_meta"]


def test_a_failed_read_is_told_by_the_name_of_the_error(news, tmp_path):
    with open_store(f"sqlite:///{tmp_path}/none.db", hooks=news.hooks()) as store:
        with pytest.raises(Exception, match="cannot be opened"):
            store.symbols()
    assert [what[::2] for what in news.of("asked")] == [
        ["Store.symbols", "Unavailable"]
    ]


def test_the_use_of_the_pool_goes_up_and_down(watched, news):
    watched.symbols()
    assert news.of("pool") == [[1, 5], [0, 5]]


def test_writers_are_told_how_long_they_waited_for_others(watched, url, news, bars):
    with open_store(url) as other, ThreadPoolExecutor(1) as thread:
        with other._access.writing() as c:
            symbol = c.exec_driver_sql("SELECT id FROM symbol").scalar()
            other._access.lock(c, symbol)
            done = thread.submit(
                watched.upsert_bars, "ACME", "1d", bars(1), source="test"
            )
            c.exec_driver_sql("SELECT 1")
        done.result()
    assert news.of("locked") and all(waited >= 0 for (waited,) in news.of("locked"))


def test_the_cache_tells_whether_it_had_the_series(watched, news, bars):
    watched.upsert_bars("ACME", "1d", bars(3), source="test")
    watched.bars("ACME")
    watched.bars("ACME")
    assert news.of("cached") == [[False], [True]]


def test_no_value_is_told(watched, news, bars):
    watched.upsert_bars("ACME", "1d", bars(3), source="secret")
    watched.bars("ACME")
    with pytest.raises(UnknownSymbol):
        watched.bars("HUSH")
    told = repr(list(news))
    assert not any(value in told for value in ("ACME", "HUSH", "secret", "2020"))
