"""What the store tells whoever watches it: plain callables, nothing imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _ignore(*_: object) -> None:
    """Take any news and do nothing."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """Callables that are told what happens, in the thread in which it happens.

    They must be quick and must not raise. Times are seconds. `name` says which question
    it was ("Store.bars"), never with which values; `reason` is a short fixed word.
    """

    # asked(name, seconds, outcome): a read or a transaction has ended, tries and waits
    # counted in; outcome is "ok" or the name of the error, such as "Unavailable".
    asked: Callable[[str, float, str], None] = _ignore
    # retried(name, reason): a read is asked again: "cut", "silent" or "plan".
    retried: Callable[[str, str], None] = _ignore
    # connected(seconds): a connection was had from the pool after so long.
    connected: Callable[[float], None] = _ignore
    # pool(in_use, size): the connections of this process that somebody holds now.
    pool: Callable[[int, int], None] = _ignore
    # locked(seconds): a writer had waited so long for others.
    locked: Callable[[float], None] = _ignore
    # cached(hit): a series was asked of the cache.
    cached: Callable[[bool], None] = _ignore


SILENT = Hooks()
