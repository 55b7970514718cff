"""How long to wait before asking again."""

from datetime import UTC, datetime

import pytest

from mltrading_marketdata.sources.patience import Patience, retry_after

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("30", 30),
        ("Fri, 02 Jan 2026 12:01:00 GMT", 60),
        ("Fri, 02 Jan 2026 11:00:00 GMT", 0),
        ("soon", None),
        ("", None),
    ],
)
def test_a_header_is_seconds_or_a_date(value, seconds):
    assert retry_after(value, NOW) == seconds


def test_pauses_grow_and_end_with_the_deadline():
    waits = []
    patience = Patience(100, clock=lambda: sum(waits), sleep=waits.append)
    while patience.again():
        pass
    assert waits == [1, 2, 4, 8, 16, 30, 30]


def test_what_was_asked_for_is_waited_for():
    waits = []
    patience = Patience(100, clock=lambda: sum(waits), sleep=waits.append)
    assert patience.again(99) and not patience.again(99)
    assert waits == [99]
