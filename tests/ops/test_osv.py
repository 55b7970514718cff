"""OSV records become a database that says the same in the client's own layout."""

from __future__ import annotations

from typing import Any

import pytest

from ops.osv import convert, specifiers


def record(name: str = "Alpha_Beta", **more: Any) -> dict[str, Any]:
    events = [{"introduced": "0"}, {"fixed": "1.5"}]
    item = {
        "package": {"ecosystem": "PyPI", "name": name},
        "ranges": [{"type": "ECOSYSTEM", "events": events}],
    }
    base = {"id": "PYSEC-1", "modified": "2026-11-20T00:00:00Z", "affected": [item]}
    return {**base, **more}


def test_a_record_becomes_a_line_under_the_name_that_the_lock_writes() -> None:
    short, full = convert([record(aliases=["CVE-2026-1", "GHSA-x"], summary="bad")])
    assert short["vulnerable_packages"] == {"alpha-beta": [">=0,<1.5"]}
    (advisory,) = full["vulnerable_packages"]["alpha-beta"]
    assert advisory["ids"] == [
        {"type": "pyup", "id": "PYSEC-1"},
        {"type": "cve", "id": "CVE-2026-1"},
    ]


def test_the_date_is_that_of_the_newest_record() -> None:
    short, _ = convert([record(), record(modified="2026-11-22T00:00:00Z")])
    assert short["meta"]["timestamp"] == 1795305600


def test_what_was_withdrawn_or_is_of_another_language_is_left_out() -> None:
    with pytest.raises(ValueError, match="no record is about a Python package"):
        convert([record(withdrawn="2026-01-01T00:00:00Z")])


@pytest.mark.parametrize("bad", [{}, {"id": "x"}, record(modified="soon")])
def test_what_is_no_record_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="OSV|Invalid isoformat"):
        convert([bad])


@pytest.mark.parametrize(
    ("events", "specs"),
    [
        ([{"introduced": "0"}], [">=0"]),
        ([{"introduced": "1.0"}, {"last_affected": "1.4"}], [">=1.0,<=1.4"]),
        (
            [{"introduced": "0"}, {"fixed": "1"}, {"introduced": "2"}],
            [">=0,<1", ">=2"],
        ),
        ([{"introduced": "1"}, {"fixed": "not-a-version"}], [">=1"]),
    ],
)
def test_a_range_that_is_open_stays_open(events: list, specs: list[str]) -> None:
    assert specifiers({"ranges": [{"type": "ECOSYSTEM", "events": events}]}) == specs


def test_versions_stand_in_for_ranges() -> None:
    git = {"type": "GIT", "events": [{"introduced": "abc"}]}
    affected = {"ranges": [git], "versions": ["1.0", "1.1rc1", "what-ever"]}
    assert specifiers(affected) == ["==1.0", "==1.1rc1"]
