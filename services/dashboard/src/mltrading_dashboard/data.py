"""The questions the pages ask of the store, remembered for a while.

A remembered answer keeps the pages up through a short outage of the database.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import pandas as pd

LARGEST = 256
# A drawn page weighs some 200 kB and is asked for again within seconds, if at all.
PAGES = 24
PAGE_S = 10.0


T = TypeVar("T")


@dataclass(frozen=True)
class Provenance:
    """Where the bars come from and where they end."""

    sources: tuple[str, ...]
    last_bar: datetime | None

    @property
    def sample(self) -> bool:
        return any("sample" in source.lower() for source in self.sources)


class Data:
    """Answers from `store`, each kept for `ttl` seconds of `clock`."""

    def __init__(self, store, *, ttl: float, clock: Callable[[], float]) -> None:
        self._store = store
        self._ttl = ttl
        self._clock = clock
        self._kept: OrderedDict = OrderedDict()
        self._pages: OrderedDict = OrderedDict()
        self._lock = threading.Lock()

    def symbols(self) -> pd.DataFrame:
        """Return one row per symbol (index symbol), in the order of the symbols."""
        return self._ask(("symbols",), lambda: self._store.symbols().sort_index())

    def bars(self, symbol: str) -> pd.DataFrame:
        """Return all daily bars of a symbol: UTC index, open high low close volume.

        Raises UnknownSymbol, or another StoreError when the store cannot answer.
        """
        return self._ask(("bars", symbol), lambda: self._store.bars(symbol))

    def provenance(self) -> Provenance:
        """Return where the bars come from."""
        return self._ask(("provenance",), self._provenance)

    def page(self, key: Hashable, draw: Callable[[], T]) -> T:
        """Return a drawn page, the same for everybody who looks within seconds."""
        return self._remember(self._pages, PAGES, min(self._ttl, PAGE_S), key, draw)

    def _provenance(self) -> Provenance:
        info = self._store.info()
        last = info.get("last_bar")
        sources = tuple(str(source) for source in info.get("sources") or ())
        return Provenance(sources, pd.Timestamp(last) if last is not None else None)

    def _ask(self, key, load):
        return self._remember(self._kept, LARGEST, self._ttl, key, load)

    def _remember(self, kept, largest, ttl, key, load):
        now = self._clock()
        with self._lock:
            entry = kept.get(key)
        if entry and entry[0] > now:
            return entry[1]
        answer = load()
        with self._lock:
            kept[key] = (now + ttl, answer)
            kept.move_to_end(key)
            while len(kept) > largest:
                kept.popitem(last=False)
        return answer
