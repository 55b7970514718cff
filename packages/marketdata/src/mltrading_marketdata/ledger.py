"""The ledger of ingestion: runs, what became of each symbol, the rows refused.

A run that was cut off stays open. The same request within RESUME_H hours goes on with
it: what it has done is not asked for again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from .access import Access
from .changes import Changed
from .tables import ingest_job, ingest_run, meta, reject, series, symbol

RESUME_H = 24
# The sources that are somebody's service on the network.
PROVIDERS = ("tiingo", "yahoo")
OPEN, DONE, STOPPED, REPLACED = "open", "done", "stopped", "replaced"


@dataclass(frozen=True)
class Request:
    """What somebody asks to be ingested; `start` and `end` are ISO times or ""."""

    source: str
    interval: str
    symbols: tuple[str, ...]
    start: str = ""
    end: str = ""
    full: bool = False

    @property
    def text(self) -> str:
        """Return the request as it is compared; order of symbols does not matter."""
        return json.dumps(asdict(self) | {"symbols": sorted(self.symbols)})

    def as_json(self) -> dict[str, Any]:
        """Return the request as values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Run:
    """One run: its number, and the symbols that it had done before it was cut off."""

    id: int
    done: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Known:
    """What the store knows of a symbol before an ingestion.

    `last_ts`: of its bars at the interval asked for, microseconds since 1970 UTC, None
    without any. `sources`: of its bars at any interval.
    """

    exchange: str
    last_ts: int | None
    sources: frozenset[str]


@dataclass(frozen=True)
class Job:
    """What became of one symbol in a run; times are microseconds since 1970 UTC."""

    run_id: int
    source: str
    ticker: str
    interval: str
    started_at: int
    finished_at: int
    state: str
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    message: str = ""


