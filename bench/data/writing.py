"""What writing costs: a million new bars, and the same bars again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg

from bench.data import made, peers
from bench.data.cost import Cost, milliseconds, ratio
from bench.data.made import MINUTES, columns
from bench.data.site import ENGINES, Site
from bench.run import figure
from mltrading_marketdata import Store
from ops.errors import StepFailed

Figures = list[dict[str, Any]]


def upsert(site: Site, runs: int) -> Figures:
    """Write a million bars that nobody knows: as one series, and as many."""
    size = site.size
    frame = site.minutes
    sent = made.days(size.sent_symbols, size.sent_days)
    one = f"upsert {len(frame):,} bars"
    many = f"upsert {len(sent):,} × {size.sent_days:,} bars"
    found: dict[str, list[Cost]] = {}

    def note(what: str, work: Callable[[], object], counted: bool) -> None:
        cost = site.meter.cost(work)
        if counted:
            found.setdefault(what, []).append(cost)

    rows = peers.table({1: frame})
    bars = columns(frame)
    # The first round warms up: what is imported, planned and allocated only once.
    for number in range(runs + 1):
        for engine in ENGINES:
            store = site.stores[engine]
            new = f"{MINUTES}{number}"
            names = {name: f"{name}-{number}" for name in sent}
            store.upsert_symbols(pd.DataFrame(index=[new, *names.values()]))
            counted = number > 0
            note(
                f"{one}: ours, {engine}",
                lambda: _send(store, new, "1m", frame),
                counted,
            )
            note(
                f"{many}: ours, {engine}",
                lambda: [_send(store, names[n], "1d", f) for n, f in sent.items()],
                counted,
            )
        note(
            f"{one}: rows, COPY + MERGE",
            lambda: site.postgres_rows.merge(bars),
            counted,
        )
        note(
            f"{one}: rows, SQLite, ON CONFLICT",
            lambda: site.sqlite_rows.upsert(frame),
            counted,
        )
        if site.duck is not None:
            duck = site.duck
            note(f"{one}: DuckDB, OR REPLACE", lambda: duck.upsert(rows), counted)
        note(f"{one}: Parquet, a new file", lambda: site.parquet.write(rows), counted)
    goals = {f"{one}: ours, {engine}": 800.0 for engine in ENGINES}
    figures = [
        milliseconds(name, each, goals.get(name)) for name, each in found.items()
    ]
    ours = found[f"{one}: ours, PostgreSQL"]
    for name, least in (("rows, COPY + MERGE", 4.0), ("DuckDB, OR REPLACE", None)):
        if each := found.get(f"{one}: {name}"):
            title = f"{one}: {name} / ours, PostgreSQL"
            figures.append(ratio(title, each, ours, least=least))
    return figures


def resend(site: Site, runs: int) -> Figures:
    """Send bars that are known already; nothing may be written."""
    figures: Figures = []
    few = list(site.days.items())[:20]
    for engine in ENGINES:
        url, store = site.urls[engine], site.stores[engine]
        site.settle(url)
        costs, chunks, logged = [], [], []
        # Whoever reads pages of PostgreSQL's catalogue first after ANALYZE tidies them
        # up, which is logged, and has to do with no bar.
        _again(store, MINUTES, "1m", site.minutes)
        for _ in range(runs):
            before = _chunks(url), _logged(url)
            costs.append(
                site.meter.cost(
                    lambda store=store: _again(store, MINUTES, "1m", site.minutes)
                )
            )
            for name, frame in few:
                _again(store, name, "1d", frame)
            chunks.append(len(_chunks(url) - before[0]))
            logged.append(_logged(url) - before[1])
        what = f"unchanged re-send of {len(site.minutes):,} bars: ours, {engine}"
        figures += [
            milliseconds(what, costs),
            figure(f"{what}, chunks written", chunks, "chunks", 0),
            figure(f"{what}, log written", logged, "bytes", 0),
        ]
    return figures


def _send(store: Store, name: str, interval: Any, frame: pd.DataFrame) -> None:
    changed = store.upsert_bars(name, interval, frame, source="synthetic")
    if changed.inserted != len(frame):
        raise StepFailed(f"{name}: {changed} of {len(frame)} new bars")


def _again(store: Store, name: str, interval: Any, frame: pd.DataFrame) -> None:
    changed = store.upsert_bars(name, interval, frame, source="synthetic")
    if changed.unchanged != len(frame):
        raise StepFailed(f"{name}: {changed} of {len(frame)} known bars")


def _chunks(url: str) -> set[tuple[object, ...]]:
    """Return what tells each chunk, and each writing of it, from all others."""
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        log = path.with_name(f"{path.name}-wal")
        # Any writing touches one of the two files.
        return {(each.name, each.stat().st_mtime_ns) for each in (path, log)}
    with psycopg.connect(url) as c:
        return set(c.execute("SELECT ctid::text, xmin::text FROM chunk"))


def _logged(url: str) -> int:
    """Return how long the log is, in bytes."""
    if url.startswith("sqlite"):
        return Path(f"{url.removeprefix('sqlite:///')}-wal").stat().st_size
    with psycopg.connect(url) as c:
        place = c.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        return int(place.fetchone()[0])
