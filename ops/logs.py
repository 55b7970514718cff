"""What releases and front doors wrote, on all hosts, in the order of time.

Hosts are asked side by side. What the reader has of each log is kept here as a
position, so that a connection that was cut loses nothing and repeats nothing.
"""

from __future__ import annotations

import json
import queue
import re
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ops import record, report
from ops.delivery import load
from ops.errors import OpsError, StepFailed, Usage
from ops.lines import Entry, joined, merged, told
from ops.release import parse_number
from ops.targets import open_target
from ops.targets.target import Target
from ops.world import Host

# Entries of each log where nobody says how many or since when.
LINES = 50
# Seconds. A host answers at once when something is new, else after WAIT. Entries rest
# for HOLD, so that those of another host can come before, and a traceback be whole.
WAIT = 1.0
HOLD = 0.4
_AGAIN = 1.0
# Clocks that differ by less than this put lines in an order that may be wrong.
_OFF = 2.0
_TONES = ("cyan", "magenta", "green", "yellow", "blue", "red")
# What a visitor got into a log must not reach a terminal as a command to it.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# The acts are in every host's journal; they are read from the first.
ACTS = "acts"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for. `since` in seconds since the epoch; `last` of each log."""

    release: int | None = None
    since: float = 0.0
    last: int | None = LINES
    grep: str = ""

    def first(self, *, torn: bool) -> dict[str, Any]:
        """Return what the first look at a host is asked with."""
        return {
            "positions": None,
            "release": self.release,
            "since": self.since,
            "grep": self.grep,
            "last": self.last,
            "torn": torn,
        }


def show(
    name: str,
    *,
    host: str = "",
    release: str | None = None,
    lines: str | int = "",
    since: str = "",
    follow: bool = False,
    grep: str = "",
    as_json: bool = False,
) -> None:
    """Print what was written, then what comes with `follow`.

    Raises:
        Usage: a host, release or moment that is none.
        StepFailed: no host can be reached.
    """
    number = None if release is None else parse_number(release, "--release")
    begin = record.moment(since, time.time()) if since else 0.0
    wish = Wish(number, begin, _last(lines, all_of=bool(since)), grep)
    with closing(open_target(load(name))) as target:
        world = target.observe()
        hosts = world.named(host)
        printer = Printer(hosts, grep, as_json)
        try:
            if follow:
                _follow(target, hosts, wish, printer)
            else:
                _once(name, target, hosts, wish, printer)
        except KeyboardInterrupt:
            # The way to end it, and nothing to talk about.
            raise SystemExit(130) from None


def _last(lines: str | int, *, all_of: bool) -> int | None:
    if lines == "":
        return None if all_of else LINES
    if not str(lines).isdecimal():
        raise Usage(f'"{lines}" is no number', where="--lines", allowed="0 and up")
    return int(lines)


def _once(
    name: str, target: Target, hosts: Sequence[Host], wish: Wish, printer: Printer
) -> None:
    reached = [host for host in hosts if not host.unreachable]
    for host in hosts:
        if host.unreachable:
            report.say(f"  {host.name} is out of reach: {host.unreachable}", "yellow")
    if not reached:
        raise StepFailed(
            "no host can be reached",
            where=", ".join(host.name for host in hosts),
            next=f"inv doctor --env {name}",
        )

    def ask(host: Host) -> dict[str, Any]:
        return target.act(host.name, "written", **wish.first(torn=True))

    with ThreadPoolExecutor(len(reached)) as pool:
        said = dict(
            zip([host.name for host in reached], pool.map(ask, reached), strict=True)
        )
    if wish.release is not None and not any(each["logs"] for each in said.values()):
        there = sorted({slot.number for host in reached for slot in host.slots})
        raise Usage(
            f"there is no log of v{wish.release}",
            where="--release",
            allowed=", ".join(f"v{number}" for number in there) or "nothing is there",
            next=f"inv history --env {name}",
        )
    sources = []
    for host, each in said.items():
        found = entries(host, each, first=host == reached[0].name)
        sources += list(found.values())
        for note in _partly(host, each):
            report.say(f"  {note}", "yellow")
    if not any(each["logs"] for each in said.values()):
        report.say(f"  nothing was ever started on {name}")
    for entry in merged(sources):
        if not printer.show(entry):
            return


def _partly(host: str, said: Mapping[str, Any]) -> list[str]:
    """Return what of the first look was cut, in sentences."""
    return [
        f"{host} {log}: only the last 4 MiB were looked at"
        for log, piece in said["logs"].items()
        if piece["partly"]
    ]


def entries(
    host: str, said: Mapping[str, Any], *, first: bool, seen: float = 0.0
) -> dict[str, list[Entry]]:
    """Return what a host answered as entries by log; acts only of the first. Pure."""
    found: dict[str, list[Entry]] = {}
    for source, piece in said["logs"].items():
        if source == ACTS and not first:
            continue
        made = [
            Entry("" if source == ACTS else host, source, at, words, seen)
            for at, text in piece["lines"]
            if (words := act(text) if source == ACTS else text)
        ]
        found[source] = joined((), made) if source != ACTS else made
    return found


def act(text: str) -> str:
    """Return the sentence that a line of the journal is, "" for none. Pure."""
    try:
        event = json.loads(text)
        facts = event.get("facts", {})
        what = event["op"] + (f" v{event['release']}" if event.get("release") else "")
        when = datetime.fromtimestamp(event["at"], UTC)
        match event["phase"], event.get("step"):
            case "begin", _:
                said = f"{what} begins, by {facts.get('by', 'somebody')}"
            case "end", _:
                why = facts.get("reason", "")
                said = f"{what} ends: {facts['outcome']}{', ' + why if why else ''}"
            case "done", "switch":
                said = f"{what}: traffic of {event.get('host', 'the host')} moved"
            case "fail", step:
                said = f"{what}: {step} failed, {facts.get('error', '')}".rstrip(", ")
            case _:
                return ""
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f"{_iso(when)} {said}"


# As it comes --------------------------------------------------------------------------


@dataclass(slots=True)
class Tail:
    """What has come of all logs and rests until it can be put in order."""

    waiting: dict[tuple[str, str], list[Entry]] = field(default_factory=dict)

    def take(self, host: str, found: Mapping[str, Sequence[Entry]]) -> None:
        """Put in what a host wrote."""
        for source, new in found.items():
            key = (host, source)
            self.waiting[key] = joined(self.waiting.get(key, ()), new)

    def ripe(self, now: float) -> list[Entry]:
        """Take out what has rested, in the order of time."""
        ready = []
        for key, every in self.waiting.items():
            count = 0
            while count < len(every) and every[count].seen <= now - HOLD:
                count += 1
            ready.append(every[:count])
            self.waiting[key] = every[count:]
        return merged(ready)


def _follow(
    target: Target, hosts: Sequence[Host], wish: Wish, printer: Printer
) -> None:
    # Small: a reader that is slow (a pager, say) makes the hosts wait, not us grow.
    came: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=8)
    for number, host in enumerate(hosts):
        arguments = (target, host.name, wish, number == 0, came)
        threading.Thread(target=_attend, args=arguments, daemon=True).start()
    tail = Tail()
    while True:
        try:
            kind, what = came.get(timeout=HOLD / 4)
            while True:
                if kind == "entries":
                    tail.take(*what)
                elif kind == "said":
                    report.say(f"  {what}", "yellow")
                else:
                    raise what
                kind, what = came.get_nowait()
        except queue.Empty:
            pass
        for entry in tail.ripe(time.time()):
            if not printer.show(entry):
                return
        if not printer.listened():
            return


def _attend(
    target: Target,
    host: str,
    wish: Wish,
    first: bool,
    came: queue.Queue[tuple[str, Any]],
) -> None:
    """Read the logs of one host for ever, going on where a cut came in between."""
    positions: dict[str, Any] | None = None
    asked, away = wish.first(torn=False), False
    while True:
        begun = time.time()
        try:
            said = target.act(host, "written", **asked)
        except StepFailed as error:
            if not away:
                why = error.what.partition(": ")[2] or error.what
                came.put(("said", f"{host} is out of reach, trying again: {why}"))
            away = True
            time.sleep(_AGAIN)
            continue
        except (OpsError, OSError) as error:
            came.put(("error", error))
            return
        now = time.time()
        if away:
            came.put(("said", f"{host} is back: going on where we were"))
        if positions is None:
            for note in (*_partly(host, said), _off(host, said, begun, now)):
                if note:
                    came.put(("said", note))
        away = False
        positions = {
            **(positions or {}),
            **{log: piece["position"] for log, piece in said["logs"].items()},
        }
        asked = {"positions": positions, "release": wish.release, "wait": WAIT}
        found = entries(host, said, first=first, seen=now)
        if any(found.values()):
            came.put(("entries", (host, found)))


def _off(host: str, said: Mapping[str, Any], begun: float, ended: float) -> str:
    """Return the sentence that a host's clock is wrong, "" where it is not."""
    off = said["now"] - (begun + ended) / 2
    if abs(off) < _OFF + (ended - begun) / 2:
        return ""
    way = "ahead of" if off > 0 else "behind"
    return f"{host}: its clock is {abs(off):.0f} s {way} ours, and so are its lines"