class Ledger:
    """The ledger in one database."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def known(self, symbols: Sequence[str], interval: str) -> dict[str, Known]:
        """Return what is known of each symbol; those that are new are left out."""
        query = sa.select(
            symbol.c.ticker,
            symbol.c.exchange,
            series.c.interval,
            series.c.last_ts,
            series.c.source,
        ).join_from(
            symbol,
            series,
            (series.c.symbol_id == symbol.c.id) & (series.c.n > 0),
            isouter=True,
        )
        query = query.where(self._access.one_of(symbol.c.ticker, symbols))
        found: dict[str, Known] = {}
        for row in self._access.read(lambda c: c.execute(query).all()):
            old = found.get(row.ticker, Known(row.exchange, None, frozenset()))
            own = row.interval == interval
            sources = old.sources | ({row.source} if row.source else set())
            last = row.last_ts if own else old.last_ts
            found[row.ticker] = Known(row.exchange, last, sources)
        return found

    def spans(self, interval: str) -> dict[str, tuple[int, int]]:
        """Return first and last ts of each symbol's bars, in microseconds."""
        query = sa.select(symbol.c.ticker, series.c.first_ts, series.c.last_ts)
        query = query.join_from(symbol, series).where(
            series.c.interval == interval, series.c.n > 0
        )
        rows = self._access.read(lambda c: c.execute(query).all())
        return {row.ticker: (row.first_ts, row.last_ts) for row in rows}

    def labels(self) -> dict[str, str]:
        """Return what each source says about itself, by "source:" and its name."""
        query = sa.select(meta.c.key, meta.c.value).where(meta.c.key.like("source:%"))
        rows = self._access.read(lambda c: c.execute(query).all())
        return {row.key: row.value for row in rows}

    def provenance(self) -> dict[str, list[str]]:
        """Return what the sources of each symbol's bars say about themselves."""
        query = sa.select(symbol.c.ticker, series.c.source).join_from(symbol, series)
        query = query.where(series.c.n > 0).distinct().order_by(series.c.source)
        labels = self.labels()
        found: dict[str, list[str]] = {}
        for row in self._access.read(lambda c: c.execute(query).all()):
            label = labels.get(f"source:{row.source}", row.source)
            found.setdefault(row.ticker, []).append(label)
        return found

    def open_run(self, request: Request, now: int) -> Run | None:
        """Return the run that this request goes on with, None where it begins one."""
        return self._access.read(lambda c: _open_run(c, request, now))

    def begin(self, request: Request, now: int, *, restart: bool = False) -> Run:
        """Go on with the open run of the same request, or begin one.

        `now` is in microseconds since 1970 UTC; `restart` begins one in any case.
        """
        with self._access.writing("Ledger.begin") as c:
            found = _open_run(c, request, now)
            if found is not None and not restart:
                return found
            if found is not None:
                old = ingest_run.c.id == found.id
                c.execute(ingest_run.update().where(old).values(state=REPLACED))
            added = c.execute(
                ingest_run.insert().values(
                    source=request.source,
                    interval=request.interval,
                    request=request.text,
                    symbols=len(request.symbols),
                    began_at=now,
                    state=OPEN,
                    message="",
                )
            )
            return Run(added.inserted_primary_key[0])

    def note(self, job: Job) -> None:
        """Write down what became of one symbol."""
        with self._access.writing("Ledger.note") as c:
            c.execute(ingest_job.insert().values(**asdict(job)))

    def end(self, run: int, state: str, now: int, message: str = "") -> None:
        """Write down how a run ended: DONE, or STOPPED, which the next goes on with."""
        with self._access.writing("Ledger.end") as c:
            own = ingest_run.c.id == run
            values = {"state": state, "ended_at": now, "message": message}
            c.execute(ingest_run.update().where(own).values(**values))

    def runs(self, limit: int = 20) -> list[dict[str, Any]]:
        """Return the newest runs with their sums; times are microseconds or None."""
        latest = sa.select(ingest_run).order_by(ingest_run.c.id.desc()).limit(limit)

        def work(c: sa.Connection) -> list[dict[str, Any]]:
            found = {row.id: row._asdict() for row in c.execute(latest)}
            names = ("inserted", "updated", "unchanged", "rejected")
            sums = [sa.func.sum(ingest_job.c[name]).label(name) for name in names]
            query = (
                sa.select(
                    ingest_job.c.run_id,
                    ingest_job.c.state,
                    sa.func.count().label("jobs"),
                    *sums,
                )
                .where(ingest_job.c.run_id.in_(list(found)))
                .group_by(ingest_job.c.run_id, ingest_job.c.state)
            )
            for run in found.values():
                del run["request"]
                run |= dict.fromkeys(("done", "failed", *names), 0)
            for row in c.execute(query):
                run = found[row.run_id]
                run[row.state] += row.jobs
                for name in names:
                    run[name] += int(getattr(row, name))
            return list(found.values())

        return self._access.read(work)

    def silent(self) -> list[str]:
        """Return the providers that answered for no symbol when last asked, in order.

        Providers are sources on the network. A run that goes on or was replaced says
        nothing; one that was stopped says that its provider could not be asked.
        """
        ended = ingest_run.c.state.in_((DONE, STOPPED))
        newest = (
            sa.select(sa.func.max(ingest_run.c.id))
            .where(ingest_run.c.source.in_(PROVIDERS), ended)
            .group_by(ingest_run.c.source)
        )
        answered = (
            sa.select(ingest_job.c.run_id)
            .where(ingest_job.c.run_id == ingest_run.c.id, ingest_job.c.state == DONE)
            .exists()
        )
        query = sa.select(ingest_run.c.source).where(
            ingest_run.c.id.in_(newest),
            ingest_run.c.symbols > 0,
            (ingest_run.c.state == STOPPED) | ~answered,
        )
        rows = self._access.read(lambda c: c.execute(query).all())
        return sorted(row.source for row in rows)

    def rejects(
        self,
        symbols: Iterable[str] | None = None,
        interval: str | None = None,
        limit: int = 100,
    ) -> tuple[int, list[dict[str, Any]]]:
        """Return how many rows were ever refused, and the `limit` newest of them.

        Each has symbol, interval, ts (microseconds), reason, source and row (text).
        """
        query = (
            sa.select(
                symbol.c.ticker.label("symbol"),
                series.c.interval,
                reject.c.ts,
                reject.c.reason,
                reject.c.source,
                reject.c.row,
            )
            .join_from(reject, series)
            .join(symbol, symbol.c.id == series.c.symbol_id)
        )
        if symbols is not None:
            wanted = self._access.one_of(symbol.c.ticker, list(symbols))
            query = query.where(wanted)
        if interval is not None:
            query = query.where(series.c.interval == interval)
        newest = query.order_by(
            reject.c.ts.desc(), symbol.c.ticker, reject.c.reason
        ).limit(limit)
        many = sa.select(sa.func.count()).select_from(query.subquery())

        def work(c: sa.Connection) -> tuple[int, list[dict[str, Any]]]:
            rows = [row._asdict() for row in c.execute(newest)]
            return int(c.scalar(many) or 0), rows

        return self._access.read(work)


def counted(changed: Changed) -> dict[str, int]:
    """Return the four counts as a Job has them."""
    counts = asdict(changed)
    del counts["version"]
    return counts


def _open_run(c: sa.Connection, request: Request, now: int) -> Run | None:
    oldest = now - RESUME_H * 3600 * 10**6
    query = sa.select(ingest_run.c.id).where(
        ingest_run.c.request == request.text,
        ingest_run.c.state.in_([OPEN, STOPPED]),
        ingest_run.c.began_at >= oldest,
    )
    found = c.scalar(query.order_by(ingest_run.c.id.desc()).limit(1))
    if found is None:
        return None
    own = (ingest_job.c.run_id == found) & (ingest_job.c.state == "done")
    done = c.scalars(sa.select(ingest_job.c.ticker).where(own))
    return Run(found, frozenset(done))
