"""Lines: when they were written, which belong together, in which order."""

from __future__ import annotations

import pytest

from ops.lines import (
    Entry,
    chosen,
    grouped,
    hidden,
    joined,
    merged,
    redacted,
    stamp,
    told,
)
from ops.logs import HOLD, Tail


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-03-01T12:00:01.250Z INFO app said", 1772366401.25),
        ("2026-03-01T13:00:01+01:00 said", 1772366401.0),
        ("[2026-03-01 12:00:01 +0000] [7] [INFO] Booting", 1772366401.0),
        ("2026-03-01 13:00:01,250 INFO app said", 1772366401.25),
        ("2026/03/01 13:00:01 [error] 7#7: said", 1772366401.0),
        ('{"at": 1772366401.5, "status": 200}', 1772366401.5),
        ('::1 - ann [01/Mar/2026:13:00:01 +0100] "GET /"', 1772366401.0),
        ('::1 - ann [01/Xxx/2026:13:00:01 +0100] "GET /"', None),
        ('{"time": "2026-03-01T12:00:01.250Z", "message": "said"}', 1772366401.25),
        ('{"time": "soon"}', None),
        ('{"time": "{}"}', None),
        ("[1]", None),
        ("{not json", None),
        ("2026-13-01 12:00:01 said", None),
        ("Traceback (most recent call last):", None),
        ("", None),
    ],
)
def test_a_line_says_when_it_was_written(text: str, at: float | None) -> None:
    # A clock that is an hour ahead of UTC, where the line names no zone.
    assert stamp(text, east=3600.0) == at


def test_lines_without_a_moment_continue_the_one_before() -> None:
    lines = [(None, "half"), (1.0, "a"), (None, "  b"), (2.0, "c")]
    assert grouped(lines) == [(None, "half"), (1.0, "a\n  b"), (2.0, "c")]


def test_what_is_wanted_is_chosen_by_time_text_and_number() -> None:
    every = [(1.0, "x a"), (None, "x b"), (3.0, "y c"), (4.0, "x d")]
    assert chosen(every, since=2.0) == every[2:]
    assert chosen(every, grep="x", last=1) == every[3:]
    assert chosen(every, since=1.0, grep="x") == [every[0], every[1], every[3]]
    assert chosen(every, last=0) == []


def entry(source: str, at: float | None, text: str = "", seen: float = 0.0) -> Entry:
    return Entry("here", source, at, text or f"{source} {at}", seen)


def test_sources_are_merged_by_time_and_each_keeps_its_order() -> None:
    # The clock of b went back by 4 s; what came without a moment goes by its arrival.
    a = [entry("a", 1.0), entry("a", 7.0)]
    b = [entry("b", 6.0), entry("b", 2.0), entry("b", None, seen=6.5)]
    order = [(found.source, found.at) for found in merged([a, b])]
    assert order == [("a", 1.0), ("b", 6.0), ("b", 2.0), ("b", None), ("a", 7.0)]


def test_a_traceback_that_comes_in_two_pieces_is_one_entry() -> None:
    (found,) = joined([entry("a", 1.0, "boom")], [entry("a", None, "  here", 5.0)])
    assert (found.text, found.at, found.seen) == ("boom\n  here", 1.0, 5.0)


def test_what_comes_rests_until_others_could_come_before_it() -> None:
    tail = Tail()
    tail.take("one", {"v1": [entry("v1", 20.0, seen=100.0)]})
    tail.take("two", {"v1": [entry("v1", 10.0, seen=100.2)]})
    assert tail.ripe(100.1) == []
    assert [found.at for found in tail.ripe(100.2 + HOLD)] == [10.0, 20.0]
    assert tail.ripe(999.0) == []


def test_values_and_passwords_are_hidden_and_short_words_are_not() -> None:
    variables = {
        "KEY": "line-one\nline-two",
        "LEVEL": "info",
        "URL": "postgresql://u:p%40ss@h/d",
        "BAD": "http://[",
    }
    values = hidden(variables, ["KEY", "GONE"])
    assert values == {"line-one", "line-two", "p%40ss", "p@ss"}
    text = "line-two p@ss info http://a:b@c"
    assert redacted(text, values) == "*** *** info http://a:***@c"


OBJECT = (
    '{"time": "2026-03-01T12:00:01Z", "level": "error", "logger": "a", "message": "b", '
    '"request_id": "r1", "release": "v7", "error": "boom", "trace": "Trace\\n  boom"}'
)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (OBJECT, "2026-03-01T12:00:01Z ERROR a b request_id=r1\nTrace\n  boom"),
        (f"{OBJECT}\nmore", told(OBJECT) + "\nmore"),
        ('{"at": 1.0, "status": 200}', '{"at": 1.0, "status": 200}'),
        ("{not json", "{not json"),
        ("plain", "plain"),
    ],
)
def test_an_object_is_read_as_a_sentence(text: str, line: str) -> None:
    assert told(text) == line
