"""Chunks in the database: read those of a range, merge new bars into those they touch.

A chunk is one row: the bars of one series at one interval within one stretch of the
calendar (`interval.period`). Whoever writes holds the lock of the symbol.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa

from . import interval as intervals
from . import questions
from .codec import CODEC, COLUMNS, Columns, encode, gathered
from .merging import merge
from .rollups import TIERS, rolled

# (rows, codec, payload), in the order of time.
Stored = tuple[int, int, bytes]

_EMPTY = gathered([])


def read(
    c: sa.Connection,
    series_ids: Collection[int],
    interval: str,
    first: int | None,
    last: int | None,
) -> dict[int, list[Stored]]:
    """Return the chunks of series that hold bars with first <= ts <= last.

    Times are microseconds since 1970 UTC, None is no bound; chunks at the ends hold
    other bars too. A series without any is left out.
    """
    dialect, far = c.dialect.name, questions.NO_BOUND
    asked = {
        "ids": questions.listed(dialect, series_ids),
        "interval": interval,
        "first": -far if first is None else intervals.period_of(first, interval),
        "last": far if last is None else intervals.period_of(last, interval),
    }
    found: dict[int, list[Stored]] = {}
    for series_id, *stored in c.execute(questions.chunks(dialect), asked).all():
        found.setdefault(series_id, []).append(tuple(stored))
    return found


def counts(
    c: sa.Connection, series_id: int, interval: str, first: int, last: int
) -> dict[str, int]:
    """Return about how many bars with first <= ts <= last each interval has.

    The bars of a chunk that lies within only in part count by that part's length.
    """
    tiers = (interval, *TIERS[interval])
    asked: dict[str, Any] = {"own": series_id}
    for tier in tiers:
        asked[f"first_{tier}"] = intervals.period_of(first, tier)
        asked[f"last_{tier}"] = intervals.period_of(last, tier)
    found = dict.fromkeys(tiers, 0.0)
    for tier, number, n in c.execute(questions.counts(interval), asked):
        start, end = intervals.span(number, tier)
        share = (min(end, last + 1) - max(start, first)) / (end - start)
        found[tier] += n * min(1.0, share)
    return {tier: round(n) for tier, n in found.items()}


@dataclass(frozen=True)
class Merged:
    """What became of new bars; `tail` is what `series` repeats of its last two bars."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    tail: Mapping[str, Any] = field(default_factory=dict)


def merge_into(
    c: sa.Connection, series_id: int, interval: str, new: Columns, last_ts: int | None
) -> Merged:
    """Merge new bars into a series, whose last one is at `last_ts`, and its rollups.

    `last_ts` is None where it has none. Chunks that stay the same are not written.
    """
    if not len(new["ts"]):
        return Merged()
    stored: dict[int, Columns] = {}
    if last_ts is not None:
        first, last = int(new["ts"][0]), int(new["ts"][-1])
        stored = _decoded(c, series_id, interval, first, last)
    total = np.zeros(3, int)
    changed: dict[int, Columns] = {}
    for number, part in intervals.split(new, interval):
        merged, *done = merge(stored.get(number, _EMPTY), part)
        total += done
        if done[0] or done[1]:
            changed[number] = merged
    if not changed:
        return Merged(*total.tolist())
    _write(c, series_id, interval, changed, stored)
    for tier in TIERS[interval]:
        _roll(c, series_id, interval, tier, changed, last_ts is None)
    tail = _tail(c, series_id, interval, changed, last_ts)
    return Merged(*total.tolist(), tail)


def _decoded(
    c: sa.Connection, series_id: int, interval: str, first: int, last: int
) -> dict[int, Columns]:
    asked = {
        "own": series_id,
        "at": interval,
        "first": intervals.period_of(first, interval),
        "last": intervals.period_of(last, interval),
    }
    return {
        number: gathered([(n, codec, payload)])
        for number, n, codec, payload in c.execute(questions.STORED, asked)
    }


def _write(
    c: sa.Connection,
    series_id: int,
    interval: str,
    changed: Mapping[int, Columns],
    stored: Collection[int],
) -> None:
    fresh, known = [], []
    for number, bars in changed.items():
        values = {"n": len(bars["ts"]), "codec": CODEC, "payload": encode(bars)}
        if number in stored:
            known.append({"own": series_id, "at": interval, "number": number} | values)
        else:
            key = {"series_id": series_id, "interval": interval, "period": number}
            fresh.append(key | values)
    if known:
        c.execute(questions.REPLACE, known)
    if fresh:
        c.execute(questions.INSERT, fresh)


def _roll(
    c: sa.Connection,
    series_id: int,
    interval: str,
    tier: str,
    changed: Mapping[int, Columns],
    fresh: bool,
) -> None:
    """Make the longer bars of each changed period anew.

    They replace all that the period had: a late bar may have become the first of a
    longer one, which then has another time.
    """
    spans = {number: intervals.span(number, interval) for number in changed}
    first = min(start for start, _ in spans.values())
    last = max(end for _, end in spans.values()) - 1
    stored = {} if fresh else _decoded(c, series_id, tier, first, last)
    made: dict[int, list[Columns]] = {}
    for number, bars in changed.items():
        home = intervals.period_of(spans[number][0], tier)
        made.setdefault(home, []).append(rolled(bars, tier))
    after: dict[int, Columns] = {}
    for home, parts in made.items():
        old = stored.get(home, _EMPTY)
        stays = np.ones(len(old["ts"]), bool)
        for start, end in spans.values():
            stays &= (old["ts"] < start) | (old["ts"] >= end)
        parts = [{name: old[name][stays] for name in COLUMNS}, *parts]
        whole = {name: np.concatenate([p[name] for p in parts]) for name in COLUMNS}
        order = np.argsort(whole["ts"], kind="stable")
        after[home] = {name: column[order] for name, column in whole.items()}
    _write(c, series_id, tier, after, stored)


def _tail(
    c: sa.Connection,
    series_id: int,
    interval: str,
    changed: Mapping[int, Columns],
    last_ts: int | None,
) -> dict[str, Any]:
    number = max(changed)
    last = changed[number]
    before = -1 if last_ts is None else intervals.period_of(last_ts, interval)
    if len(last["ts"]) < 2 or number < before:
        # Other chunks have a part in it.
        rows = c.execute(questions.LAST_TWO, {"own": series_id, "at": interval}).all()
        (n, codec, payload), *older = rows
        last = gathered([*(tuple(row) for row in older if n == 1), (n, codec, payload)])
    found: dict[str, Any] = {"last_ts": int(last["ts"][-1])}
    found |= {name: last[name][-1].item() for name in COLUMNS[1:]}
    if len(last["ts"]) > 1:
        found["previous_ts"] = int(last["ts"][-2])
        found["previous_close"] = float(last["close"][-2])
    return found
