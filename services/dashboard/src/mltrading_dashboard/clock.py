"""The market's clock: is New York open, and when does that change."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from dash import dcc, html

from mltrading_marketdata.nyse import ZONE, Session, days_off

# Longer than any row of days off; a page that stays open is drawn anew before.
DAYS = 14
UNKNOWN = "NYSE hours are not known"


def clock(now: datetime) -> list:
    """Return the line and the sessions that the browser goes on with.

    The line is in the time of New York, until the browser writes it in its own.
    """
    sessions = days_off().coming(now, DAYS)
    return [
        dcc.Store(id="hours", data=milliseconds(sessions)),
        html.P(
            words(sessions, now), id="clock", className=f"clock {_state(sessions, now)}"
        ),
    ]


def words(sessions: Sequence[Session], now: datetime) -> str:
    """Return the line for sessions in order, of which none has ended."""
    if not sessions:
        return UNKNOWN
    first = sessions[0]
    if first.opens <= now:
        return f"NYSE open · closes {_local(first.closes, now)}"
    return f"NYSE closed · opens {_local(first.opens, now)}"


def milliseconds(sessions: Sequence[Session]) -> list[list[int]]:
    """Return (opens, closes) of each session as browsers count time."""
    return [
        [int(each.opens.timestamp()) * 1000, int(each.closes.timestamp()) * 1000]
        for each in sessions
    ]


def _state(sessions: Sequence[Session], now: datetime) -> str:
    return "open" if sessions and sessions[0].opens <= now else "closed"


def _local(at: datetime, now: datetime) -> str:
    there, today = at.astimezone(ZONE), now.astimezone(ZONE).date()
    day = "" if there.date() == today else f"{there:%a} "
    return f"{day}{there:%H:%M} {there.tzname()}"
