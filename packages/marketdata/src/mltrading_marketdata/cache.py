"""Keep the columns of recently read series in memory, up to a number of bytes."""

from __future__ import annotations

import os
from collections import OrderedDict
from threading import Lock
from weakref import WeakSet

from .adjustment import Action
from .codec import Columns

Held = tuple[Columns, list[Action]]
Key = tuple[int, str, int]


class Cache:
    """Least-recently-used series, keyed by (series id, interval, version).

    A new version is a new key, so nothing ever has to be invalidated; the old entry
    falls out by age. Arrays are read-only and shared between callers.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held: OrderedDict[Key, Held] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()
        _live.add(self)

    def unlock(self) -> None:
        """Forget that a thread holds the lock: in a forked child it is not there."""
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: Key) -> Held | None:
        """Return what is held under `key`, or None."""
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
            return found

    def put(self, key: Key, value: Held) -> None:
        """Hold `value`, read-only from now on; the oldest leave until all fits."""
        size = _size(value)
        for column in value[0].values():
            column.flags.writeable = False
        with self._lock:
            if size > self._limit or key in self._held:
                return
            self._held[key] = value
            self._bytes += size
            while self._bytes > self._limit:
                _, old = self._held.popitem(last=False)
                self._bytes -= _size(old)


def _size(value: Held) -> int:
    return sum(column.nbytes for column in value[0].values())


_live: WeakSet[Cache] = WeakSet()


def _unlock_all() -> None:
    for cache in _live:
        cache.unlock()


os.register_at_fork(after_in_child=_unlock_all)
