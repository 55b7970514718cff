"""When exchanges trade, and which bars of a series are not there.

The hours come from exchange_calendars and are kept in the table `session`: making a
calendar takes a second and memory that a web worker need not have.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import sqlalchemy as sa

from .access import Access
from .errors import StoreError
from .interval import MICROSECONDS
from .tables import session

_DAY = MICROSECONDS["1d"]
_FIELDS = ("ts", "open", "close", "break_start", "break_end")


@dataclass(frozen=True)
class Gap:
    """Bars that should be there: ts of the first and last (microseconds), how many."""

    start: int
    end: int
    bars: int


def sessions(
    access: Access, exchange: str, first: int, last: int
) -> dict[str, np.ndarray]:
    """Return the sessions of an exchange from the day of `first` to that of `last`.

    int64 microseconds since 1970 UTC: ts (00:00 UTC of the date), open, close,
    break_start, break_end (-1 where there is none). What the table lacks is put there.
    Raises StoreError for an exchange that has no calendar.
    """
    first, last = first // _DAY * _DAY, last // _DAY * _DAY
    covered = access.read(lambda c: _ends(c, exchange))
    if covered is None or first < covered[0] or last > covered[1]:
        _fill(access, exchange, first, last)
    query = sa.select(*(session.c[name] for name in _FIELDS)).where(
        session.c.calendar == exchange, session.c.ts.between(first, last)
    )
    rows = access.read(lambda c: c.execute(query.order_by(session.c.ts)).all())
    table = np.array([[-1 if x is None else x for x in row] for row in rows], np.int64)
    return dict(zip(_FIELDS, table.reshape(-1, len(_FIELDS)).T, strict=True))


def _ends(c: sa.Connection, exchange: str) -> tuple[int, int] | None:
    """Return the first and last day that the table covers."""
    own = session.c.calendar == exchange
    query = sa.select(sa.func.min(session.c.ts), sa.func.max(session.c.ts)).where(own)
    low, high = c.execute(query).one()
    return None if low is None else (low, high)


def _fill(access: Access, exchange: str, first: int, last: int) -> None:
    rows = _made(exchange, first, last)
    insert = access.insert(session).on_conflict_do_nothing()
    with access.writing("Store.gaps") as c:
        c.execute(insert, rows)


def _made(exchange: str, first: int, last: int) -> list[dict[str, Any]]:
    """Return rows of the table, a little beyond the range."""
    found = hours(exchange, first, last)
    return [
        {"calendar": exchange}
        | {
            name: None if column[at] < 0 else int(column[at])
            for name, column in found.items()
        }
        for at in range(len(found["ts"]))
    ]


@lru_cache(maxsize=32)
def hours(exchange: str, first: int, last: int) -> dict[str, np.ndarray]:
    """Return sessions as `sessions` does, from the library and not from the table.

    A little beyond the range, so that its ends are covered. Raises StoreError for an
    exchange that has no calendar.
    """
    import exchange_calendars
    from exchange_calendars.errors import CalendarError

    start = np.datetime64(first - 14 * _DAY, "us").astype("M8[D]")
    end = np.datetime64(last + 14 * _DAY, "us").astype("M8[D]")
    try:
        with warnings.catch_warnings():
            # It asks pandas and numpy in ways that their next releases will refuse.
            warnings.simplefilter("ignore", DeprecationWarning)
            calendar = exchange_calendars.get_calendar(
                exchange_calendars.resolve_alias(exchange),
                start=str(start),
                end=str(end),
            )
    except (CalendarError, ValueError) as error:
        names = ", ".join(("NYSE", "NASDAQ", "XLON", "XETR", "XTKS", "24/7"))
        raise StoreError(
            f"no calendar of {exchange!r} from {start} to {end}: {error}",
            f"name the exchange of the symbol as one of {names} or another one of"
            " exchange_calendars",
        ) from error
    schedule = calendar.schedule
    found = {"ts": schedule.index.to_numpy("M8[us]").astype(np.int64)}
    nothing = np.datetime64("NaT", "us").astype(np.int64)
    for name in _FIELDS[1:]:
        column = schedule[name].to_numpy("M8[us]").astype(np.int64)
        found[name] = np.where(column == nothing, -1, column)
    return found


def expected(
    hours: dict[str, np.ndarray], interval: str, first: int, last: int
) -> np.ndarray:
    """Return the start of each bar that sessions should have, within first and last.

    Intraday bars are counted from the open, so an hourly one may start at half past.
    """
    if interval == "1d":
        starts = hours["ts"]
    else:
        step = MICROSECONDS[interval]
        each = [
            np.arange(begin, end, step)
            for begin, end in _stretches(hours)
            if end >= first and begin <= last
        ]
        starts = np.concatenate(each) if each else np.empty(0, np.int64)
    return starts[(starts >= first) & (starts <= last)]


def _stretches(hours: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    found = []
    for begin, end, pause, resume in zip(
        hours["open"].tolist(),
        hours["close"].tolist(),
        hours["break_start"].tolist(),
        hours["break_end"].tolist(),
        strict=True,
    ):
        if pause < 0:
            found.append((begin, end))
        else:
            found += [(begin, pause), (resume, end)]
    return found


def missing(ts: np.ndarray, wanted: np.ndarray, interval: str) -> list[Gap]:
    """Return the runs of expected bars of which none is there.

    `ts`: the bars there are; a bar counts for the expected one in whose time it lies.
    Both ascending, int64 microseconds.
    """
    step = MICROSECONDS[interval]
    there = np.searchsorted(ts, wanted + step) > np.searchsorted(ts, wanted)
    away = np.flatnonzero(~there)
    if not len(away):
        return []
    breaks = np.flatnonzero(np.diff(away) > 1) + 1
    return [
        Gap(int(wanted[run[0]]), int(wanted[run[-1]]), len(run))
        for run in np.split(away, breaks)
    ]
