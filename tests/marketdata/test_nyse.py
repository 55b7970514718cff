"""When New York trades: the file that web workers read, and what they take from it."""

import json
from datetime import date, datetime, time, timedelta, timezone
from importlib.resources import files

import pytest

from mltrading_marketdata import nyse
from mltrading_marketdata.nyse import DaysOff, days_off, made

UTC = timezone.utc


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_the_file_says_what_exchange_calendars_says():
    said = json.loads((files("mltrading_marketdata") / nyse.NAME).read_text())
    assert said == made(), "run: python -m mltrading_marketdata.nyse"


@pytest.mark.parametrize(
    ("day", "opens", "closes"),
    [
        ("2026-11-25", "14:30", "21:00"),
        ("2026-11-27", "14:30", "18:00"),  # the day after Thanksgiving
        ("2026-07-02", "13:30", "20:00"),  # summer time
        ("2026-03-09", "13:30", "20:00"),  # the first day of it
    ],
)
def test_a_session_is_told_in_utc(day, opens, closes):
    found = days_off().session(date.fromisoformat(day))
    assert (f"{found.opens:%H:%M}", f"{found.closes:%H:%M}") == (opens, closes)


@pytest.mark.parametrize(
    "day", ["2026-11-26", "2026-11-28", "2026-12-25", "2026-04-03", "2026-07-03"]
)
def test_there_is_no_session_on_a_holiday_or_a_weekend(day):
    assert days_off().session(date.fromisoformat(day)) is None


@pytest.mark.parametrize(
    ("now", "first"),
    [
        ("2026-11-25T14:29", "2026-11-25T14:30"),
        ("2026-11-25T20:59", "2026-11-25T14:30"),  # it runs
        ("2026-11-25T21:00", "2026-11-27T14:30"),  # over Thanksgiving
        ("2026-11-26T01:40", "2026-11-27T14:30"),  # still the 25th in New York
        ("2026-11-27T18:00", "2026-11-30T14:30"),
        ("2026-12-31T21:00", "2027-01-04T14:30"),
    ],
)
def test_the_next_session_that_has_not_ended_comes_first(now, first):
    found = days_off().coming(at(now), 10)
    assert found[0].opens == at(first)
    assert list(found) == sorted(found, key=lambda each: each.opens)


def test_nothing_is_said_of_years_that_are_not_known():
    known = DaysOff(date(2026, 1, 1), date(2026, 12, 31), frozenset(), {})
    assert known.coming(at("2026-12-28T12:00"), 2)
    for now in ("2026-12-29T12:00", "2027-06-01T12:00", "2025-12-31T12:00"):
        assert known.coming(at(now), 3) == ()


def test_a_year_that_is_read_is_not_over():
    """Fails when the file has to be made for later years: FIRST and LAST in nyse.py."""
    assert days_off().coming(datetime.now(UTC) + timedelta(days=180), 10)


def test_an_early_end_is_kept_as_a_time():
    said = {"first": "2026-01-01", "last": "2026-12-31", "closed": ["2026-01-01"]}
    found = nyse.parsed({**said, "early": {"2026-11-27": "13:00"}})
    assert found.early == {date(2026, 11, 27): time(13)}
    assert found.closed == {date(2026, 1, 1)}
