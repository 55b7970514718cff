"""Look at hosts past the engine, and judge what is there.

Reads files below a host's root, /proc and the front door; nothing of `ops` is used, so
that a defect of the engine can't hide itself. `look` gathers, all else is pure.

How each invariant is checked, on every host that has power and a link:

I1   /livez, /readyz, /version and a page answer well, through the front door, from a
     release that is good or has passed its gate; the load client's failures lie within
     an outage that the campaign itself has made (`excused`).
I2   `current` names a folder that holds a record, the release that answers is that one,
     and the journal says that its gate was passed.
I3   the same command again ends with 0, with one release on all hosts; and once more
     changes neither `current`, nor the releases, nor the journal (`same`).
I4   the lock can be had at once when all commands have ended; a command with `--wait`
     never ends with 3; runs of one epoch do not take turns in the journal.
I5   epochs never fall along a journal.
I6   every file of a good release has the content that it had when it became good; the
     newest `keep` good releases and the current one are there.
I7   each revision is applied once a generation, and with a backup where there was data.
I8   each line's hash is right and holds the one before; what can't be read is a torn
     line that a crash explains; every release folder, `current` and every process of a
     release has an intent; no run stays open when a command has ended well.
I9   planted secrets are in no file but those that hold them, which nobody else can
     read, in no argument list, and in nothing that a command printed.
I10  0: all hosts serve what was shipped. 1, 2, 3, 4, 130: what served before serves.
     5: only where a host had no power, link or disk. Never a traceback.
I11  seconds of rollbacks are in the report.
I12  `--dry-run` changes no file of a host.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import os
import re
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

START = "0" * 16
# Files that a release or its processes write while they run.
LIVE = re.compile(
    r"(^|/)(app\.(log|pid|sock)|run|__pycache__|environ\.unit|WARM|STARTED|\..*)(/|$)"
)
# The last is what a crash leaves of one that was being written.
HOLDERS = frozenset(("environ.json", "environ.unit", "sticky.json", ".sticky.json.new"))


@dataclass(frozen=True, slots=True)
class Place:
    """One host: the engine's name for it, its state folder, door, and cgroup."""

    name: str
    root: Path
    door: str
    cgroup: Path | None = None


