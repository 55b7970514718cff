"""Lines of logs: when each was written, which belong together, in which order: pure.

Standard library only: hosts use it too.
"""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import unquote, urlsplit

# A line is (moment, text): seconds since the epoch, None where it does not say when.
Line = tuple[float | None, str]

_DAY = r"(?P<year>\d{4})[-/](?P<month>\d\d)[-/](?P<day>\d\d)"
_TIME = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)(?:[.,](?P<part>\d{1,6}))?"
_ZONE = r" ?(?P<zone>Z|[+-]\d\d:?\d\d)?"
# gunicorn's brackets, nginx's slashes, ISO 8601, Python's comma before milliseconds.
_STAMP = re.compile(rf"\[?{_DAY}[T ]{_TIME}{_ZONE}")
# The combined format of web servers has its moment behind the client's name.
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_COMBINED = re.compile(
    r"\S+ \S+ \S+ \[(?P<day>\d\d)/(?P<month>[A-Z][a-z]{2})/(?P<year>\d{4}):"
    + _TIME
    + _ZONE
)
_PASSWORD = re.compile(r"(://[^/?#:@\s]*):[^/?#@\s]+@")
# What the line's place says already, or nobody reads.
_KNOWN = ("service", "release", "pid")
# A shorter value would blank out words that are no secret.
_SHORTEST = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """What was written at once: a line and those that continue it, a traceback say.

    `at` is when it says it was written, `seen` when it was read, by the reader's clock;
    both in seconds since the epoch. `source` is a release (v7) or a log of the door.
    """

    host: str
    source: str
    at: float | None
    text: str
    seen: float = 0.0

    @property
    def moment(self) -> float:
        """When it was written, as far as that is known."""
        return self.seen if self.at is None else self.at


def stamp(text: str, east: float = 0.0) -> float | None:
    """Return the moment with which a line begins, None where it begins with none.

    An object of JSON says it under "at", in seconds since the epoch, or under "time",
    as ISO 8601.
    `east` is how many seconds the clock of a line that names no zone is ahead of UTC.
    """
    if text.startswith("{"):
        said = _values(text)
        at, iso = said.get("at"), said.get("time")
        if isinstance(at, (int, float)):
            return float(at)
        return stamp(iso) if isinstance(iso, str) and iso[:1].isdigit() else None
    found = _STAMP.match(text) or _COMBINED.match(text)
    if not found:
        return None
    said = found.groupdict()
    if said["month"] in _MONTHS:
        said["month"] = str(_MONTHS.index(said["month"]) + 1)
    zone: timezone = UTC
    if said["zone"] is None:
        zone = timezone(timedelta(seconds=east))
    elif said["zone"] != "Z":
        sign = -1 if said["zone"][0] == "-" else 1
        digits = said["zone"][1:].replace(":", "")
        minutes = int(digits[:2]) * 60 + int(digits[2:])
        zone = timezone(sign * timedelta(minutes=minutes))
    names = ("year", "month", "day", "hour", "minute", "second")
    part = int((said["part"] or "").ljust(6, "0"))
    try:
        at = datetime(*(int(said[name]) for name in names), part, tzinfo=zone)
    except ValueError:
        return None
    return at.timestamp()


def _values(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def told(text: str) -> str:
    """Return an entry as a person reads it: an object of JSON becomes a sentence.

    An application writes objects that hold time, level, logger and message; "error"
    and "trace" are what went wrong, and whatever else there is follows the message.
    Other text stays.
    """
    first, cut, rest = text.partition("\n")
    said = _values(first) if first.startswith("{") else {}
    if not {"time", "level", "message"} <= {*said}:
        return text
    level = str(said.pop("level")).upper()
    head = [said.pop("time"), level, said.pop("logger", ""), said.pop("message")]
    error, trace = (said.pop(name, "") for name in ("error", "trace"))
    more = [f"{name}={value}" for name, value in said.items() if name not in _KNOWN]
    line = " ".join(str(word) for word in (*head, *more) if word != "")
    return "\n".join(filter(None, (line, str(trace or error).strip("\n")))) + cut + rest


def grouped(lines: Iterable[Line]) -> list[tuple[float | None, str]]:
    """Return lines with those that continue them: a line without a moment does."""
    found: list[tuple[float | None, list[str]]] = []
    for at, text in lines:
        if at is None and found:
            found[-1][1].append(text)
        else:
            found.append((at, [text]))
    return [(at, "\n".join(texts)) for at, texts in found]


def joined(before: Sequence[Entry], new: Sequence[Entry]) -> list[Entry]:
    """Return what waits and what is new, of one source; what continues is put to it."""
    found = list(before)
    for entry in new:
        if entry.at is None and found:
            last = found[-1]
            text = f"{last.text}\n{entry.text}"
            found[-1] = replace(last, text=text, seen=entry.seen)
        else:
            found.append(entry)
    return found


def merged(sources: Iterable[Sequence[Entry]]) -> list[Entry]:
    """Return the entries of all sources in the order of time.

    Those of one source keep their order also where its clock went back.
    """
    ways = []
    for number, entries in enumerate(sources):
        latest, way = float("-inf"), []
        for place, entry in enumerate(entries):
            latest = max(latest, entry.moment)
            way.append(((latest, number, place), entry))
        ways.append(way)
    return [entry for _, entry in heapq.merge(*ways, key=lambda each: each[0])]


def chosen(
    entries: Iterable[tuple[float | None, str]],
    *,
    since: float = 0.0,
    grep: str = "",
    last: int | None = None,
) -> list[tuple[float | None, str]]:
    """Return what was written since a moment and holds a text; the `last` of these.

    What says no moment is kept with what is before it.
    """
    found, inside = [], not since
    for at, text in entries:
        inside = inside if at is None else at >= since
        if inside and grep in text:
            found.append((at, text))
    if last is None:
        return found
    return found[-last:] if last > 0 else []


def hidden(variables: Mapping[str, str], names: Iterable[str]) -> set[str]:
    """Return what no line may hold: values of secrets, and passwords in addresses.

    `names` are the variables that are secrets.
    """
    found: set[str] = set()
    for name in names:
        found.update(variables.get(name, "").splitlines())
    for value in variables.values():
        try:
            password = urlsplit(value).password or ""
        except ValueError:
            continue
        found.update((password, unquote(password)))
    return {value for value in found if len(value) >= _SHORTEST}


def redacted(text: str, values: Iterable[str]) -> str:
    """Return a text without these values and without passwords in addresses."""
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "***")
    return _PASSWORD.sub(r"\1:***@", text)
