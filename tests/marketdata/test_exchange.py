"""One name per exchange, one that has a calendar."""

import exchange_calendars
import pytest

from mltrading_marketdata.sources.exchange import _NAMES, canonical


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("NasdaqGS", "NASDAQ"),
        ("NYSE", "NYSE"),
        ("NYSEArca", "ARCX"),
        ("NYSE MKT", "XASE"),
        ("PINK", "OOTC"),
        ("XETRA", "XETR"),
        ("Somewhere", "Somewhere"),
        ("", ""),
    ],
)
def test_each_provider_s_name_leads_to_ours(theirs, ours):
    assert canonical(theirs) == ours


def test_each_of_ours_has_a_calendar():
    known = exchange_calendars.get_calendar_names(include_aliases=True)
    assert {ours for _, ours in _NAMES} <= set(known)
