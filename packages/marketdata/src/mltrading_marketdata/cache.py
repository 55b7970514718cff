"""Keep the columns of recently read series in memory, up to a number of bytes."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Event, Lock
from weakref import WeakSet

from .adjustment import Action
from .codec import Columns

Held = tuple[Columns, list[Action]]
Key = tuple[int, str, int]
# Longer than a read may take: who waits for another's read that long reads itself.
_PATIENCE_S = 10.0


class Cache:
    """Least-recently-used series, keyed by (series id, interval, version).

    A new version is a new key, so nothing ever has to be invalidated; the old entry
    falls out by age. `ttl_s` is the longest that anything is held, whatever the
    database says. Arrays are read-only and shared between callers. What several
    threads lack at once is read by one of them. `tell` hears of hits and misses.
    """

    def __init__(
        self,
        limit_bytes: int,
        ttl_s: float = 900.0,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._limit = limit_bytes
        self._ttl = ttl_s
        self._clock = clock
        self._held: OrderedDict[Key, tuple[float, Held]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()
        self._reading: dict[Key, Event] = {}
        self._tell = tell
        _live.add(self)

    def start_over(self) -> None:
        """Forget what threads do that a forked child does not have."""
        self._lock = Lock()
        self._reading = {}

    def __len__(self) -> int:
        return len(self._held)

    @property
    def bytes(self) -> int:
        """Return the size of all arrays that are held."""
        return self._bytes

    def get(self, key: Key) -> Held | None:
        """Return what is held under `key`, or None."""
        with self._lock:
            found = self._fresh(key)
        self._tell(found is not None)
        return found

    def put(self, key: Key, value: Held) -> None:
        """Hold `value`, read-only from now on; the oldest leave until all fits."""
        size = _size(value)
        for column in value[0].values():
            column.flags.writeable = False
        with self._lock:
            self._drop(key)
            if size > self._limit:
                return
            self._held[key] = (self._clock() + self._ttl, value)
            self._bytes += size
            while self._bytes > self._limit:
                self._drop(next(iter(self._held)))

    def fetch(self, key: Key, read: Callable[[], Held]) -> Held:
        """Return what is held under `key`; what is not there is read once and held."""
        found = self.get(key)
        while found is None:
            with self._lock:
                found = self._fresh(key)
                if found is not None:
                    break
                other = self._reading.get(key)
                if other is None:
                    mine = self._reading[key] = Event()
            if other is not None and other.wait(_PATIENCE_S):
                # It has read it, or failed and leaves the attempt to the next.
                continue
            if other is not None:
                return read()
            try:
                value = read()
                self.put(key, value)
                return value
            finally:
                with self._lock:
                    self._reading.pop(key, None)
                mine.set()
        return found

    def _fresh(self, key: Key) -> Held | None:
        entry = self._held.get(key)
        if entry is None or entry[0] <= self._clock():
            return None
        self._held.move_to_end(key)
        return entry[1]

    def _drop(self, key: Key) -> None:
        entry = self._held.pop(key, None)
        if entry is not None:
            self._bytes -= _size(entry[1])


def _size(value: Held) -> int:
    return sum(column.nbytes for column in value[0].values())


_live: WeakSet[Cache] = WeakSet()


def _start_over() -> None:
    for cache in _live:
        cache.start_over()


os.register_at_fork(after_in_child=_start_over)
