"""Carry bars from a source into the store, and write down how it went."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field

import pandas as pd

from .changes import Changed
from .errors import BadData, SourceError
from .interval import Interval
from .sources import Source
from .store import Job, Store

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class IngestReport:
    """What one run did: `changed` per symbol, and a reason per symbol that failed."""

    source: str
    interval: str
    changed: dict[str, Changed] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def total(self, what: str) -> int:
        """Return the sum of inserted, updated, unchanged, rejected or written."""
        return sum(getattr(one, what) for one in self.changed.values())


def ingest(
    store: Store,
    source: Source,
    symbols: Iterable[str] | None = None,
    *,
    interval: Interval = "1d",
    start: pd.Timestamp | None = None,
    end: pd.Timestamp | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Fetch each symbol (all that the source offers by default) and merge it.

    A symbol that the source cannot answer, or whose frame is refused, is a line in
    `failed` and in the ledger; the others go on. `progress(symbol, done, of)` is called
    before each. Raises SourceError when the source cannot even list its symbols, and
    StoreError when the database fails.
    """
    offered = source.symbols()
    wanted = list(offered.index) if symbols is None else list(dict.fromkeys(symbols))
    report = IngestReport(source.name, interval)
    store.upsert_symbols(
        offered.loc[[name for name in wanted if name in offered.index]]
    )
    for at, name in enumerate(wanted):
        if progress:
            progress(name, at, len(wanted))
        started, message = _now(), ""
        try:
            if name not in offered.index:
                raise SourceError(f"{source.name} does not offer {name}")
            raw = source.fetch(name, interval, start, end)
            # Actions first: one that is ahead of its bars changes nothing yet, while
            # bars ahead of their split would show a jump that never was.
            store.upsert_actions(name, raw.actions)
            report.changed[name] = store.upsert_bars(
                name, interval, raw.frame, source=source.name
            )
        except (SourceError, BadData) as error:
            report.failed[name] = message = str(error)
        counts = asdict(report.changed.get(name, Changed()))
        del counts["version"]
        state = "failed" if message else "done"
        key = (source.name, name, interval, started, _now(), state)
        store.record_job(Job(*key, **counts, message=message))
    store.set_meta(f"source:{source.name}", source.provenance)
    return report


def _now() -> int:
    return time.time_ns() // 1000
