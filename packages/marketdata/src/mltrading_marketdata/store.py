"""The store: read bars and symbols, write bars and symbols."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from . import adjustment, bucketing, chunks
from . import interval as intervals
from . import quality, questions
from .access import Access, Limits
from .adjustment import Action, Adjust
from .cache import Cache, Held
from .changes import Changed
from .codec import COLUMNS, Columns, gathered
from .engine import APPLICATION
from .errors import BadData, StoreError, UnknownSymbol
from .features import Features
from .hooks import SILENT, Hooks
from .interval import Interval
from .predictions import Predictions
from .quality import Reject
from .rollups import TIERS, coarsest
from .tables import (
    corporate_action,
    meta,
    reject,
    series,
)
from .tables import symbol as symbol_table
from .times import EARLIEST, LATEST, When, as_index, next_version, span
from .url import parse

if TYPE_CHECKING:
    from .shared import Shared

# New bars are seen within a second: the rest of it is for asking.
RECHECK_S = 0.9
CACHE_BYTES = 64 * 2**20
WHOLE_SERIES_ROWS = 250_000
SYMBOL_TEXTS = ("name", "exchange", "currency", "sector", "industry")
_NO_BARS: Held = (gathered([]), [])


@dataclass(frozen=True)
class _Stamp:
    """One series as the database knew it at `read_at` (monotonic seconds)."""

    symbol_id: int
    series_id: int | None
    version: int
    n: int
    first_ts: int
    last_ts: int
    read_at: float


def open_store(
    url: str,
    limits: Limits | None = None,
    *,
    require_tls: bool = False,
    hooks: Hooks = SILENT,
    application: str = APPLICATION,
    cache_ttl_s: float = 900.0,
    cache_url: str = "",
) -> Store:
    """Return a Store; no connection is opened before the first question.

    `url` is sqlite:///path or postgresql:// (postgres:// too). `hooks` are told what
    happens; `application` is the name by which the server knows the connections.
    `cache_ttl_s` is the longest that bars are held in memory; new ones are seen within
    RECHECK_S anyway. `cache_url` names a Valkey or Redis that several processes share,
    "" for none. Raises StoreError for a URL that cannot be read.
    """
    address = parse(url, require_tls=require_tls)
    access = Access(address, limits, hooks=hooks, application=application)
    shared = None
    if cache_url:
        from .shared import open_shared

        shared = open_shared(cache_url, cache_ttl_s)
    return Store(access, cache_ttl_s=cache_ttl_s, shared=shared)


class Store:
    """Bars, symbols and corporate actions in one database.

    Every method raises PoolExhausted, Unavailable or SchemaBehind when the database
    cannot answer; reads are asked again first when a connection was cut. Times in
    answers are UTC; prices are in the currency of the symbol. Safe for threads and for
    fork.
    """

    def __init__(
        self, access: Access, *, cache_ttl_s: float, shared: Shared | None = None
    ) -> None:
        self._access = access
        self._shared = shared
        self._features = Features(self._access)
        self._predictions = Predictions(self._access)
        self._stamps: dict[tuple[str, str], _Stamp] = {}
        self._cache = Cache(CACHE_BYTES, cache_ttl_s, tell=access.hooks.cached)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections; a later question opens new ones."""
        self._access.close()

    @property
    def access(self) -> Access:
        """Return how the database is reached, for what stands beside the store."""
        return self._access

    # Questions about the database

    def ping(self) -> None:
        """Ask the database for nothing; raise Unavailable when it does not answer."""
        self._access.read(lambda c: c.exec_driver_sql("SELECT 1").scalar(), retry_s=0)

    def info(self) -> dict[str, Any]:
        """Return dialect, schema, symbols, bars, last_bar and sources.

        `schema` is the revision, `bars` counts all series, `last_bar` is an ISO time or
        None, `sources` a list of texts such as "sample, ends 2013-03-01".
        """

        def work(c: sa.Connection) -> dict[str, Any]:
            notes = {r.key: r.value for r in c.execute(sa.select(meta))}
            rows = c.execute(
                sa.select(
                    series.c.source,
                    sa.func.sum(series.c.n),
                    sa.func.max(series.c.last_ts),
                )
                .where(series.c.n > 0)
                .group_by(series.c.source)
                .order_by(series.c.source)
            ).all()
            last = max((ts for _, _, ts in rows), default=None)
            return {
                "dialect": self._access.address.dialect,
                "schema": c.exec_driver_sql(
                    "SELECT version_num FROM alembic_version"
                ).scalar(),
                "symbols": c.scalar(sa.select(sa.func.count(symbol_table.c.id))),
                "bars": int(sum(n for _, n, _ in rows)),
                "last_bar": _iso(last),
                "sources": [
                    f"{notes.get(f'source:{name}', name)}, ends {_iso(ts)[:10]}"
                    for name, _, ts in rows
                ],
            }

        return self._access.read(work)

    def version(self, symbol: str, *, interval: Interval = "1d") -> int:
        """Return the stamp of a series, 0 when it has no bars. Never served from cache.

        Each write that changes bars or actions raises it in the same transaction, and
        it never comes back after a reset: fit for an ETag. Raises UnknownSymbol.
        """
        return self._ask_stamps([symbol], interval)[symbol].version

    # Reads

    def symbols(self) -> pd.DataFrame:
        """Return one row per symbol, in order of symbol.

        Columns name, exchange, currency, sector, industry (text, "" when not known),
        first, last (UTC time of the first and last daily bar, or NaT), bars (int64).
        """
        query = (
            sa.select(
                symbol_table.c.ticker,
                *(symbol_table.c[name] for name in SYMBOL_TEXTS),
                series.c.first_ts,
                series.c.last_ts,
                sa.func.coalesce(series.c.n, 0),
            )
            .join_from(
                symbol_table,
                series,
                (series.c.symbol_id == symbol_table.c.id) & (series.c.interval == "1d"),
                isouter=True,
            )
            .order_by(symbol_table.c.ticker)
        )
        rows = self._access.read(lambda c: c.execute(query).all())
        names = ["symbol", *SYMBOL_TEXTS, "first", "last", "bars"]
        frame = pd.DataFrame.from_records(rows, columns=names).set_index("symbol")
        for name in ("first", "last"):
            frame[name] = _times(frame[name])
        return frame.astype({"bars": np.int64})

    def bars(
        self,
        symbol: str,
        start: When = None,
        end: When = None,
        *,
        interval: Interval = "1d",
        adjust: Adjust = "split",
        columns: Iterable[str] | None = None,
    ) -> pd.DataFrame:
        """Return the bars with start <= ts <= end, in order of time.

        Index `ts` (UTC, microseconds; a daily bar is stamped 00:00 UTC of its session
        date); open, high, low, close float64; volume int64 shares. `adjust`: "none" as
        traded, "split" in today's shares, "all" for dividends too. Naive times are read
        as UTC. No bars in the range is an empty frame. Raises UnknownSymbol.
        """
        wanted = _wanted(columns)
        found = self._range(
            symbol, interval, interval, start, end, adjust, {"ts", *wanted}
        )
        return _frame({name: found[name] for name in ("ts", *wanted)})

    def candles(
        self,
        symbol: str,
        start: When = None,
        end: When = None,
        *,
        interval: Interval = "1d",
        max_points: int = 2000,
        adjust: Adjust = "split",
    ) -> pd.DataFrame:
        """Return the bars joined into at most `max_points` candles, as `bars` does.

        `frame.attrs["bucket"]` names the length used: the interval itself, a calendar
        bucket (5m ... 1d, 1w, 1mo, 3mo, 1y) or "runs". `ts` is that of the first bar in
        the candle. Raises UnknownSymbol, and StoreError for max_points < 1.
        """
        if max_points < 1:
            raise StoreError(f"max_points must be at least 1, not {max_points}")
        tier = self._tier(symbol, interval, start, end, max_points, adjust)
        every = set(COLUMNS)
        found = self._range(symbol, interval, tier, start, end, adjust, every)
        joined_bars, name = bucketing.bucket(found, tier, max_points)
        frame = _frame(joined_bars)
        frame.attrs["bucket"] = name
        return frame

    def latest(self, symbols: Iterable[str] | None = None) -> pd.DataFrame:
        """Return the last daily bar per symbol, for all symbols or those named.

        Index symbol; ts, open, high, low, close, volume, previous_close (adjusted when
        the last bar is the first after a split), change = close / previous_close - 1
        (NaN for a first bar). Symbols without bars are left out. Raises UnknownSymbol.
        """
        names = None if symbols is None else list(dict.fromkeys(symbols))
        dialect = self._access.address.dialect
        query = questions.latest(dialect, named=names is not None)
        asked = {} if names is None else {"names": self._access.listed(names)}

        def ask(c: sa.Connection) -> list[tuple]:
            # As the driver gives them: SQLAlchemy's rows cost as much as asking.
            return c.execute(query, asked).cursor.fetchall()

        # Here, not there: they mostly come in that order, and then sorting is nothing.
        rows = sorted(self._access.read(ask), key=itemgetter(0))
        # A column at a time: building a frame from rows costs more than asking.
        tickers, ts, *values, ratios = zip(*rows, strict=True) if rows else ((),) * 9
        splits = []
        if any(ratios):
            splits = [pair for pair in zip(tickers, ratios, strict=True) if pair[1]]
        if len(splits) > 1:
            # Who was split twice between two bars is there twice.
            rows = list({row[0]: row for row in rows}.values())
            tickers, ts, *values, _ = zip(*rows, strict=True)
        if names is not None and len(tickers) < len(names):
            # Those that lack may be known and have no bars.
            self._ask_stamps(sorted(set(names).difference(tickers)), "1d")
        index = pd.Index(tickers, dtype="str", name="symbol")
        data = {"ts": as_index(np.array(ts, np.int64))}
        for name, column in zip(questions.FIELDS, values, strict=True):
            data[name] = np.array(column, np.int64 if name == "volume" else np.float64)
        for name, ratio in splits:
            data["previous_close"][index.get_loc(name)] /= ratio
        data["change"] = data["close"] / data["previous_close"] - 1
        return pd.DataFrame(data, index=index, copy=False)

    def panel(
        self,
        symbols: Iterable[str],
        start: When = None,
        end: When = None,
        field: str = "close",
        interval: Interval = "1d",
        *,
        adjust: Adjust = "split",
    ) -> pd.DataFrame:
        """Return one field of several symbols: index ts (UTC), one column per symbol.

        float64; NaN where a symbol has no bar. The columns keep the order asked for.
        Raises UnknownSymbol.
        """
        names = list(dict.fromkeys(symbols))
        _wanted([field])
        first, last = span(start, end)
        wanted = {"ts", field} | ({"close"} if adjust == "all" else set())
        stamps = self._known_stamps(names, interval)
        held = self._hold(stamps, interval, first, last, wanted, adjust)
        series_of = {}
        for name in names:
            raw, actions = held[name]
            part = {key: raw[key] for key in wanted}
            ends = stamps[name].last_ts
            part = _cut(part, first, ends if adjust == "all" else last)
            part = adjustment.adjusted(part, actions, adjust, ends)
            series_of[name] = _cut(part, first, last)
        times = [part["ts"] for part in series_of.values()]
        grid = _union(times)
        # A row per symbol is written at once; pandas keeps columns as rows, too.
        values = np.full((len(names), len(grid)), np.nan)
        for at, part in enumerate(series_of.values()):
            if len(part["ts"]) == len(grid):
                values[at] = part[field]
            else:
                values[at, np.searchsorted(grid, part["ts"])] = part[field]
        return pd.DataFrame(values.T, index=as_index(grid), columns=names, copy=False)

    def actions(self, symbol: str) -> pd.DataFrame:
        """Return the corporate actions of a symbol: index ts (UTC); kind, value.

        kind "split": new shares per old share; "dividend": cash per share. Raises
        UnknownSymbol.
        """
        stamp = self._ask_stamps([symbol], "1d")[symbol]
        found = self._access.read(lambda c: self._actions(c, [stamp.symbol_id]))
        rows = found.get(stamp.symbol_id, [])
        return pd.DataFrame(
            {
                "kind": pd.Series([row.kind for row in rows], dtype="str"),
                "value": np.array([row.value for row in rows], np.float64),
            }
        ).set_index(as_index(np.array([row.ts for row in rows], np.int64)))

    def features(
        self,
        name: str,
        symbol: str,
        start: When = None,
        end: When = None,
        *,
        columns: Iterable[str] | None = None,
        version: int | None = None,
        interval: Interval = "1d",
    ) -> pd.DataFrame:
        """Return the rows of a feature set with start <= ts <= end: index ts (UTC).

        float64 columns as they were written, NaN where a value was not known; the
        newest version of the set by default. Raises UnknownSymbol, and StoreError for a
        set or column that is not there.
        """
        symbol_id = self._known_stamps([symbol], interval)[symbol].symbol_id
        first, last = span(start, end)
        return self._features.read(
            name, symbol_id, interval, first, last, columns, version
        )

    def feature_sets(self) -> pd.DataFrame:
        """Return one row per feature set: name, version, columns (tuple of names)."""
        return self._features.sets()

    def predictions(
        self,
        model: str,
        symbol: str | None = None,
        start: When = None,
        end: When = None,
        *,
        interval: Interval = "1d",
    ) -> pd.DataFrame:
        """Return what a model has said: index ts (UTC), the bar it was said after.

        Columns symbol; horizon (int64), how many bars ahead; value, lower, upper
        (float64, NaN for no bound), in the unit that the model states; run_id. In order
        of ts, symbol, horizon. A model that has said nothing is an empty frame. Raises
        UnknownSymbol.
        """
        if symbol is not None:
            self._known_stamps([symbol], interval)
        return self._predictions.read(model, symbol, *span(start, end), interval)

    def models(self) -> pd.DataFrame:
        """Return one row per model: index model; symbols, first, last (UTC), rows."""
        return self._predictions.models()

    def gaps(
        self,
        symbol: str,
        start: When = None,
        end: When = None,
        *,
        interval: Interval = "1d",
    ) -> pd.DataFrame:
        """Return the runs of bars that the exchange's hours call for and that lack.

        Columns start, end (UTC, the first and the last missing bar of a run), bars
        (int64). From the first to the last bar of the series by default. Raises
        UnknownSymbol, and StoreError for a symbol whose exchange has no calendar.
        """
        from .sessions import expected, missing, sessions

        stamp = self._ask_stamps([symbol], interval)[symbol]
        own = symbol_table.c.ticker == symbol
        query = sa.select(symbol_table.c.exchange).where(own)
        exchange = self._access.read(lambda c: c.scalar(query))
        first, last = span(start, end)
        first = stamp.first_ts if start is None else first
        last = stamp.last_ts if end is None else last
        found = []
        if stamp.series_id is not None or (start is not None and end is not None):
            held = self._hold({symbol: stamp}, interval, first, last, {"ts"}, "none")
            hours = sessions(self._access, exchange, first, last)
            wanted = expected(hours, interval, first, last)
            found = missing(held[symbol][0]["ts"], wanted, interval)
        return pd.DataFrame(
            {
                "start": as_index(np.array([gap.start for gap in found], np.int64)),
                "end": as_index(np.array([gap.end for gap in found], np.int64)),
                "bars": np.array([gap.bars for gap in found], np.int64),
            }
        )

    # Writes

    def upsert_symbols(self, rows: pd.DataFrame) -> Changed:
        """Add or correct symbols: index symbol; any of name, exchange, currency,
        sector, industry.

        A text that is empty or absent leaves what is stored. Raises BadData for a
        symbol that is empty, has spaces around it or appears twice.
        """
        names = [str(name) for name in rows.index]
        if any(not name or name != name.strip() for name in names):
            raise BadData("a symbol is empty or has spaces around it")
        if len(set(names)) != len(names):
            raise BadData("a symbol appears twice")
        inserted = updated = 0
        with self._access.writing("Store.upsert_symbols") as c:
            self._access.lock(c, 0)
            known = {row.ticker: row for row in c.execute(sa.select(symbol_table))}
            for name, given in zip(names, rows.to_dict("records"), strict=True):
                texts = {
                    key: str(given[key])
                    for key in SYMBOL_TEXTS
                    if key in given and not pd.isna(given[key]) and given[key] != ""
                }
                old = known.get(name)
                if old is None:
                    blank = dict.fromkeys(SYMBOL_TEXTS, "")
                    c.execute(
                        symbol_table.insert().values(ticker=name, **(blank | texts))
                    )
                    inserted += 1
                elif any(getattr(old, key) != text for key, text in texts.items()):
                    where = symbol_table.c.id == old.id
                    c.execute(symbol_table.update().where(where).values(**texts))
                    updated += 1
        return Changed(inserted, updated, len(names) - inserted - updated)

    def upsert_actions(self, symbol: str, actions: Iterable[Action]) -> Changed:
        """Add or correct corporate actions; the same again writes nothing.

        Raises UnknownSymbol, and BadData for a value that is not positive and finite.
        """
        given = list(actions)
        if any(not (np.isfinite(one.value) and one.value > 0) for one in given):
            raise BadData(f"{symbol}: an action's value must be positive and finite")
        inserted = updated = 0
        table = corporate_action
        with self._access.writing("Store.upsert_actions") as c:
            symbol_id = self._lock_symbol(c, symbol)
            known = {
                (one.ts, one.kind): one.value
                for one in self._actions(c, [symbol_id]).get(symbol_id, [])
            }
            for one in given:
                old = known.get((one.ts, one.kind))
                if old is None:
                    c.execute(table.insert().values(symbol_id=symbol_id, **asdict(one)))
                    inserted += 1
                elif old != one.value:
                    where = (table.c.symbol_id == symbol_id) & (table.c.ts == one.ts)
                    where &= table.c.kind == one.kind
                    c.execute(table.update().where(where).values(value=one.value))
                    updated += 1
            version = 0
            own = series.c.symbol_id == symbol_id
            for row in c.execute(sa.select(series.c.id, series.c.version).where(own)):
                version = row.version
                if inserted or updated:
                    version = next_version(version)
                    c.execute(
                        series.update()
                        .where(series.c.id == row.id)
                        .values(version=version)
                    )
        self._forget(symbol)
        return Changed(
            inserted, updated, len(given) - inserted - updated, version=version
        )

    def upsert_bars(
        self,
        symbol: str,
        interval: Interval,
        frame: pd.DataFrame,
        *,
        source: str,
        refused: Sequence[Reject] = (),
    ) -> Changed:
        """Merge raw bars into a series, in one transaction.

        `frame`: time-zone-aware DatetimeIndex; open, high, low, close, volume as
        traded. A bar with a known ts replaces the old one. The same bars again write
        nothing and keep the version. Rows that are no bars (see `quality.examine`) are
        counted in `rejected` and kept in the table `reject`, with those that the caller
        has `refused`. Concurrent writers wait for each other. Raises BadData for the
        whole frame, UnknownSymbol.
        """
        new, found = quality.examine(frame, intervals.checked(interval))
        refused = [*refused, *found]
        with self._access.writing("Store.upsert_bars") as c:
            symbol_id = self._lock_symbol(c, symbol)
            key = {"own": symbol_id, "at": interval}
            row = c.execute(questions.SERIES, key).first()
            if row is None:
                first = {"symbol_id": symbol_id, "interval": interval, "source": source}
                first |= {"version": 0, "n": 0}
                done = c.execute(questions.NEW_SERIES, first)
                row = (done.inserted_primary_key[0], 0, 0, None, None)
            series_id, version, n, begins, ends = row
            merged = chunks.merge_into(c, series_id, interval, new, ends)
            if merged.inserted or merged.updated:
                version = next_version(version)
                earliest = int(new["ts"][0])
                values = {
                    **merged.tail,
                    "own": series_id,
                    "version": version,
                    "source": source,
                    "n": n + merged.inserted,
                    "first_ts": earliest if begins is None else min(begins, earliest),
                }
                c.execute(questions.CHANGED_SERIES, values)
            if refused:
                rows = {(one.ts, one.reason): asdict(one) for one in refused}
                extra = {"series_id": series_id, "source": source}
                c.execute(
                    self._access.insert(reject).on_conflict_do_nothing(),
                    [one | extra for one in rows.values()],
                )
        self._forget(symbol)
        counted = merged.inserted, merged.updated, merged.unchanged
        return Changed(*counted, len(refused), version)

    def upsert_features(
        self,
        name: str,
        symbol: str,
        frame: pd.DataFrame,
        *,
        version: int,
        interval: Interval = "1d",
    ) -> Changed:
        """Merge rows of a feature set for one symbol, in one transaction.

        `frame`: time-zone-aware DatetimeIndex, numeric columns (NaN for not known).
        `version` is that of the code that made them; all frames of one version have the
        same columns. The same rows again write nothing. Raises UnknownSymbol, BadData.
        """
        stamps = self._ask_stamps([symbol], intervals.checked(interval))
        own = stamps[symbol].symbol_id
        return self._features.upsert(name, own, interval, frame, version)

    def upsert_predictions(
        self,
        model: str,
        frame: pd.DataFrame,
        *,
        run_id: str,
        interval: Interval = "1d",
    ) -> Changed:
        """Add or correct predictions, in one transaction.

        `frame`: time-zone-aware DatetimeIndex, the bar after which it was said; symbol,
        horizon (bars ahead, from 1), value; lower and upper where there are bounds. A
        prediction with the same symbol, ts and horizon replaces the old one; the same
        again writes nothing. Raises BadData, UnknownSymbol.
        """
        return self._predictions.upsert(
            model, frame, run_id, intervals.checked(interval)
        )

    def set_meta(self, key: str, value: str) -> None:
        """Keep a short text under a key; the same text again writes nothing."""
        with self._access.writing("Store.set_meta") as c:
            insert = self._access.insert(meta).values(key=key, value=value)
            c.execute(
                insert.on_conflict_do_update(
                    index_elements=[meta.c.key],
                    set_={"value": value},
                    where=meta.c.value != value,
                )
            )

    def _lock_symbol(self, c: sa.Connection, name: str) -> int:
        found = c.scalar(questions.SYMBOL, {"name": name})
        if found is None:
            raise _unknown([name], self._access.address.where)
        self._access.lock(c, found)
        return found

    def _actions(
        self, c: sa.Connection, symbol_ids: list[int]
    ) -> dict[int, list[Action]]:
        query = questions.actions(self._access.address.dialect)
        asked = {"ids": self._access.listed(symbol_ids)}
        found: dict[int, list[Action]] = {}
        for symbol_id, ts, kind, value in c.execute(query, asked):
            found.setdefault(symbol_id, []).append(Action(ts, kind, value))
        return found

    def _forget(self, name: str) -> None:
        for interval in intervals.MICROSECONDS:
            self._stamps.pop((name, interval), None)

    # Series, by way of stamp and cache

    def _ask_stamps(self, names: list[str], interval: str) -> dict[str, _Stamp]:
        """Read the stamps of all names in one query, and remember them."""
        query = questions.stamps(self._access.address.dialect)
        asked = {"names": self._access.listed(names)}
        asked["interval"] = intervals.checked(interval)
        now = time.monotonic()
        rows = self._access.read(lambda c: c.execute(query, asked).all())
        found = {
            ticker: _Stamp(
                *(own, series_id, version or 0, n or 0, first or 0, last or 0), now
            )
            for ticker, own, series_id, version, n, first, last in rows
        }
        missing = [name for name in names if name not in found]
        if missing:
            raise _unknown(missing, self._access.address.where)
        self._stamps.update({(name, interval): found[name] for name in found})
        return found

    def _known_stamps(self, names: list[str], interval: str) -> dict[str, _Stamp]:
        """Return stamps that are at most RECHECK_S old."""
        oldest = time.monotonic() - RECHECK_S
        known = {name: self._stamps.get((name, interval)) for name in names}
        fresh = {n: s for n, s in known.items() if s is not None and s.read_at > oldest}
        stale = [name for name in names if name not in fresh]
        return fresh | self._ask_stamps(stale, interval) if stale else fresh

    def _tier(
        self,
        symbol: str,
        interval: str,
        start: When,
        end: When,
        points: int,
        adjust: Adjust,
    ) -> str:
        """Return the interval whose stored bars are enough for a chart."""
        stamp = self._known_stamps([symbol], interval)[symbol]
        # Dividends are adjusted for by the close of one bar, which must be the same
        # whatever is drawn.
        if not TIERS[interval] or stamp.n <= points or adjust == "all":
            return interval
        first, last = span(start, end)
        first, last = max(first, stamp.first_ts), min(last, stamp.last_ts)
        if stamp.series_id is None or first > last:
            return interval
        own = stamp.series_id
        counts = self._access.read(
            lambda c: chunks.counts(c, own, interval, first, last)
        )
        return coarsest(counts, interval, points)

    def _range(
        self,
        symbol: str,
        interval: str,
        tier: str,
        start: When,
        end: When,
        adjust: Adjust,
        wanted: set[str],
    ) -> Columns:
        """Return columns of a range, adjusted; they may be the cache's own arrays."""
        if adjust not in ("none", "split", "all"):
            raise StoreError(f'adjust {adjust!r} is not "none", "split" or "all"')
        first, last = span(start, end)
        stamps = self._known_stamps([symbol], interval)
        needs = wanted | {"ts"} | ({"close"} if adjust == "all" else set())
        held = self._hold(stamps, tier, first, last, needs, adjust)
        raw, actions = held[symbol]
        ends = stamps[symbol].last_ts
        raw = _cut(raw, first, ends if adjust == "all" else last)
        return _cut(adjustment.adjusted(raw, actions, adjust, ends), first, last)

    def _hold(
        self,
        stamps: dict[str, _Stamp],
        tier: str,
        first: int,
        last: int,
        wanted: set[str],
        adjust: Adjust,
    ) -> dict[str, Held]:
        """Return raw columns and actions per name, from the cache or the database.

        At least the bars from `first` to `last`, or to the end where dividends are
        adjusted for. A single series of moderate length is read whole and kept; several
        at once are read as far as asked and not kept.
        """
        own = {n: s for n, s in stamps.items() if s.series_id is not None}
        held = dict.fromkeys(stamps.keys() - own.keys(), _NO_BARS)
        if len(own) == 1:
            ((name, stamp),) = own.items()
            if stamp.n <= WHOLE_SERIES_ROWS:
                held[name] = self._cache.fetch(
                    (stamp.series_id or 0, tier, stamp.version),
                    lambda: self._whole(name, stamp, tier),
                )
                return held
        since = None if first <= EARLIEST else first
        until = None if adjust == "all" or last >= LATEST else last
        keys = {n: (s.series_id or 0, tier, s.version) for n, s in own.items()}
        kept = {n: found for n, key in keys.items() if (found := self._cache.get(key))}
        rest = {n: s for n, s in own.items() if n not in kept}
        read = self._stored(rest, tier, since, until)
        return (
            held
            | kept
            | {
                name: (gathered(rows, wanted=wanted), actions)
                for name, (rows, actions) in read.items()
            }
        )

    def _whole(self, name: str, stamp: _Stamp, tier: str) -> Held:
        """Read a whole series, from the shared cache where there is one."""
        stamps = {name: stamp}
        if self._shared is None:
            rows, actions = self._stored(stamps, tier, None, None)[name]
            return gathered(rows), actions
        from . import shared

        where = self._access.address.where
        key = shared.key(where, stamp.series_id or 0, tier, stamp.version)
        value = self._shared.get(key)
        found = None if value is None else shared.unpacked(value)
        if found is None:
            found = self._stored(stamps, tier, None, None)[name]
            self._shared.put(key, shared.packed(*found))
        rows, actions = found
        return gathered(rows), actions

    def _stored(
        self,
        stamps: dict[str, _Stamp],
        tier: str,
        first: int | None,
        last: int | None,
    ) -> dict[str, tuple[list[chunks.Stored], list[Action]]]:
        """Read the chunks and actions of several series in two questions."""
        if not stamps:
            return {}
        ids = [stamp.series_id or 0 for stamp in stamps.values()]
        symbol_ids = [stamp.symbol_id for stamp in stamps.values()]
        stored, actions = self._access.read(
            lambda c: (
                chunks.read(c, ids, tier, first, last),
                self._actions(c, symbol_ids),
            )
        )
        return {
            name: (
                stored.get(stamp.series_id or 0, []),
                actions.get(stamp.symbol_id, []),
            )
            for name, stamp in stamps.items()
        }


