"""What the pages are told: fresh bars, or those remembered through an outage."""

import pandas as pd
import pytest

from mltrading_dashboard.data import FRESH_S, Data
from mltrading_marketdata import Unavailable


class Store:
    """A store whose bars grow with every question, until it is away."""

    def __init__(self) -> None:
        self.asked = 0
        self.away = False

    def bars(self, symbol: str) -> pd.DataFrame:
        self.asked += 1
        if self.away:
            raise Unavailable("gone")
        return pd.DataFrame({"close": range(self.asked)})


@pytest.fixture
def now() -> list[float]:
    return [100.0]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def data(store: Store, now: list[float]) -> Data:
    return Data(store, ttl=300, clock=lambda: now[0])


def test_the_store_is_asked_once_a_second(data, store, now):
    assert len(data.bars("ACME")) == len(data.bars("ACME")) == store.asked == 1
    now[0] += FRESH_S
    assert len(data.bars("ACME")) == 2


def test_an_outage_shows_the_bars_of_before_and_asks_once_a_second(data, store, now):
    data.bars("ACME")
    store.away = True
    now[0] += FRESH_S
    assert len(data.bars("ACME")) == len(data.bars("ACME")) == 1
    assert store.asked == 2
    store.away = False
    now[0] += FRESH_S
    assert len(data.bars("ACME")) == 3


def test_an_outage_that_is_longer_than_the_time_to_live_is_told(data, store, now):
    data.bars("ACME")
    store.away = True
    for _ in range(299):
        now[0] += FRESH_S
        data.bars("ACME")
    now[0] += FRESH_S
    with pytest.raises(Unavailable):
        data.bars("ACME")


def test_what_was_never_read_cannot_be_remembered(data, store):
    store.away = True
    with pytest.raises(Unavailable):
        data.bars("ACME")
