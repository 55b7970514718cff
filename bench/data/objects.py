"""The same chunks as objects: files named by series, interval and period.

What would be an object store is a folder here. The name of an object is computed from
what is asked for, so nothing is ever listed or searched; the bytes are the product's.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import made
from bench.data.cost import Cost, Meter, milliseconds, ratio, taking_turns
from bench.data.made import columns
from bench.data.site import Site
from bench.run import figure
from mltrading_marketdata import interval as intervals
from mltrading_marketdata.codec import CODEC, COLUMNS, Columns, encode, gathered
from mltrading_marketdata.rollups import rolled
from ops import report
from ops.errors import StepFailed

Figures = list[dict[str, Any]]
# Rows and codec, which a database has in columns of their own.
_HEAD = struct.Struct("<II")
PANEL = 500
# Besides what the objects take, in bytes, so that no disk is filled by a bench.
_SPARE = 2 * 2**30
_ABOUT = 18  # bytes per bar, to see beforehand whether the disk is large enough


class Objects:
    """Chunks in a folder; safe for readers while others write."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, series: int, interval: str, period: int) -> Path:
        """Return the name of an object: its key, nothing else."""
        # A folder with a million entries is slow on some file systems.
        return self._root.joinpath(
            interval, f"{series // 1000:04}", f"{series:07}", str(period)
        )

    def put(self, series: int, interval: str, bars: Columns) -> int:
        """Write bars that are whole periods; return the bytes that they take."""
        total = 0
        for period, part in intervals.split(bars, interval):
            path = self.path(series, interval, period)
            path.parent.mkdir(parents=True, exist_ok=True)
            coming = path.with_suffix(".new")
            data = _HEAD.pack(len(part["ts"]), CODEC) + encode(part)
            coming.write_bytes(data)
            coming.rename(path)
            total += len(data)
        return total

    def get(
        self,
        series: int,
        interval: str,
        first: int,
        last: int,
        wanted: Collection[str] = COLUMNS,
    ) -> Columns:
        """Return the bars with first <= ts <= last (microseconds since 1970 UTC)."""
        found = []
        start, end = (intervals.period_of(ts, interval) for ts in (first, last))
        for period in range(start, end + 1):
            try:
                data = self.path(series, interval, period).read_bytes()
            except FileNotFoundError:
                continue
            found.append((*_HEAD.unpack_from(data), memoryview(data)[_HEAD.size :]))
        bars = gathered(found, wanted=wanted)
        low, high = np.searchsorted(bars["ts"], (first, last + 1))
        return {name: column[low:high] for name, column in bars.items()}


def objects(site: Site, runs: int) -> Figures:
    """Write 10^8 minutes of many symbols; read one symbol and a panel by their keys."""
    size = site.size
    one = _year(size.object_months)
    total = len(one["ts"]) * size.object_symbols
    with tempfile.TemporaryDirectory(prefix="objects-", dir=site.folder) as name:
        needed = total * _ABOUT + _SPARE
        if shutil.disk_usage(name).free < needed:
            raise StepFailed(
                f"{total:,} bars need {needed / 1e9:.1f} GB of disk for a while",
                where=name,
                next="set TMPDIR to a folder on a larger disk",
            )
        return _measured(
            site.meter, Objects(Path(name)), one, size.object_symbols, runs
        )


