"""Tests that say two things about the same files: reported, listed, never hidden.

The first time is a warning. From the second time on a test must be in
`tests/flaky.toml`, with an owner and the day by which it is mended; else it is red.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from ops import cache, errors
from ops.cache import Store, Verdict

LIST = "tests/flaky.toml"


@dataclass(frozen=True, slots=True)
class Entry:
    """A test that is known to be flaky, who mends it, and by when."""

    test: str
    owner: str
    until: date
    why: str


@dataclass(frozen=True, slots=True)
class Sight:
    """A flaky test of this run: what it said, how often before, and the ruling."""

    test: str
    said: str
    before: int
    red: bool
    text: str


def load(root: Path) -> dict[str, Entry]:
    """Return the list, by node id.

    Raises:
        Usage: an entry lacks something.
    """
    file = root / LIST
    if not file.is_file():
        return {}
    try:
        rows = tomllib.loads(file.read_text()).get("flaky", [])
        return {
            row["test"]: Entry(
                row["test"],
                _owner(row),
                date.fromisoformat(str(row["until"])),
                row["why"],
            )
            for row in rows
        }
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise errors.Usage(
            f"{LIST} can't be read: {error}",
            where=LIST,
            allowed='[[flaky]] with test, owner, until = 2026-12-31, why = "…"',
        ) from None


def _owner(row: Mapping[str, str]) -> str:
    if not row["owner"].strip():
        raise ValueError(f"nobody owns {row['test']}")
    return row["owner"]


def judge(
    seen: Mapping[str, str],
    known: Mapping[str, Entry],
    counts: Mapping[str, int],
    today: date,
) -> list[Sight]:
    """Rule on the flaky tests of a run: `seen` is node id to what it said.

    `counts` is how often each was flaky before.
    """
    sights = []
    for test, said in sorted(seen.items()):
        entry, before = known.get(test), counts.get(test, 0)
        if entry is not None and today <= entry.until:
            red, text = False, f"{entry.owner} mends it until {entry.until}"
        elif entry is not None:
            red, text = True, f"{entry.owner} was to mend it until {entry.until}"
        elif before:
            red, text = True, f"the {before + 1}th time; mend it or list it in {LIST}"
        else:
            red, text = False, f"the first time; the next time it is red: {LIST}"
        sights.append(Sight(test, said, before, red, text))
    return sights


def overdue(known: Mapping[str, Entry], today: date) -> list[str]:
    """Return the entries whose day has passed: a list is no place to stay."""
    return [
        f"{entry.test}: {entry.owner} was to mend it until {entry.until}"
        for entry in known.values()
        if entry.until < today
    ]


def counted(store: Store, tests: Sequence[str]) -> dict[str, int]:
    """Return how often tests were flaky before, and count this time."""
    counts = {}
    for test in tests:
        known = store.get(cache.key(flaky=test))
        counts[test] = int((known.data or {}).get("times", 0)) if known else 0
        said = Verdict("flaky", "warned", data={"times": counts[test] + 1})
        store.put(cache.key(flaky=test), said)
    return counts
