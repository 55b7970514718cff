"""What keeping costs: bytes per bar, memory of a reader, and how soon news is seen."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from typing import Any

import pandas as pd
import psycopg

from bench.data.made import MINUTES
from bench.data.rows import BARS
from bench.data.site import ENGINES, Site
from bench.run import figure
from mltrading_marketdata import SampleSource, Store, ingest, open_store
from ops.environment import ROOT

Figures = list[dict[str, Any]]
FRESH = "FRESH"


def size(site: Site, runs: int) -> Figures:
    """Return bytes per bar of the real sample and of invented bars, and of rows."""
    figures: Figures = []
    for engine in ENGINES:
        url = site.empty(engine)
        bare = _bytes(site, url)
        with open_store(url) as store:
            done = ingest(store, SampleSource())
            bars = done.total("inserted")
        figures.append(
            _per_bar(f"real sample: {engine}", _bytes(site, url), bare, bars, 32)
        )
        if engine == "PostgreSQL":
            payload = _payload(url, "1d") / bars
            figures.append(
                figure("size, real sample: payload alone", [payload], "bytes per bar")
            )
        for what, interval, series in (
            (f"{len(site.minutes):,} minutes", "1m", {MINUTES: site.minutes}),
            (f"{len(site.days)} × {site.size.days:,} days", "1d", site.days),
        ):
            url = site.empty(engine)
            with open_store(url) as store:
                store.upsert_symbols(pd.DataFrame(index=list(series)))
                for name, frame in series.items():
                    store.upsert_bars(name, interval, frame, source="synthetic")
            number = sum(len(frame) for frame in series.values())
            row = _per_bar(f"{what}: {engine}", _bytes(site, url), bare, number)
            figures.append(row)
            if engine == "PostgreSQL":
                payload = _payload(url, interval) / number
                figures.append(
                    figure(f"size, {what}: payload alone", [payload], "bytes per bar")
                )
    number = len(site.minutes) + sum(len(each) for each in site.days.values())
    rows = site.postgres_rows.bytes()
    figures.append(figure("size, rows: PostgreSQL", [rows / number], "bytes per bar"))
    return figures


def _per_bar(
    what: str, full: int, bare: int, bars: int, goal: float | None = None
) -> dict[str, Any]:
    return figure(f"size, {what}", [(full - bare) / bars], "bytes per bar", goal)


def _bytes(site: Site, url: str) -> int:
    """Return what a database takes: its file; or its bars with index and rollups."""
    site.settle(url)
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as c:
            pages = c.execute("PRAGMA page_count").fetchone()[0]
            return int(pages) * int(c.execute("PRAGMA page_size").fetchone()[0])
    with psycopg.connect(url) as c:
        found = c.execute("SELECT pg_total_relation_size('chunk')").fetchone()
        return int(found[0]) if found else 0


def _payload(url: str, interval: str) -> int:
    with psycopg.connect(url) as c:
        query = "SELECT sum(length(payload)) FROM chunk WHERE interval = %s"
        found = c.execute(query, (interval,)).fetchone()
        return int(found[0]) if found else 0


def memory(site: Site, runs: int) -> Figures:
    """Return how much the peak of a new process grows by one read of all minutes."""
    ways = {f"ours, {engine}": ("ours", site.urls[engine]) for engine in ENGINES}
    ways["read_sql, PostgreSQL"] = ("read_sql", site.postgres_rows.url)
    if "ADBC" not in site.missing:
        ways["ADBC, PostgreSQL"] = ("adbc", site.postgres_rows.url)
    what = f"peak memory, {len(site.minutes):,} bars"
    figures = []
    for name, words in ways.items():
        goal = 90.0 if name.startswith("ours") else None
        grown = [_grown(*words) for _ in range(min(runs, 3))]
        figures.append(figure(f"{what}: {name}", grown, "MB", goal))
    return figures


def _grown(kind: str, url: str) -> float:
    """Ask a process of its own, which has loaded everything before it reads."""
    asked = {"kind": kind, "url": url, "path": sys.path}
    asked |= {"symbol": MINUTES, "query": BARS.format(series=0)}
    ended = subprocess.run(
        (sys.executable, "-m", "bench.data.child", "memory"),
        cwd=ROOT,
        input=json.dumps(asked),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(ended.stdout) / 1e6


def freshness(site: Site, runs: int) -> Figures:
    """Return how soon a process that reads all the time sees what another wrote."""
    figures = []
    for engine in ENGINES:
        store = site.stores[engine]
        frame = next(iter(site.days.values()))
        store.upsert_symbols(pd.DataFrame(index=[FRESH]))
        store.upsert_bars(FRESH, "1d", frame.iloc[:-100], source="synthetic")
        seen = _seen(site.urls[engine], store, frame, min(3 * runs, 100))
        what = f"new bar seen by another process: ours, {engine}"
        figures.append(
            figure(f"{what}, the latest of {len(seen)}", [max(seen)], "s", 1)
        )
        figures.append(figure(what, seen, "s"))
    return figures


def _seen(url: str, store: Store, frame: pd.DataFrame, times: int) -> list[float]:
    """Write one bar after the other; a reader says the moment at which it had it."""
    found = []
    chance = random.Random(1)
    with subprocess.Popen(
        (sys.executable, "-m", "bench.data.child", "watch"),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdin and reader.stdout  # nosec B101
        asked = {"url": url, "symbol": FRESH, "times": times}
        reader.stdin.write(json.dumps(asked) + "\n")
        reader.stdin.flush()
        reader.stdout.readline()
        for number in range(times, 0, -1):
            # At any moment of the second for which a reader may trust what it knows.
            time.sleep(chance.uniform(0.05, 1.05))
            at = len(frame) - number
            store.upsert_bars(FRESH, "1d", frame.iloc[at : at + 1], source="synthetic")
            written = time.monotonic()
            found.append(float(reader.stdout.readline()) - written)
    return found