# On the screen ------------------------------------------------------------------------


class Printer:
    """Print entries with where they come from: the host, where there are several."""

    def __init__(self, hosts: Sequence[Host], grep: str, as_json: bool) -> None:
        self.grep = grep
        self.as_json = as_json
        names = [host.name for host in hosts]
        self.hosts = {name: _TONES[n % len(_TONES)] for n, name in enumerate(names)}
        self.wide = max(map(len, names)) if len(names) > 1 else 0
        logs = [f"v{slot.number}" for host in hosts for slot in host.slots]
        self.log = max(map(len, logs), default=0)

    def show(self, entry: Entry) -> bool:
        """Print one entry; False when nobody reads any more."""
        if self.grep not in entry.text:
            return True
        if self.as_json:
            return report.data(json.dumps(as_values(entry), ensure_ascii=False))
        self.log = max(self.log, len(entry.source))
        prefix = f"{entry.source:<{self.log}} |"
        if self.wide:
            prefix = f"{entry.host:<{self.wide}} {prefix}"
        tone = self.hosts[entry.host] if self.wide and entry.host else ""
        if not self.wide and entry.source != ACTS:
            tone = _TONES[sum(map(ord, entry.source)) % len(_TONES)]
        shown = report.colour(prefix, tone or "dim", stream=sys.stdout)
        lines = _CONTROL.sub("\ufffd", told(entry.text)).split("\n")
        return report.data("\n".join(f"{shown} {line}".rstrip() for line in lines))

    def listened(self) -> bool:
        """Say whether somebody still reads, also while nothing is printed."""
        return report.listened()


def as_values(entry: Entry) -> dict[str, Any]:
    """Return an entry as JSON values."""
    at = None if entry.at is None else _iso(datetime.fromtimestamp(entry.at, UTC))
    number = entry.source if entry.source[1:].isdecimal() else None
    return {
        "at": at,
        "host": entry.host or None,
        "release": number,
        "source": entry.source,
        "text": entry.text,
    }


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
