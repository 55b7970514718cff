"""The market's clock on the overview."""

from datetime import datetime, timezone

import pytest

from mltrading_dashboard import clock
from mltrading_dashboard.app import create_app
from mltrading_dashboard.settings import Settings
from mltrading_marketdata.nyse import days_off
from tests.dashboard.test_app import ask, page_request


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def said(now):
    return clock.words(days_off().coming(at(now), clock.DAYS), at(now))


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ("2026-11-25T14:29", "NYSE closed · opens 09:30 EST"),
        ("2026-11-25T14:30", "NYSE open · closes 16:00 EST"),
        ("2026-11-25T20:59", "NYSE open · closes 16:00 EST"),
        ("2026-11-25T21:00", "NYSE closed · opens Fri 09:30 EST"),  # Thanksgiving
        ("2026-11-27T17:00", "NYSE open · closes 13:00 EST"),
        ("2026-11-28T12:00", "NYSE closed · opens Mon 09:30 EST"),
        ("2026-07-02T14:00", "NYSE open · closes 16:00 EDT"),
        ("2040-01-02T14:00", clock.UNKNOWN),
    ],
)
def test_the_clock_says_what_comes_next(now, words):
    assert said(now) == words


def test_the_days_that_the_browser_gets_hold_a_session_whatever_the_day():
    for day in range(1, 29):
        for month in range(1, 13):
            now = at(f"2027-{month:02}-{day:02}T23:00")
            assert days_off().coming(now, clock.DAYS)


def test_the_browser_gets_the_hours_as_it_counts_time():
    now = at("2026-11-25T21:00")
    first = clock.milliseconds(days_off().coming(now, 2))[0]
    assert first == [1795789800000, 1795802400000]


@pytest.mark.parametrize(
    ("now", "name"),
    [("2026-11-25T15:00", "clock open"), ("2026-11-26T15:00", "clock closed")],
)
def test_the_overview_shows_it(store, now, name):
    app = create_app(Settings("test", "sqlite:///not-opened.db"), store)
    app.data.now = lambda: at(now)
    text = ask(app.server.test_client(), page_request("/")).text
    assert f'"className":"{name}"' in text and "NYSE " in text
