"""The statements that are said again and again, each built once.

Building one costs more than having it answered. Values are given when it is said, under
the names in `bindparam`; many values go in one, see `one_of` and `listed`.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import cache
from typing import Any

import sqlalchemy as sa

from . import interval as intervals
from .rollups import TIERS
from .tables import chunk, corporate_action, series, symbol

FIELDS = ("open", "high", "low", "close", "volume", "previous_close")
# Beyond all numbers of chunks that there can be.
NO_BOUND = 2**31 - 1


def one_of(
    dialect: str,
    column: sa.ColumnElement[Any],
    name: str,
    values: Collection[int] | Collection[str] | None = None,
) -> sa.ColumnElement[bool]:
    """Return `column IN values` with one parameter, however many values.

    It is a `listed`, given as `name` when the statement is said, or here.
    """
    # Without a type: PostgreSQL then reads the text as the array that it must be, once.
    # A cast would be done anew for every row.
    given = sa.bindparam(name, type_=sa.types.NULLTYPE)
    if values is not None:
        given = sa.bindparam(
            name, listed(dialect, values), type_=sa.types.NULLTYPE, unique=True
        )
    if dialect == "postgresql":
        return column == sa.any_(given)
    each = sa.func.json_each(given).table_valued("value")
    return column.in_(sa.select(each.c.value))


def listed(dialect: str, values: Collection[int] | Collection[str]) -> str:
    """Return values as the one parameter of `one_of`: as the text of an array.

    The driver's own way to send an array costs as much as a read.
    """
    if dialect != "postgresql":
        return json.dumps(list(values))
    texts = [each if isinstance(each, str) else str(each) for each in values]
    joined = '","'.join(texts)
    if "\\" in joined or joined.count('"') > 2 * (len(texts) - 1):
        texts = [each.replace("\\", r"\\").replace('"', r"\"") for each in texts]
        joined = '","'.join(texts)
    return f'{{"{joined}"}}' if texts else "{}"


@cache
def stamps(dialect: str) -> sa.Select:
    """Ask for stamps, of `names` at `interval`; a symbol without a series is a row."""
    own = (series.c.symbol_id == symbol.c.id) & (
        series.c.interval == sa.bindparam("interval")
    )
    return (
        sa.select(
            symbol.c.ticker,
            symbol.c.id,
            series.c.id.label("series_id"),
            series.c.version,
            series.c.n,
            series.c.first_ts,
            series.c.last_ts,
        )
        .join_from(symbol, series, own, isouter=True)
        .where(one_of(dialect, symbol.c.ticker, "names"))
    )


@cache
def latest(dialect: str, named: bool) -> sa.Select:
    """Ask for the last daily bars, of all symbols or of `names`, in any order.

    The last column is a split between the last two bars, mostly None; two of them are
    two rows.
    """
    split = (
        (corporate_action.c.symbol_id == series.c.symbol_id)
        & (corporate_action.c.kind == "split")
        & (corporate_action.c.ts <= series.c.last_ts)
        & (corporate_action.c.ts > series.c.previous_ts)
    )
    query = (
        sa.select(
            symbol.c.ticker,
            series.c.last_ts,
            *(series.c[name] for name in FIELDS),
            corporate_action.c.value,
        )
        .join_from(symbol, series)
        .join(corporate_action, split, isouter=True)
        .where(series.c.interval == "1d", series.c.n > 0)
    )
    return query.where(one_of(dialect, symbol.c.ticker, "names")) if named else query


@cache
def actions(dialect: str) -> sa.Select:
    """Ask for the corporate actions of the symbols `ids`, in order of time."""
    table = corporate_action
    return (
        sa.select(table.c.symbol_id, table.c.ts, table.c.kind, table.c.value)
        .where(one_of(dialect, table.c.symbol_id, "ids"))
        .order_by(table.c.symbol_id, table.c.ts, table.c.kind)
    )


@cache
def chunks(dialect: str) -> sa.Select:
    """Ask for the chunks `first` to `last` of the series `ids` at `interval`."""
    return (
        sa.select(chunk.c.series_id, chunk.c.n, chunk.c.codec, chunk.c.payload)
        .where(
            one_of(dialect, chunk.c.series_id, "ids"),
            chunk.c.interval == sa.bindparam("interval"),
            chunk.c.period.between(sa.bindparam("first"), sa.bindparam("last")),
        )
        .order_by(chunk.c.series_id, chunk.c.period)
    )


@cache
def counts(interval: str) -> sa.Select:
    """Ask how many bars each chunk of `own` has at an interval and at longer ones.

    Of each interval those from `first_1h` to `last_1h` and so on.
    """
    within = [
        (chunk.c.interval == tier)
        & chunk.c.period.between(
            sa.bindparam(f"first_{tier}"), sa.bindparam(f"last_{tier}")
        )
        for tier in (interval, *TIERS[intervals.checked(interval)])
    ]
    query = sa.select(chunk.c.interval, chunk.c.period, chunk.c.n)
    return query.where(chunk.c.series_id == sa.bindparam("own"), sa.or_(*within))


_own = (chunk.c.series_id == sa.bindparam("own")) & (
    chunk.c.interval == sa.bindparam("at")
)

# The chunks `first` to `last` of the series `own` at the interval `at`.
STORED = sa.select(chunk.c.period, chunk.c.n, chunk.c.codec, chunk.c.payload).where(
    _own, chunk.c.period.between(sa.bindparam("first"), sa.bindparam("last"))
)
# Its last two chunks, the last one first.
LAST_TWO = (
    sa.select(chunk.c.n, chunk.c.codec, chunk.c.payload)
    .where(_own)
    .order_by(chunk.c.period.desc())
    .limit(2)
)
# Put n, codec and payload in the place of those of its chunk `number`.
REPLACE = (
    chunk.update()
    .where(_own, chunk.c.period == sa.bindparam("number"))
    .values({name: sa.bindparam(name) for name in ("n", "codec", "payload")})
)
INSERT = chunk.insert()

# The series of a symbol `own` at the interval `at`.
SERIES = sa.select(
    series.c.id, series.c.version, series.c.n, series.c.first_ts, series.c.last_ts
).where(
    series.c.symbol_id == sa.bindparam("own"),
    series.c.interval == sa.bindparam("at"),
)
NEW_SERIES = series.insert()
# Change what is given of a series `own`.
CHANGED_SERIES = series.update().where(series.c.id == sa.bindparam("own"))
SYMBOL = sa.select(symbol.c.id).where(symbol.c.ticker == sa.bindparam("name"))
