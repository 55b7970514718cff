"""What reading costs: a long series, a short one, a panel, a chart, the latest bars."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bench.data.cost import Cost, milliseconds, ratio, taking_turns
from bench.data.made import MINUTES, columns
from bench.data.rows import BARS, PANEL, indexed, panelled
from bench.data.site import ENGINES, Site
from mltrading_marketdata.times import as_index
from ops.errors import StepFailed

Work = Callable[[], pd.DataFrame]
Figures = list[dict[str, Any]]


def million(site: Site, runs: int) -> Figures:
    """Read the whole series of minutes in every way there is."""
    what = f"{site.size.minutes:,} bars"
    raw = columns(site.minutes)

    def floor() -> pd.DataFrame:
        copies = {name: column.copy() for name, column in raw.items()}
        return pd.DataFrame(copies, index=as_index(copies.pop("ts")), copy=False)

    ways: dict[str, Work] = {"copy floor": floor}
    for engine in ENGINES:
        cold = site.cold(engine)
        ways[f"ours, {engine}"] = partial(_bars, cold, MINUTES, "1m")
    ways |= _by_query(site, BARS.format(series=0), indexed)
    ways["Parquet"] = lambda: indexed(site.parquet.read(site.parquet.minutes))
    costs = _measured(site, ways, runs)
    rows = [milliseconds(f"{what}: {name}", each) for name, each in costs.items()]
    floors = costs["copy floor"]
    for engine, goal in (("PostgreSQL", 8), ("SQLite", 5)):
        name = f"{what}: ours, {engine} / copy floor"
        rows.append(ratio(name, costs[f"ours, {engine}"], floors, goal=goal))
    return rows + _against(what, costs, {"read_sql, PostgreSQL": 40})


def daily(site: Site, runs: int) -> Figures:
    """Read one daily series whole; another one each time."""
    what = f"{site.size.days:,} daily bars"
    names = list(site.days)
    at = 0

    def turn() -> int:
        nonlocal at
        at = (at + 1) % len(names)
        return at

    def one(cold: Callable, number: int) -> pd.DataFrame:
        return _bars(cold, names[number], "1d")

    ways: dict[str, Work] = {}
    for engine in ENGINES:
        cold = site.cold(engine)
        ways[f"ours, {engine}"] = lambda cold=cold: one(cold, turn())
    for name, ask in _queries(site).items():
        ways[name] = lambda ask=ask: indexed(ask(BARS.format(series=turn() + 1)))
    ways["Parquet"] = lambda: indexed(
        site.parquet.read(site.parquet.days, filters=[("series_id", "==", turn() + 1)])
    )
    costs = _measured(site, ways, runs, same=False)
    goals = {f"ours, {engine}": 4.0 for engine in ENGINES}
    rows = [
        milliseconds(f"{what}: {name}", each, goals.get(name))
        for name, each in costs.items()
    ]
    least = {f"read_sql, {engine}": 6 for engine in ENGINES}
    return rows + _against(what, costs, least) + _warm(site, runs, what)


def _warm(site: Site, runs: int, what: str) -> Figures:
    """Read a series that is in the cache of the process."""
    ways: dict[str, Work] = {}
    for engine in ENGINES:
        store = site.cold(engine)()
        name = next(iter(site.days))
        ways[engine] = lambda store=store: store.bars(name)
    costs = _measured(site, ways, runs)
    return [
        milliseconds(f"{what}, in the cache: ours, {engine}", each)
        for engine, each in costs.items()
    ]


def panel(site: Site, runs: int) -> Figures:
    """Read one field of many symbols over a year."""
    names, length = list(site.days), site.size.panel_days
    what = f"panel {len(names)} × {length}"
    since = site.days[names[0]].index[-length]
    ways: dict[str, Work] = {}
    for engine in ENGINES:
        cold = site.cold(engine)
        ways[f"ours, {engine}"] = lambda cold=cold: cold().panel(names, since)
    micros = since.value // 1000
    span = {"first": 1, "last": len(names)}
    for name, ask in _queries(site).items():
        engine = site.sqlite_rows if name.endswith("SQLite") else site.postgres_rows
        query = PANEL.format(since=engine.moment(micros), **span)
        ways[name] = lambda ask=ask, query=query: panelled(ask(query))
    bare = since.tz_localize(None)
    ways["Parquet"] = lambda: panelled(
        site.parquet.read(
            site.parquet.days,
            columns=["series_id", "ts", "close"],
            filters=[("ts", ">=", bare.to_pydatetime())],
        )
    )
    costs = _measured(site, ways, runs)
    rows = [
        milliseconds(f"{what}: {name}", each, 60.0 if name.startswith("ours") else None)
        for name, each in costs.items()
    ]
    return rows + _against(what, costs, {"read_sql, PostgreSQL": 9})


def chart(site: Site, runs: int) -> Figures:
    """Draw the whole series of minutes, and a tenth of it, in 2,000 candles at most."""
    tenth = site.minutes.index[-len(site.minutes) // 10]
    rows: Figures = []
    for what, start in (("all", None), ("the last tenth", tenth)):
        ways: dict[str, Work] = {
            engine: partial(_candles, site.cold(engine), start) for engine in ENGINES
        }
        for engine, costs in _measured(site, ways, runs, same=False).items():
            name = f"chart of {what} of {len(site.minutes):,} bars: ours, {engine}"
            rows.append(milliseconds(name, costs, 5.0 if start is None else None))
    return rows


def latest(site: Site, runs: int) -> Figures:
    """Ask for the last bar of every symbol."""
    names = list(site.days)
    ways: dict[str, Work] = {
        engine: partial(site.stores[engine].latest, names) for engine in ENGINES
    }
    costs = _measured(site, ways, runs)
    return [
        milliseconds(f"latest of {len(names)}: ours, {engine}", each, 2.0)
        for engine, each in costs.items()
    ]


def _bars(cold: Callable, name: str, interval: str) -> pd.DataFrame:
    return cold().bars(name, interval=interval)


def _candles(cold: Callable, start: pd.Timestamp | None) -> pd.DataFrame:
    return cold().candles(MINUTES, start, interval="1m", max_points=2000)


def _queries(site: Site) -> dict[str, Callable[[str], pd.DataFrame]]:
    found = {
        f"{name}, {engine}": ask
        for engine, each in site.asking.items()
        for name, ask in each.items()
    }
    if site.duck is not None:
        found["DuckDB"] = site.duck
    return found


def _by_query(
    site: Site, query: str, shape: Callable[[pd.DataFrame], pd.DataFrame]
) -> dict[str, Work]:
    return {
        name: lambda ask=ask: shape(ask(query)) for name, ask in _queries(site).items()
    }


def _measured(
    site: Site, ways: dict[str, Work], runs: int, *, same: bool = True
) -> dict[str, list[Cost]]:
    """Measure ways that all give the same numbers, which is looked at first."""
    if same:
        first, *others = ways
        wanted = _sums(ways[first]())
        for name in others:
            if not np.allclose(_sums(ways[name]()), wanted):
                raise StepFailed(f"{name} reads other bars than {first}")
    return taking_turns(site.meter, ways, runs)


def _sums(frame: pd.DataFrame) -> list[float]:
    """Return what tells one answer from another: rows, columns, all values summed."""
    numbers = frame.select_dtypes("number")
    return [*numbers.shape, float(numbers.to_numpy(np.float64).sum())]


def _against(
    what: str, costs: dict[str, list[Cost]], least: dict[str, float]
) -> Figures:
    """Return how many times more each other way costs than ours on that engine.

    Those with an engine of their own are held against ours on PostgreSQL.
    """
    rows = []
    for name, each in costs.items():
        if name.startswith("ours") or name == "copy floor":
            continue
        engine = "SQLite" if name.endswith("SQLite") else "PostgreSQL"
        own = costs[f"ours, {engine}"]
        title = f"{what}: {name} / ours, {engine}"
        rows.append(ratio(title, each, own, least=least.get(name)))
    return rows