def _measured(
    meter: Meter, store: Objects, one: Columns, symbols: int, runs: int
) -> Figures:
    tenth = max(1, symbols // 10)
    report.say(f"  {symbols:,} symbols of {len(one['ts']):,} minutes as objects")
    sizes = {"1m": 0, "1d": 0}

    def write(numbers: range) -> None:
        for number in numbers:
            bars = _of(one, number)
            sizes["1m"] += store.put(number, "1m", bars)
            sizes["1d"] += store.put(number, "1d", rolled(bars, "1d"))

    first, last = int(one["ts"][0]), int(one["ts"][-1])
    month = intervals.span(intervals.period_of(last, "1m") - 1, "1m")
    turns = _turns(tenth)
    ways = {
        "one symbol, all minutes": lambda: store.get(next(turns), "1m", first, last),
        "one symbol, a month": lambda: store.get(
            next(turns), "1m", month[0], month[1] - 1
        ),
    }
    written = [meter.cost(lambda: write(range(tenth)))]
    few = taking_turns(meter, ways, runs)
    written.append(meter.cost(lambda: write(range(tenth, symbols))))
    _compare(store, one, symbols)
    many = taking_turns(meter, ways, runs)
    wide = min(PANEL, symbols)
    panels = taking_turns(
        meter,
        {
            f"panel, {wide} symbols of days": lambda: [
                store.get(n, "1d", first, last, ("ts", "close")) for n in range(wide)
            ],
            f"panel, {wide} symbols of a month of minutes": lambda: [
                store.get(n, "1m", month[0], month[1] - 1, ("ts", "close"))
                for n in range(wide)
            ],
        },
        max(1, runs // 2),
    )
    total = len(one["ts"]) * symbols
    what = f"objects, {total:,} bars"
    spent = sum(cost.cpu for cost in written)
    figures = [
        figure(f"{what}: write", [spent / total * 1e6], "CPU s per 1M bars"),
        figure(f"{what}: size", [sizes["1m"] / total], "bytes per bar", 32),
        figure(f"{what}: daily rollups", [sizes["1d"] / total], "bytes per bar"),
        *(milliseconds(f"{what}: {name}", costs) for name, costs in many.items()),
    ]
    for name, costs in many.items():
        title = f"{what}: {name}, to when there was a tenth of them"
        figures.append(ratio(title, costs, few[name], goal=1.5))
    figures += [milliseconds(f"{what}: {name}", each) for name, each in panels.items()]
    cold = [
        _cold(meter, store, number, first, last) for number in _spread(symbols, runs)
    ]
    row = milliseconds(f"{what}: one symbol, all minutes, not in memory", cold)
    return [*figures, row]


def _year(months: int) -> Columns:
    """Return the minutes of one symbol, whole months of them."""
    bars = columns(made.minutes((months + 1) * 23 * 390))
    numbers = intervals.period(bars["ts"], "1m")
    whole = (numbers < numbers[-1]) & (numbers >= numbers[-1] - months)
    return {name: column[whole] for name, column in bars.items()}


def _of(one: Columns, number: int) -> Columns:
    """Return the bars of another symbol: dearer by cents, traded at other minutes."""
    dearer = {
        name: np.round(one[name] + number * 0.07, 2)
        for name in ("open", "high", "low", "close")
    }
    return one | dearer | {"volume": np.roll(one["volume"], number)}


def _compare(store: Objects, one: Columns, symbols: int) -> None:
    """Read some symbols back whole: the very bars that were written."""
    first, last = int(one["ts"][0]), int(one["ts"][-1])
    for number in _spread(symbols, 10):
        bars, found = _of(one, number), store.get(number, "1m", first, last)
        if not all(np.array_equal(found[name], bars[name]) for name in COLUMNS):
            raise StepFailed(f"symbol {number} comes back different")


def _cold(meter: Meter, store: Objects, number: int, first: int, last: int) -> Cost:
    """Read a symbol whose files the system has been told to drop from memory."""
    start, end = (intervals.period_of(ts, "1m") for ts in (first, last))
    for period in range(start, end + 1):
        path = store.path(number, "1m", period)
        if path.exists():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return meter.cost(lambda: store.get(number, "1m", first, last))


def _spread(symbols: int, runs: int) -> list[int]:
    return np.linspace(0, symbols - 1, max(runs, 2)).astype(int).tolist()


def _turns(symbols: int) -> Iterator[int]:
    """Give one symbol after the other, without end."""
    while True:
        yield from range(symbols)
