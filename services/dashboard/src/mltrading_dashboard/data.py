"""The questions the pages ask of the store, each asked at most once a second.

New bars are seen within FRESH_S. A remembered answer keeps the pages up through an
outage of the database that is shorter than the cache's time to live.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TypeVar

import pandas as pd

from mltrading_dashboard.flags import Flags
from mltrading_dashboard.standing import Look
from mltrading_marketdata import MARK, PoolExhausted, Unavailable

LARGEST = 256
# A drawn page weighs some 200 kB and is asked for again within seconds, if at all.
PAGES = 24
FRESH_S = 1.0


T = TypeVar("T")


@dataclass(frozen=True)
class Provenance:
    """Where the bars come from and where they end."""

    sources: tuple[str, ...]
    last_bar: datetime | None

    @property
    def sample(self) -> bool:
        return any("sample" in source.lower() for source in self.sources)

    @property
    def invented(self) -> tuple[str, ...]:
        """Return the sources whose bars nobody traded."""
        return tuple(source for source in self.sources if source.startswith(MARK))


class Data:
    """Answers from `store`, fresh ones while it can be asked.

    One that is older than FRESH_S of `clock` is given only while the store cannot
    answer, and never one that is older than `ttl` seconds. `flags` says what there is
    to ask about.
    """

    def __init__(
        self,
        store,
        *,
        ttl: float,
        clock: Callable[[], float],
        flags: Flags = Flags(),
    ) -> None:
        self.flags = flags
        #: What time it is, in UTC.
        self.now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)
        #: How the service itself stands; who makes the service knows.
        self.look: Look | None = None
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
        """Return a drawn page, the same for everybody who looks within a second."""
        return self._remember(self._pages, PAGES, key, draw)

    def _provenance(self) -> Provenance:
        info = self._store.info()
        last = info.get("last_bar")
        sources = tuple(str(source) for source in info.get("sources") or ())
        return Provenance(sources, pd.Timestamp(last) if last is not None else None)

    def _ask(self, key, load):
        return self._remember(self._kept, LARGEST, key, load)

    def _remember(self, kept, largest, key, load):
        now = self._clock()
        with self._lock:
            asked, answered, answer = kept.get(key, (None, None, None))
        if asked is not None and now < asked + min(FRESH_S, self._ttl):
            return answer
        try:
            answer = load()
        except (PoolExhausted, Unavailable):
            if answered is None or now >= answered + self._ttl:
                raise
        else:
            answered = now
        with self._lock:
            # Whoever was told no is not asked again by everybody at once.
            kept[key] = (now, answered, answer)
            kept.move_to_end(key)
            while len(kept) > largest:
                kept.popitem(last=False)
        return answer
