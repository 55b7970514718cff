"""When the New York Stock Exchange trades, for a web worker: days off from a file.

exchange_calendars takes seconds and tens of megabytes to say it, and a table can't be
asked while the database is away. The exchange is open on weekdays from 9:30 to 16:00 of
New York; nyse.json holds the days that differ, in a range of years. After a new release
of exchange_calendars: python -m mltrading_marketdata.nyse
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from functools import cache
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

ZONE = ZoneInfo("America/New_York")
OPENS, CLOSES = time(9, 30), time(16)
FIRST, LAST = date(2026, 1, 1), date(2031, 12, 31)
NAME = "nyse.json"
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Session:
    """From when to when the exchange trades on one day, in UTC."""

    opens: datetime
    closes: datetime


@dataclass(frozen=True)
class DaysOff:
    """Weekdays without trade, and when it ends on those that end early.

    Of the days from `first` to `last`; of others nothing is known.
    """

    first: date
    last: date
    closed: frozenset[date]
    early: dict[date, time]

    def session(self, day: date) -> Session | None:
        """Return the session of a day in New York, None for a day without one."""
        if day.weekday() >= 5 or day in self.closed:
            return None
        closes = self.early.get(day, CLOSES)
        return Session(_utc(day, OPENS), _utc(day, closes))

    def coming(self, now: datetime, days: int) -> tuple[Session, ...]:
        """Return the sessions of some days that have not ended at `now`, in order.

        Empty where the days are not all known.
        """
        today = now.astimezone(ZONE).date()
        if today < self.first or today + days * _DAY > self.last:
            return ()
        found = (self.session(today + n * _DAY) for n in range(days + 1))
        return tuple(each for each in found if each and each.closes > now)


@cache
def days_off() -> DaysOff:
    """Return what the file says."""
    return parsed(json.loads((files("mltrading_marketdata") / NAME).read_text()))


def parsed(said: dict[str, Any]) -> DaysOff:
    """Return the content of the file as days."""
    return DaysOff(
        first=date.fromisoformat(said["first"]),
        last=date.fromisoformat(said["last"]),
        closed=frozenset(map(date.fromisoformat, said["closed"])),
        early={
            date.fromisoformat(day): time.fromisoformat(at)
            for day, at in said["early"].items()
        },
    )


def made(first: date = FIRST, last: date = LAST) -> dict[str, Any]:
    """Return the content of the file, from exchange_calendars; takes seconds.

    Raises ValueError for a session that does not open at 9:30: the file can't say it.
    """
    from .sessions import hours

    table = hours("XNYS", *(_microseconds(day) for day in (first, last)))
    closes: dict[date, time] = {}
    for opened, closed in zip(table["open"], table["close"], strict=True):
        opens, ends = _local(int(opened)), _local(int(closed))
        if opens.time() != OPENS:
            raise ValueError(f"the session of {opens.date()} opens at {opens.time()}")
        closes[opens.date()] = ends.time()
    days = [first + n * _DAY for n in range((last - first).days + 1)]
    weekdays = [day for day in days if day.weekday() < 5]
    return {
        "first": first.isoformat(),
        "last": last.isoformat(),
        "closed": [day.isoformat() for day in weekdays if day not in closes],
        "early": {
            day.isoformat(): f"{closes[day]:%H:%M}"
            for day in weekdays
            if closes.get(day, CLOSES) != CLOSES
        },
    }


def _utc(day: date, at: time) -> datetime:
    return datetime.combine(day, at, ZONE).astimezone(timezone.utc)


def _local(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1e6, ZONE)


def _microseconds(day: date) -> int:
    midnight = datetime.combine(day, time(), timezone.utc)
    return int(midnight.timestamp()) * 1_000_000


def main() -> None:
    """Write the file anew, in this package's folder."""
    with open(str(files("mltrading_marketdata") / NAME), "w", encoding="utf-8") as file:
        json.dump(made(), file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