def _unknown(names: list[str], where: str) -> UnknownSymbol:
    return UnknownSymbol(
        f"no such symbol in {where}: {', '.join(sorted(names))}",
        "list the known ones: python -m mltrading_marketdata info",
    )


def _wanted(columns: Iterable[str] | None) -> list[str]:
    wanted = list(COLUMNS[1:]) if columns is None else list(columns)
    unknown = [name for name in wanted if name not in COLUMNS[1:]]
    if unknown:
        raise StoreError(f"no such bar columns: {unknown}; known: {COLUMNS[1:]}")
    return wanted


def _cut(columns: Columns, first: int, last: int) -> Columns:
    ts = columns["ts"]
    lower, upper = ts.searchsorted(first, "left"), ts.searchsorted(last, "right")
    if upper - lower == len(ts):
        return columns
    return {name: column[lower:upper] for name, column in columns.items()}


def _times(column: pd.Series) -> pd.Series:
    """Return microseconds (or None) as UTC times (or NaT)."""
    known = column.notna()
    values = np.full(len(column), np.datetime64("NaT", "us"))
    values[known.to_numpy()] = column[known].astype(np.int64).to_numpy().view("M8[us]")
    return pd.Series(values, index=column.index).dt.tz_localize("UTC")


def _iso(ts: int | None) -> Any:
    return None if ts is None else pd.Timestamp(ts, unit="us", tz="UTC").isoformat()


def _union(times: list[np.ndarray]) -> np.ndarray:
    """Return all timestamps, each once, in order; series often share all of them."""
    if not times:
        return np.empty(0, np.int64)
    longest = max(times, key=len)
    odd = [one for one in times if len(one) != len(longest) or (one != longest).any()]
    return np.unique(np.concatenate([longest, *odd])) if odd else longest


def _frame(columns: Columns) -> pd.DataFrame:
    """Return a frame of its own: writing to it does not reach the cache."""
    data = {
        name: column if column.flags.writeable else column.copy()
        for name, column in columns.items()
        if name != "ts"
    }
    return pd.DataFrame(data, index=as_index(columns["ts"]), copy=False)
