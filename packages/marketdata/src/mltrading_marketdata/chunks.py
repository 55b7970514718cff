"""Chunks in the database: read those of a range, merge new bars into those they touch.

A chunk is one row: the bars of one series at one interval within one stretch of the
calendar (`interval.period`). Whoever writes holds the lock of the symbol.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import sqlalchemy as sa

from . import interval as intervals
from .codec import CODEC, COLUMNS, Columns, encode, gathered
from .merging import merge
from .rollups import TIERS, rolled
from .tables import chunk

# (rows, codec, payload), in the order of time.
Stored = tuple[int, int, bytes]

_EMPTY = gathered([])


def read(
    c: sa.Connection,
    series: sa.ColumnElement[bool],
    interval: str,
    first: int | None,
    last: int | None,
) -> dict[int, list[Stored]]:
    """Return the chunks of series that hold bars with first <= ts <= last.

    `series` says which, a condition on `chunk.c.series_id`.
    Times are microseconds since 1970 UTC, None is no bound; chunks at the ends hold
    other bars too. A series without any is left out.
    """
    query = sa.select(chunk.c.series_id, chunk.c.n, chunk.c.codec, chunk.c.payload)
    query = query.where(series, chunk.c.interval == interval)
    if first is not None:
        query = query.where(chunk.c.period >= intervals.period_of(first, interval))
    if last is not None:
        query = query.where(chunk.c.period <= intervals.period_of(last, interval))
    query = query.order_by(chunk.c.series_id, chunk.c.period)
    found: dict[int, list[Stored]] = {}
    for series_id, n, codec, payload in c.execute(query):
        found.setdefault(series_id, []).append((n, codec, payload))
    return found


def counts(
    c: sa.Connection, series_id: int, interval: str, first: int, last: int
) -> dict[str, int]:
    """Return about how many bars with first <= ts <= last each interval has.

    The bars of a chunk that lies within only in part count by that part's length.
    """
    tiers = (interval, *TIERS[interval])
    within = [
        (chunk.c.interval == tier)
        & chunk.c.period.between(
            intervals.period_of(first, tier), intervals.period_of(last, tier)
        )
        for tier in tiers
    ]
    query = sa.select(chunk.c.interval, chunk.c.period, chunk.c.n)
    query = query.where(chunk.c.series_id == series_id, sa.or_(*within))
    found = dict.fromkeys(tiers, 0.0)
    for tier, number, n in c.execute(query):
        start, end = intervals.span(number, tier)
        share = (min(end, last + 1) - max(start, first)) / (end - start)
        found[tier] += n * min(1.0, share)
    return {tier: round(n) for tier, n in found.items()}


def merge_into(
    c: sa.Connection, series_id: int, interval: str, new: Columns
) -> tuple[int, int, int]:
    """Merge new bars into a series and its rollups.

    Returns (inserted, updated, unchanged). Chunks that stay the same are not written.
    """
    if not len(new["ts"]):
        return 0, 0, 0
    first, last = int(new["ts"][0]), int(new["ts"][-1])
    stored = _decoded(c, series_id, interval, first, last)
    total = np.zeros(3, int)
    changed: dict[int, Columns] = {}
    for number, part in intervals.split(new, interval):
        merged, *done = merge(stored.get(number, _EMPTY), part)
        total += done
        if done[0] or done[1]:
            changed[number] = merged
    if changed:
        _write(c, series_id, interval, changed, stored)
        for tier in TIERS[interval]:
            _roll(c, series_id, interval, tier, changed)
    return int(total[0]), int(total[1]), int(total[2])


def _decoded(
    c: sa.Connection, series_id: int, interval: str, first: int, last: int
) -> dict[int, Columns]:
    query = sa.select(chunk.c.period, chunk.c.n, chunk.c.codec, chunk.c.payload).where(
        chunk.c.series_id == series_id,
        chunk.c.interval == interval,
        chunk.c.period.between(
            intervals.period_of(first, interval), intervals.period_of(last, interval)
        ),
    )
    return {
        number: gathered([(n, codec, payload)])
        for number, n, codec, payload in c.execute(query)
    }


def _write(
    c: sa.Connection,
    series_id: int,
    interval: str,
    changed: Mapping[int, Columns],
    stored: Collection[int],
) -> None:
    fresh = []
    for number, bars in changed.items():
        values = {"n": len(bars["ts"]), "codec": CODEC, "payload": encode(bars)}
        key = {"series_id": series_id, "interval": interval, "period": number}
        if number in stored:
            own = [chunk.c[name] == value for name, value in key.items()]
            c.execute(chunk.update().where(*own).values(**values))
        else:
            fresh.append(key | values)
    if fresh:
        c.execute(chunk.insert(), fresh)


def _roll(
    c: sa.Connection,
    series_id: int,
    interval: str,
    tier: str,
    changed: Mapping[int, Columns],
) -> None:
    """Make the longer bars of each changed period anew.

    They replace all that the period had: a late bar may have become the first of a
    longer one, which then has another time.
    """
    spans = {number: intervals.span(number, interval) for number in changed}
    first = min(start for start, _ in spans.values())
    last = max(end for _, end in spans.values()) - 1
    stored = _decoded(c, series_id, tier, first, last)
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


def tail(c: sa.Connection, series_id: int, interval: str) -> dict[str, Any]:
    """Return what `series` repeats of the last two bars of a series that has some."""
    own = (chunk.c.series_id == series_id) & (chunk.c.interval == interval)
    query = sa.select(chunk.c.n, chunk.c.codec, chunk.c.payload).where(own)
    query = query.order_by(chunk.c.period.desc()).limit(2)
    (n, codec, payload), *before = c.execute(query).all()
    last = gathered([*(tuple(row) for row in before if n == 1), (n, codec, payload)])
    found: dict[str, Any] = {"last_ts": int(last["ts"][-1])}
    found |= {name: last[name][-1].item() for name in COLUMNS[1:]}
    if len(last["ts"]) > 1:
        found["previous_ts"] = int(last["ts"][-2])
        found["previous_close"] = float(last["close"][-2])
    return found