@dataclass(frozen=True, slots=True)
class Violation:
    """One invariant that did not hold: which, where, what was seen."""

    invariant: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant} {self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class Journal:
    """What a journal file says: its events, unreadable lines, breaks of the chain."""

    events: tuple[Mapping[str, Any], ...] = ()
    torn: int = 0
    breaks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Door:
    """What the front door answered: the release, its mark, and what was wrong."""

    release: str = ""
    artefact: str = ""
    mark: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Sight:
    """What one host looks like. `slots`: release -> its record, None if not whole."""

    place: Place
    current: str = ""
    slots: Mapping[int, Mapping[str, Any] | None] = field(default_factory=dict)
    journal: Journal = Journal()
    epoch: int = 0
    locked: bool = False
    running: frozenset[int] = frozenset()
    arguments: tuple[str, ...] = ()
    door: Door = Door()

    @property
    def serves(self) -> int | None:
        match = re.fullmatch(r"releases/v(\d+)", self.current)
        return int(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class Standing:
    """What a journal says of releases: good ones, and the order of traffic."""

    good: frozenset[int] = frozenset()
    traffic: tuple[int, ...] = ()
    open: tuple[str, ...] = ()
    gated: frozenset[int] = frozenset()
    left: frozenset[int] = frozenset()


# Gathering ----------------------------------------------------------------------------


def look(place: Place, *, door: bool = True) -> Sight:
    """Return what a host looks like now, changing nothing on it.

    An agent whose deployer has died ends its step: where traffic moves while we look,
    we look again, or the door and the pointer would be of two moments.
    """
    for _ in range(5):
        sight = _glance(place, door=door)
        if _link(place.root / "current") == sight.current:
            break
    return sight


def _glance(place: Place, *, door: bool) -> Sight:
    releases = place.root / "releases"
    slots: dict[int, Mapping[str, Any] | None] = {}
    for name in _names(releases):
        match = re.fullmatch(r"v([1-9]\d*)", name)
        if match:
            slots[int(match[1])] = _json(releases / name / "release.json")
    arguments = processes(place)
    return Sight(
        place=place,
        current=_link(place.root / "current"),
        slots=slots,
        journal=parse(_bytes(place.root / "state" / "journal.jsonl")),
        epoch=int(_bytes(place.root / "state" / "epoch") or 0),
        locked=locked(place.root / "state" / "lock"),
        running=frozenset(running(arguments)),
        arguments=tuple(arguments),
        door=ask(place.door) if door else Door(),
    )


def processes(place: Place) -> list[str]:
    """Return the argument list of every process of a host, joined by spaces."""
    if place.cgroup is None:
        pids = [name for name in _names(Path("/proc")) if name.isdigit()]
    else:
        pids = [
            pid
            for folder, _, _ in os.walk(place.cgroup)
            for pid in _bytes(Path(folder, "cgroup.procs")).decode().split()
        ]
    found = []
    for pid in pids:
        line = _bytes(Path("/proc", pid, "cmdline"))
        text = line.replace(b"\0", b" ").decode(errors="replace").strip()
        if text and (place.cgroup is not None or str(place.root.parent) in text):
            found.append(text)
    return found


def running(arguments: Iterable[str]) -> set[int]:
    """Return the releases that some process serves."""
    found = set()
    for line in arguments:
        match = re.search(r"releases/v(\d+)/env/bin/python -m gunicorn", line)
        if match:
            found.add(int(match[1]))
    return found


def locked(path: Path) -> bool:
    """Say whether somebody holds the lease."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def ask(door: str) -> Door:
    """Ask a front door what anybody may ask, on one new connection."""
    parts = urlsplit(door)
    line = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=6)
    problem, said = "", {}
    try:
        for path in ("/livez", "/readyz", "/version", "/charts"):
            line.request("GET", path)
            answer = line.getresponse()
            body = answer.read()
            if answer.status != 200:
                problem = problem or f"{path} answered {answer.status}"
            elif path == "/version":
                said = json.loads(body)
    except (OSError, ValueError, http.client.HTTPException) as error:
        problem = problem or f"{type(error).__name__}: {error}"
    finally:
        line.close()
    named = {name: str(said.get(name, "")) for name in ("release", "artefact", "mark")}
    return Door(**named, problem=problem)


def files(folder: Path, known: dict[Path, tuple[tuple[int, ...], str]]) -> dict:
    """Return the sha256 of a release's files; `known` keeps those already read."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if LIVE.search(name):
            continue
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = _sha(path, known)
    return found


def everything(root: Path, known: dict[Path, tuple[tuple[int, ...], str]]) -> dict:
    """Return the content and mode of every file of a host that is not a log."""
    found: dict[str, str] = {}
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            path = Path(folder, name)
            where = path.relative_to(root).as_posix()
            if re.search(r"\.(log|sock)$|/run(/|$)|__pycache__|/agent(/|$)", where):
                continue
            try:
                if path.is_symlink():
                    found[where] = f"-> {os.readlink(path)}"
                elif path.is_file():
                    found[where] = f"{path.stat().st_mode:o} {_sha(path, known)}"
                else:
                    found[where] = "folder"
            except FileNotFoundError:
                continue
    return found


def leaks(place: Place, secrets: Sequence[str], seen: dict[Path, tuple]) -> list[str]:
    """Return the files of a host in which a secret is where it may not be."""
    found = []
    wanted = [secret.encode() for secret in secrets]
    for folder, folders, names in os.walk(place.root):
        folders[:] = [n for n in folders if n not in ("lib", "env", "envs", "wheels")]
        for name in names:
            path = Path(folder, name)
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue
            key = (status.st_ino, status.st_size, status.st_ctime_ns)
            if not stat.S_ISREG(status.st_mode) or seen.get(path) == key:
                continue
            seen[path] = key
            if not any(secret in _bytes(path) for secret in wanted):
                continue
            if name not in HOLDERS:
                found.append(f"{path} holds a secret")
            elif status.st_mode & 0o077:
                found.append(f"{path} can be read by others: {status.st_mode:o}")
    return found


# Reading ------------------------------------------------------------------------------


def parse(text: bytes) -> Journal:
    """Return what a journal says, with every break of its chain."""
    events: list[Mapping[str, Any]] = []
    torn, breaks, last = 0, [], START
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line:
            continue
        event = _event(line)
        if event is None:
            torn += 1
            continue
        if not event:
            breaks.append(f"line {number} has another hash than it says")
            continue
        if event.get("prev") != last:
            breaks.append(f"line {number} does not follow the line before")
        last = event["hash"]
        events.append(event)
    return Journal(tuple(events), torn, tuple(breaks))


# A journal is read again at every look, and only its end is new.
@lru_cache(maxsize=200_000)
def _event(line: bytes) -> Mapping[str, Any] | None:
    """Return a line's event, {} where its hash is another, None where it is none."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or event.get("hash") != digest(event):
        return {}
    return event


def digest(event: Mapping[str, Any]) -> str:
    """Return the hash that a line must have."""
    body = {name: value for name, value in event.items() if name != "hash"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(slots=True)
class Fold:
    """Take events one after the other; `standing` is what they say by then."""

    good: set[int] = field(default_factory=set)
    gated: set[int] = field(default_factory=set)
    traffic: list[int] = field(default_factory=list)
    left: set[int] = field(default_factory=set)
    begun: dict[str, tuple[str, int | None, int | None]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    epochs: dict[str, int] = field(default_factory=dict)
    effects: set[str] = field(default_factory=set)

    def add(self, event: Mapping[str, Any]) -> None:
        """Take in one event."""
        facts = event.get("facts", {})
        run, done = str(event["run"]), event["phase"] == "done"
        if run not in self.begun:
            began = (str(event["op"]), event.get("release"), facts.get("previous"))
            self.begun[run] = began
        self.epochs[run] = max(self.epochs.get(run, 0), int(event.get("epoch", 0)))
        if done:
            self.effects.add(run)
        if done and event.get("step") == "gate":
            self.gated.add(int(event["release"]))
        if event["phase"] == "end":
            self.ended.add(run)
            self._end(facts["outcome"] == "good", *self.begun[run])

    def _end(
        self, good: bool, op: str, release: int | None, previous: int | None
    ) -> None:
        self.left |= {previous} if previous else set()
        if release is None:
            return
        if op == "deploy" and good:
            self.good.add(release)
            self.traffic.append(release)
            self.left = {previous} if previous else set()
        elif op == "deploy":
            self.good.discard(release)
        elif op == "rollback" and good:
            if previous is not None and previous > release:
                self.good.discard(previous)
            if release in self.traffic:
                del self.traffic[self.traffic.index(release) + 1 :]
            else:
                self.traffic.append(release)
            self.good.add(release)

    @property
    def standing(self) -> Standing:
        """Return what all events say."""
        # A run that was noted on too few hosts to begin is over when a later one comes.
        last = max(self.epochs.values(), default=0)
        still = tuple(
            run
            for run in self.begun
            if run not in self.ended
            and (self.epochs[run] == last or run in self.effects)
        )
        return Standing(
            frozenset(self.good),
            tuple(self.traffic),
            still,
            frozenset(self.gated),
            frozenset(self.left),
        )


def standing(events: Iterable[Mapping[str, Any]]) -> Standing:
    """Return what events say of releases: good ones, traffic, what is left open."""
    fold = Fold()
    for event in events:
        fold.add(event)
    return fold.standing


# Judging ------------------------------------------------------------------------------


def serves(sight: Sight) -> list[Violation]:
    """I1, I2: something that was proved answers, and `current` names it."""
    found, name = [], sight.place.name
    if sight.door.problem:
        found.append(Violation("I1", name, sight.door.problem))
    number = sight.serves
    if number is None:
        return [*found, Violation("I2", name, f"current is {sight.current!r}")]
    if not sight.slots.get(number):
        found.append(Violation("I2", name, f"current names v{number}, not whole"))
    if sight.door.release and sight.door.release != f"v{number}":
        what = f"{sight.door.release} answers, current is v{number}"
        found.append(Violation("I2", name, what))
    said = standing(sight.journal.events)
    if number not in said.good | said.gated:
        found.append(Violation("I1", name, f"v{number} has never passed a gate"))
    return found


def chained(sight: Sight, torn: int) -> list[Violation]:
    """I8, I5, I4: the journal is whole, epochs don't fall, runs don't take turns."""
    name, journal = sight.place.name, sight.journal
    found = [Violation("I8", name, broken) for broken in journal.breaks]
    if journal.torn > torn:
        what = f"{journal.torn} lines can't be read, {torn} are explained"
        found.append(Violation("I8", name, what))
    last, runs = 0, {}
    for event in journal.events:
        if "origin" in event:
            # Told later, by another host that was there.
            continue
        epoch, run = int(event.get("epoch", 0)), str(event["run"])
        if epoch < last:
            what = f"{event.get('step', event['phase'])} of {run} under epoch {epoch}"
            found.append(Violation("I5", name, f"{what} after epoch {last}"))
        last = max(last, epoch)
        turns = runs.setdefault(epoch, [])
        if not turns or turns[-1] != run:
            if run in turns:
                what = f"runs {turns[-1]} and {run} take turns under epoch {epoch}"
                found.append(Violation("I4", name, what))
            turns.append(run)
    return found


def announced(sight: Sight) -> list[Violation]:
    """I8: every effect that is on the disk or runs has its intent."""
    name = sight.place.name
    intents: dict[str, set[int]] = {}
    for event in sight.journal.events:
        if event["phase"] in ("intent", "done") and event.get("release"):
            intents.setdefault(str(event.get("step")), set()).add(event["release"])
    found = []
    for number in sight.slots.keys() - intents.get("stage", set()):
        found.append(Violation("I8", name, f"v{number} was staged without an intent"))
    if sight.serves and sight.serves not in intents.get("switch", set()):
        found.append(Violation("I8", name, f"v{sight.serves} without a switch"))
    for number in sight.running - intents.get("boot", set()):
        found.append(Violation("I8", name, f"v{number} runs without an intent"))
    return found


def settled(
    sights: Sequence[Sight], keep: int, before: Mapping[str, Collection[int]]
) -> list[Violation]:
    """I3, I4, I6, I8: all hosts agree, nothing is held, open or lost.

    `before`: the releases that were on each host when the run began.
    """
    found = []
    versions = {sight.place.name: sight.serves for sight in sights}
    if len(set(versions.values())) > 1:
        found.append(Violation("I3", "fleet", f"hosts serve {versions}"))
    said = standing(memory(sights))
    found += behind(sights)
    for sight in sights:
        name = sight.place.name
        if sight.locked:
            found.append(Violation("I4", name, "the lock is held though all ended"))
        if said.open:
            found.append(Violation("I8", name, f"runs {said.open} are left open"))
        newest = {*sorted(said.good)[-keep:], *said.traffic[-2:]}
        wanted = {*(newest & {*before.get(name, ())}), sight.serves}
        wanted -= outlived(sight.journal.events, keep) - {sight.serves}
        lost = sorted(n for n in wanted if n and not sight.slots.get(n))
        if lost:
            found.append(Violation("I6", name, f"good releases {lost} are gone"))
        if said.traffic[-1:] != (sight.serves,):
            what = f"v{sight.serves} serves, the journal says {said.traffic[-1:]}"
            found.append(Violation("I8", name, what))
        extra = idle(sight, said)
        if extra:
            found.append(Violation("I8", name, f"{sorted(extra)} run for nobody"))
    return found


def outlived(events: Sequence[Mapping[str, Any]], keep: int) -> set[int]:
    """Return the releases that a host was free to remove when it last pruned.

    They were older than `keep` good ones then. Rollbacks that came after may have made
    those bad, and so have made an older one, long gone, the newest good one.
    """
    found: set[int] = set()
    pruned: set[str] = set()
    said = Fold()
    for event in events:
        said.add(event)
        if event.get("step") == "prune":
            pruned.add(str(event["run"]))
        elif event["phase"] != "end" or str(event["run"]) not in pruned:
            continue
        stay = {*sorted(said.good)[-keep:], *said.traffic[-keep:]}
        found |= said.good - stay
    return found


def whole(sights: Sequence[Sight], number: int) -> bool:
    """Say whether every host still holds a release."""
    return all(sight.slots.get(number) for sight in sights)


def identity(event: Mapping[str, Any]) -> str:
    """Return what is the same for one event in every host's journal."""
    return str(event.get("id") or event.get("origin") or event["hash"])


def memory(sights: Sequence[Sight]) -> tuple[Mapping[str, Any], ...]:
    """Return the events that any host holds, each once, in the order of epochs."""
    found: dict[str, Mapping[str, Any]] = {}
    for sight in sights:
        for event in sight.journal.events:
            found.setdefault(identity(event), event)
    return tuple(
        sorted(found.values(), key=lambda e: (e.get("epoch", 0), e.get("id", "")))
    )


def behind(sights: Sequence[Sight]) -> list[Violation]:
    """I8: every host holds every event, when a command has ended well on all."""
    whole = {identity(event) for event in memory(sights)}
    found = []
    for sight in sights:
        lacks = whole - {identity(event) for event in sight.journal.events}
        if lacks:
            what = f"its journal lacks {len(lacks)} of {len(whole)} events"
            found.append(Violation("I8", sight.place.name, what))
    return found


def idle(sight: Sight, said: Standing) -> frozenset[int]:
    """Return the releases that run, and neither serve nor stand by.

    What traffic was moved away from stands by until a deploy ends well.
    """
    return sight.running - {sight.serves, *said.left, *said.traffic}


def kept(
    name: str, before: Mapping[str, Mapping[str, str]], now: Mapping[str, Any]
) -> list[Violation]:
    """I6: releases that are still there hold the files that they held."""
    found = []
    for release, then in before.items():
        there = now.get(release)
        if there is None:
            continue
        changed = sorted(
            path for path in {*then, *there} if then.get(path) != there.get(path)
        )
        if changed:
            found.append(Violation("I6", name, f"{release} changed: {changed[:5]}"))
    return found


def same(before: Sight, after: Sight) -> list[Violation]:
    """I3: a command that had nothing to do has changed nothing."""
    found, name = [], before.place.name
    for what, then, now in (
        ("current", before.current, after.current),
        ("releases", sorted(before.slots), sorted(after.slots)),
        ("journal", len(before.journal.events), len(after.journal.events)),
        # What was asked to end by itself may have done so meanwhile.
        ("running releases", after.running & before.running, after.running),
    ):
        if then != now:
            found.append(Violation("I3", name, f"{what} went from {then} to {now}"))
    return found


def migrated(rows: Iterable[Sequence[Any]]) -> list[Violation]:
    """I7: rows of (generation, revision, release, backup), each revision once."""
    found, seen = [], set()
    for generation, revision, release, backup in rows:
        if (generation, revision) in seen:
            what = f"{revision} was applied again, by {release}"
            found.append(Violation("I7", "database", what))
        seen.add((generation, revision))
        if generation and not backup:
            what = f"{revision} was applied without a backup, by {release}"
            found.append(Violation("I7", "database", what))
    return found


def whispered(texts: Mapping[str, str], secrets: Sequence[str]) -> list[Violation]:
    """I9: no secret is in what was printed or in an argument list."""
    return [
        Violation("I9", where, "a secret is in it")
        for where, text in texts.items()
        if any(secret in text for secret in secrets)
    ]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its exit code (negative: by a signal), and what it said."""

    code: int
    said: str
    seconds: float = 0.0


def honest(
    ended: Ended,
    before: Mapping[str, int | None],
    after: Mapping[str, int | None],
    *,
    outage: bool = False,
    broken: bool = False,
) -> list[Violation]:
    """I10: what a command said agrees with what its hosts serve.

    `before` and `after` are what each host that can be seen serves. `outage`: a host
    lost its power, link or disk meanwhile; `broken`: its disk would not sync.
    """
    found = []
    # Below 0 the signal came while Python was still starting: nothing was begun.
    traced = "Traceback" in ended.said and ended.code >= 0
    if traced or "defect of the engine" in ended.said:
        found.append(Violation("I10", "output", f"a trace: {ended.said[-300:]}"))
    moved = {name for name in after if after[name] != before.get(name)}
    # A host that was out of reach is left out by the rules, and it says so.
    out = {name for name in after if outage and f"{name} is left out" in ended.said}
    if ended.code == 0 and len({after[name] for name in after.keys() - out}) > 1:
        found.append(Violation("I10", "exit code 0", f"hosts serve {dict(after)}"))
    if ended.code in (1, 2, 3, 4, 130) and moved and not outage:
        what = f"{sorted(moved)} serve {dict(after)}, before {dict(before)}"
        found.append(Violation("I10", f"exit code {ended.code}", what))
    if ended.code == 5 and not (outage or broken):
        found.append(Violation("I10", "exit code 5", ended.said[-300:]))
    if ended.code not in (0, 1, 2, 3, 4, 5, 130) and ended.code >= 0:
        found.append(Violation("I10", "exit code", f"{ended.code} is not contracted"))
    return found


def excused(
    failures: Iterable[tuple[str, float, float, str]],
    outages: Iterable[tuple[str, float, float]],
) -> tuple[list[Violation], int]:
    """I1: failed requests (host, begun, ended, kind) and how many an outage explains.

    On a kept connection a request begins when that was last known to work: a host that
    lost its power closes none, and the first to use it afterwards finds out.
    """
    found, reasons = [], list(outages)
    unreachable = 0
    for host, begun, ended, kind in failures:
        if any(h == host and begun <= to and ended >= at for h, at, to in reasons):
            unreachable += 1
        else:
            found.append(Violation("I1", host, f"a request failed: {kind}"))
    return found, unreachable


# Small parts --------------------------------------------------------------------------


def _sha(path: Path, known: dict[Path, tuple[tuple[int, ...], str]]) -> str:
    status = path.stat()
    key = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    there = known.get(path)
    if there is None or there[0] != key:
        there = (key, hashlib.sha256(_bytes(path)).hexdigest())
        known[path] = there
    return there[1]


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _json(path: Path) -> Mapping[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
