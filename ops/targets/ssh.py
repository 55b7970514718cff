"""The `ssh` target: Linux hosts, each reached by one connection to an agent on it."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ops import quorum, wire
from ops.command import Answer, Request
from ops.environment import Address, Environment
from ops.errors import Locked, OpsError, Refused
from ops.history import Event, History, fold
from ops.lease import describe
from ops.memory import lacking, ordered, union
from ops.preflight import Facts, clocks
from ops.release import Release
from ops.targets import trees
from ops.targets.balancers import Balancers
from ops.targets.link import Link, Sent, Unprepared, Unreachable, lost
from ops.world import Host, World

# Seconds between two tries to connect to a host that can't be reached, and to take a
# lease that somebody holds.
AGAIN = 5.0
_POLL = 0.2
# Seconds between two looks at whether a host is lost whose answer is waited for.
_GLANCE = 0.5
# How long a host may take to say what it looks like, or to take its lease.
PROMPT = 30.0
# How long an agent whose connection was cut may go on: its patience, and a margin.
_ENDING = 20.0

# Verbs that need no lease: they change nothing, or end whoever holds it.
FREE = frozenset(
    (
        *("backups", "configuration", "end_holders", "holders", "note_of"),
        *("read_backup", "written"),
    )
)
# Verbs that change nothing, so that it is no harm to ask twice.
LOOKS = frozenset(
    (
        *("ask", "ask_door", "backups", "consult", "holder", "key", "look"),
        *("note_of", "read_backup", "record_of", "written"),
    )
)

Found = TypeVar("Found")


class SshTarget:
    """Several hosts that together are one environment."""

    def __init__(
        self, environment: Environment, environ: Mapping[str, str] = os.environ
    ) -> None:
        self.environment = environment
        self.addresses = environment.hosts(environ)
        self.public = environment.public_url(environ)
        self.minority = False
        # What each host's journal lacked when it was last looked at.
        self._lacking: dict[str, tuple[Event, ...]] = {}
        self._term = secrets.token_hex(4)
        self._written = itertools.count(1)
        self.members = {
            address.name: _Member(address, environment) for address in self.addresses
        }
        # One that is a host too is reached over the same connection.
        self.balancers = Balancers(
            {
                each.name: self.members.get(each.name) or _Member(each, environment)
                for each in environment.balancers(environ)
            }
        )
        # Events whose writing is not yet known to have gone well, oldest first.
        self._lines: list[_Line] = []
        self._noting = threading.Lock()
        self._key = b""

    # Look ------------------------------------------------------------------------

    def reach(self) -> None:
        def open_early(member: _Member) -> None:
            # Whoever needs the connection meets the same problem and reports it.
            with suppress(Unreachable, OpsError, OSError):
                member.open()

        for member in {**self.members, **self.balancers.members}.values():
            threading.Thread(target=open_early, args=(member,), daemon=True).start()

    def observe(self) -> World:
        def look(member: _Member) -> tuple[Host, dict[str, Any]]:
            said, member.fresh = member.fresh, None
            if said is None:
                since = self._since(member)
                said = member.ask("look", since=since, limit=PROMPT)
            member.seen = said["host"]
            return replace(said["host"], name=member.address.name), said

        with ThreadPoolExecutor(1) as beside:
            balancers = beside.submit(self.balancers.look)
            found = self._each(look)
        hosts, seen = [], {}
        for name, result in found.items():
            if isinstance(result, Unreachable):
                hosts.append(Host(name, unreachable=str(result)))
            else:
                host, seen[name] = result
                hosts.append(host)
        history, lost = self._history(seen)
        hosts = [
            (
                Host(host.name, unreachable=lost[host.name])
                if host.name in lost
                else replace(host, behind=len(self._lacking.get(host.name, ())))
            )
            for host in hosts
        ]
        return World(self.environment.name, tuple(hosts), history, balancers.result())

    def _since(self, member: _Member) -> int | None:
        """Return after how many events to tell more; one host tells for all."""
        first = self.addresses[0].name == member.address.name
        return len(member.events) if first else None

    def _history(
        self, seen: Mapping[str, Mapping[str, Any]]
    ) -> tuple[History, dict[str, str]]:
        """Return the history that the hosts tell, and note what which of them lacks.

        Hosts that hold the same are read from one of them. Where they differ, as one
        that was away has missed some and may know what nobody else does, all are read.
        Returns also which were lost while they were read, and why.
        """
        same = len({said["digest"] for said in seen.values()}) <= 1
        journals: dict[str, tuple[Event, ...]] = {}
        lost: dict[str, str] = {}
        for name in seen:
            try:
                journals[name] = self._journal(name, seen[name])
            except Unreachable as error:
                lost[name] = str(error)
            if same and journals:
                break
        whole = union(journals.values()) if not same else ()
        self._lacking = {
            name: lacking(journal, whole) for name, journal in journals.items() if whole
        }
        events = whole or next(iter(journals.values()), ())
        torn = max((seen[name]["torn"] for name in journals), default=0)
        return fold(ordered(events), torn), lost

    def _journal(self, name: str, said: Mapping[str, Any]) -> tuple[Event, ...]:
        """Return all events of a host's journal; what was read is not read again."""
        member = self.members[name]
        with member.reading:
            if len(member.events) + len(said["new"]) < said["count"]:
                said = member.ask("look", since=len(member.events), limit=PROMPT)
            # Several threads may have looked: what one has read is not read twice.
            missing = max(0, said["count"] - len(member.events))
            member.events += said["new"][len(said["new"]) - missing :]
            return tuple(member.events)

    def catch_up(self) -> dict[str, int]:
        def bring(member: _Member) -> int:
            events = [dict(event) for event in self._lacking[member.address.name]]
            under = member.held[2] if member.held else 0
            return member.ask("catch_up", under=under, events=events)

        behind = [name for name, events in self._lacking.items() if events]
        said = self._each(bring, only=behind)
        self._lacking = {}
        return {name: said[name] for name in _reached(said)}

    def examine(self, database: tuple[str, int] | None) -> tuple[Facts, ...]:
        def examined(member: _Member) -> Facts:
            name, address = member.address.name, member.address
            try:
                # Connecting and starting the agent is no part of the round trip.
                member.open()
                sent = time.time()
                said = member.ask("examine", database=database, limit=PROMPT)
                heard = time.time()
            except Refused as refused:
                return Facts(name, unreachable=refused.what, mend=refused.next)
            except Unreachable as error:
                mend = f"ssh -p {address.port} {address}"
                if isinstance(error, Unprepared):
                    mend = f"inv host-setup --env {self.environment.name}; or {mend}"
                return Facts(name, unreachable=str(error), mend=mend)
            skew, round_trip = clocks(sent, said["came"], said["left"], heard)
            return Facts(
                name,
                replace(said["host"], name=name),
                str(address),
                round_trip=round_trip,
                skew=skew,
                inodes=said["inodes"],
                database=said["database"],
                faults=said["faults"],
            )

        said = self._each(examined)
        return tuple(facts for facts in said.values() if isinstance(facts, Facts))

    def python(self) -> str:
        seen = [
            replace(member.seen, name=name)
            for name, member in self.members.items()
            if member.held and member.seen
        ]
        hosts = seen or self.observe().reached
        found = {host.python: host.name for host in hosts}
        if len(found) > 1:
            raise Refused(
                "the hosts run different Pythons or C libraries",
                where="; ".join(f"{where}: {what}" for what, where in found.items()),
                allowed="one and the same on all hosts of an environment",
                next="bring the hosts to the same release of their distribution",
            )
        return next(iter(found), "")

    def record_of(self, host: str, number: int) -> Release | None:
        member = self.members[host]
        slot = member.seen.slot(number) if member.held and member.seen else None
        if slot and slot.release:
            # A release is never edited.
            return slot.release
        return self._ask(host, "record_of", number=number)

    # The lease -------------------------------------------------------------------

    def take(
        self,
        doing: str,
        by: str,
        wait: float,
        tell: Callable[[str], None],
        *,
        minority: bool = False,
    ) -> None:
        """Take the lease of every host that can be reached, in sorted order, or none.

        Raises:
            Locked: somebody holds one of them. Refused: too few can be reached, or,
                where a `minority` is allowed, none.
        """
        self.minority = minority
        until = time.monotonic() + wait
        with ThreadPoolExecutor(1) as beside:
            beside.submit(self.balancers.begin)
            self._each(lambda member: member.open())
        told = False
        while True:
            try:
                return self._take_all(doing, by)
            except Locked as locked:
                if time.monotonic() >= until:
                    raise
                if not told:
                    tell(f"waiting up to {wait:g} s: {locked.what} ({locked.where})")
                told = True
                time.sleep(_POLL)

    def _take_all(self, doing: str, by: str) -> None:
        taken: dict[str, dict[str, Any]] = {}
        away: dict[str, str] = {}
        try:
            for name in sorted(self.members):
                try:
                    member = self.members[name]
                    said = member.ask(
                        "take",
                        doing=doing,
                        by=by,
                        since=self._since(member),
                        limit=PROMPT,
                    )
                except Unreachable as error:
                    away[name] = str(error)
                else:
                    taken[name] = said
            if not (self._enough(taken) and taken):
                raise quorum.refuse(list(self.members), away, self.environment.name)
        except BaseException:
            self._give_back()
            raise
        epoch = max(said["epoch"] for said in taken.values())
        key = next(
            taken[address.name]["key"]
            for address in self.addresses
            if address.name in taken
        )
        self._key = key
        for name, said in taken.items():
            member = self.members[name]
            member.held = (doing, by, epoch)
            member.fresh = said["seen"]
            if said["epoch"] != epoch or said["key"] != key:
                # Under the epoch that it has itself; from then on under that of all.
                member.ask("adopt", under=said["epoch"], epoch_of_all=epoch, key=key)

    def _enough(self, held: Collection[str]) -> bool:
        return self.minority or quorum.enough(list(self.members), held)

    def release(self) -> None:
        self._give_back()

    def _give_back(self) -> None:
        self._lines.clear()

        def give(member: _Member) -> None:
            member.held = member.fresh = member.seen = None
            if member.link is not None and not member.link.lost:
                member.link.request("release")

        self._each(give)

    def holder(self) -> dict[str, Any] | None:
        said = self._each(lambda member: member.ask("holder", limit=PROMPT))
        held = [each for each in said.values() if isinstance(each, dict)]
        return held[0] if held else None

    def key(self) -> bytes:
        if self._key:
            return self._key
        for address in self.addresses:
            try:
                return self.members[address.name].ask("key", limit=PROMPT)
            except Unreachable as error:
                away = error
        raise lost(self.addresses[-1], "reading the key", str(away))

    # Act -------------------------------------------------------------------------

    def record(self, event: dict[str, Any]) -> None:
        """Send an event to the journals of the hosts that were reached when we began.

        Its answers are not waited for: an agent begins nothing that comes later before
        the event is on its disk, and nothing at all if that fails. `settle` waits.

        Raises:
            OSError: one of the hosts could not write an earlier event, or too few are
                left: another deployer may have the others.
        """
        with self._noting:
            # Sent under the lock: the events have the same order on all hosts.
            id = f"{self._term}-{next(self._written):06d}"
            line = _Line({**event, "id": id})
            for name, member in self.members.items():
                if member.connected:
                    line.sent[name] = self._sent(member, line.event)
            self._lines.append(line)
        self._settle([line for line in self._lines if line.answered])

    def settle(self) -> None:
        """Wait until all events that were recorded are in the journals.

        Raises:
            OSError: one of the hosts could not write one, or too few are left.
        """
        self._settle(list(self._lines))

    def _sent(self, member: _Member, event: dict[str, Any]) -> Sent | Unreachable:
        link, held = member.link, member.held
        if held is None or link is None:
            return Unreachable("its lease is not held")
        # What ends a run says that all before it is known.
        needs = self._needs(member) if event["phase"] == "end" else ()
        told = {**event, "epoch": held[2]}
        try:
            return link.send("record", under=held[2], needs=needs, event=told)
        except Unreachable as error:
            return error

    def _needs(self, member: _Member) -> list[int]:
        """Return the events, as requests, that a host must write before what follows.

        Waits until enough other hosts hold them, until all do for the beginning of a
        run, and for what was sent to this host over a connection that is gone.
        """
        found = []
        for line in list(self._lines):
            sent = line.sent.get(member.address.name)
            there = isinstance(sent, Sent) and sent.link is member.link
            if isinstance(sent, Sent) and there and line.event["phase"] != "begin":
                self._spread(line, member.address.name)
                found.append(sent.number)
            elif line.event["phase"] != "end":
                self._settle([line])
        return found

    def _spread(self, line: _Line, own: str) -> None:
        """Wait until enough hosts hold an event, if its own host writes it too.

        Raises:
            OSError: too few can.
        """
        while not self._enough({own, *line.written}):
            due = [
                sent.said
                for name, sent in line.sent.items()
                if isinstance(sent, Sent) and not sent.said.done() and name != own
                if not sent.link.lost
            ]
            if not due:
                return self._settle([line])
            wait_for(due, _GLANCE, return_when=FIRST_COMPLETED)

    def _settle(self, lines: Sequence[_Line]) -> None:
        """Take answers to events off the list; raise what went wrong first."""
        errors: list[OpsError | OSError] = []
        for line in lines:
            with line.settling:
                if line not in self._lines:
                    continue
                said = {name: _written(sent) for name, sent in line.sent.items()}
                wrong = [
                    one for one in said.values() if isinstance(one, (OpsError, OSError))
                ]
                try:
                    if not wrong:
                        self._record_again(line.event, said)
                except (OpsError, OSError) as error:
                    wrong.append(error)
                errors += wrong
                self._lines.remove(line)
        if errors:
            raise errors[0]

    def _record_again(self, event: dict[str, Any], said: dict[str, Any]) -> None:
        """Record an event where it got lost, if too few hosts hold it.

        Raises:
            OSError: they are still too few.
        """

        def append(member: _Member) -> None:
            if member.held is None:
                raise Unreachable("its lease is not held")
            epoch = member.held[2]
            member.ask("record", under=epoch, event={**event, "epoch": epoch})

        if not self._enough(_reached(said)) or not _reached(said):
            # Lost just now: one more try, which connects again.
            lost = [name for name in self.members if name not in _reached(said)]
            said = {**said, **self._each(append, only=lost)}
        if not self._enough(_reached(said)) or not _reached(said):
            why = "; ".join(
                f"{name}: {each}"
                for name, each in said.items()
                if isinstance(each, Unreachable)
            )
            raise OSError(
                errno.EHOSTUNREACH,
                f"the journal reached {len(_reached(said))} of {len(self.members)} "
                f"hosts, {quorum.needed(list(self.members))} are needed ({why})",
            )

    def act(self, host: str, verb: str, **arguments: Any) -> dict[str, Any]:
        limit = float(arguments.get("timeout") or 60.0) + 60.0
        match verb:
            case "install":
                return self._install(host, **arguments)
            case "stage":
                return self._stage(host, **arguments)
            case "carry":
                return self._carry(host, limit=limit, **arguments)
            case "consult":
                return self._ask(host, verb, limit=limit, **arguments)
            case "keep":
                path, sha256 = arguments.pop("path"), arguments["sha256"]
                files = [(sha256, path)]
                return self._effect(host, verb, files=files, **arguments)
            case "leave":
                return self._leave(host, **arguments)
            case "join":
                return self._join(host, **arguments)
            case "share":
                self.settle()
                missed = self.balancers.share(host, arguments["share"], self._epoch())
                return {"missed": missed}
            case "attend":
                return {"code": self._member(host, verb).attend(**arguments)}
            case _ if verb in FREE:
                return self._ask(host, verb, **arguments)
        return self._effect(host, verb, limit=limit, **arguments)

    def _install(
        self,
        host: str,
        *,
        name: str,
        requirements: Path,
        uv: str,
        timeout: float,
        **_: Any,
    ) -> dict[str, Any]:
        """Make an environment on a host from what it has and what it lacks."""
        seen = self.members[host].seen
        if seen and name in seen.environments:
            # Under the lease nobody else removes it.
            return {"made": False}
        python = self._member(host, "install").python
        tree = trees.build(name, requirements, python, uv, timeout)
        said = self._ask(host, "lacking_files", name=name, manifest=tree.manifest)
        if said["made"]:
            return {"made": False}
        lacking = set(said["lacking"])
        files: dict[str, Path] = {}
        for line in tree.manifest.splitlines():
            sha, _size, _mode, path = line.split(" ", 3)
            if sha in lacking:
                files.setdefault(sha, tree.site / path)
        listed = sorted(files.items())
        made = self._effect(host, "make", limit=timeout + 60.0, files=listed, name=name)
        return {**made, "from_cache": tree.cached}

    def _stage(
        self,
        host: str,
        *,
        release: str,
        wheels: Sequence[Path],
        environ: Mapping[str, str],
    ) -> dict[str, Any]:
        """Send the wheels that a host lacks, and unpack the release there."""
        shas = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in wheels}
        lacking = self._ask(host, "lacking_wheels", shas=list(shas))
        files = [(sha, shas[sha]) for sha in lacking]
        return self._effect(
            host,
            "stage",
            sends=("wheels", {"files": files, "shas": lacking}) if lacking else None,
            release=release,
            shas=list(shas),
            environ=dict(environ),
        )

    def _carry(self, host: str, *, folder: Path, **arguments: Any) -> dict[str, Any]:
        """Bring the files of a folder to a host, and run its data layer on them."""
        files = [(path.name, path) for path in sorted(folder.iterdir())]
        return self._effect(host, "carry", files=files, **arguments)

    def _leave(self, host: str, *, numbers: Sequence[int], timeout: float) -> Any:
        """Take a host out of rotation, and let it end what it is answering."""
        # Balancers don't wait for the line that announces this, as hosts do.
        self.settle()
        missed = self.balancers.leave(host, self._epoch())
        # For balancers that we can't reach or don't know: their checks see it.
        self._effect(host, "mark", numbers=list(numbers))
        busy = self.balancers.quiet(host, timeout, missed)
        return {"missed": missed, "busy": busy}

    def _join(self, host: str, *, well: bool) -> Any:
        """Put a host back into rotation, as far as it can be reached."""
        try:
            self.settle()
            self._effect(host, "unmark")
        finally:
            missed = self.balancers.join(host, well, self._epoch())
        return {"missed": missed}

    def _epoch(self) -> int:
        """Return the epoch that we act under, 0 without a lease."""
        held = (member.held for member in self.members.values())
        return max((each[2] for each in held if each), default=0)

    def cancel(self) -> None:
        for member in self.members.values():
            if member.link is not None:
                member.link.cancel()

    # Ask -------------------------------------------------------------------------

    def ask(self, host: str, number: int, requests: Sequence[Request]) -> list[Answer]:
        return self._ask(host, "ask", number=number, requests=list(requests))

    def ask_door(self, host: str, requests: Sequence[Request]) -> list[Answer]:
        return self._ask(host, "ask_door", requests=list(requests))

    def ask_front(self, requests: Sequence[Request]) -> list[Answer]:
        return [wire.ask(request, url=self.public) for request in requests]

    def url(self) -> str:
        return self.public

    def close(self) -> None:
        self.balancers.close()
        for member in self.members.values():
            if member.link is not None:
                member.link.close()

    # Small parts -----------------------------------------------------------------

    def _ask(self, host: str, verb: str, **arguments: Any) -> Any:
        member = self.members[host]
        try:
            return member.ask(verb, **arguments)
        except Unreachable as error:
            raise lost(member.address, verb, str(error)) from None

    def _member(self, host: str, verb: str) -> Link:
        """Return the open connection to a host."""
        member = self.members[host]
        try:
            return member.open()
        except Unreachable as error:
            raise lost(member.address, verb, str(error)) from None

    def _effect(
        self,
        host: str,
        verb: str,
        *,
        limit: float = 600.0,
        sends: tuple[str, dict[str, Any]] | None = None,
        **arguments: Any,
    ) -> Any:
        """Change a host; what is sent before that is another verb and its arguments."""
        member = self.members[host]
        for each in self.members.values():
            each.fresh = None
        try:
            # Before anything else: a cut connection gets its lease back in there.
            link = member.open()
            if member.held is None:
                raise Unreachable("its lease is not held")
            under = member.held[2]
            needs = self._needs(member)
            if sends is None:
                sent = link.send(verb, under=under, needs=needs, **arguments)
                return link.answer(sent, limit)
            first = link.send(sends[0], under=under, needs=needs, **sends[1])
            sent = link.send(verb, under=under, needs=[first.number], **arguments)
            link.answer(first, limit)
            return link.answer(sent, limit)
        except Unreachable as error:
            raise lost(member.address, verb, str(error)) from None
        except OpsError:
            # If it was not begun, what kept it from that is what matters.
            self._settle([line for line in self._lines if line.answered])
            raise

    def _each(
        self,
        work: Callable[[_Member], Found],
        *,
        connected: bool = False,
        only: Collection[str] | None = None,
    ) -> dict[str, Found | Unreachable]:
        """Do something on all hosts side by side, and return what came of it.

        `connected`: only on hosts that are connected now; `only`: on these. An error
        that is not about reaching a host is raised when all have come to rest.
        """
        results: dict[str, Found | Unreachable] = {}
        errors: dict[str, Exception] = {}

        def one(name: str, member: _Member) -> None:
            try:
                results[name] = work(member)
            except Unreachable as error:
                results[name] = error
            except (OpsError, OSError) as error:
                errors[name] = error

        chosen = {
            name: member
            for name, member in self.members.items()
            if (not connected or member.connected) and (only is None or name in only)
        }
        threads = [
            threading.Thread(target=one, args=item, daemon=True)
            for item in list(chosen.items())[1:]
        ]
        for thread in threads:
            thread.start()
        for item in list(chosen.items())[:1]:
            one(*item)
        for thread in threads:
            thread.join()
        for name in chosen:
            if name in errors:
                raise errors[name]
        return {name: results[name] for name in chosen}


def _reached(said: Mapping[str, Any]) -> list[str]:
    """Return the hosts of which something came that is no loss."""
    return [name for name in said if not isinstance(said[name], Unreachable)]


@dataclass(eq=False, slots=True)
class _Line:
    """An event on its way into the journals of the hosts it was sent to."""

    event: dict[str, Any]
    sent: dict[str, Sent | Unreachable] = field(default_factory=dict)
    settling: threading.Lock = field(default_factory=threading.Lock)

    @property
    def written(self) -> list[str]:
        """Return the hosts that have said that they hold it."""
        return [
            name
            for name, sent in self.sent.items()
            if isinstance(sent, Sent)
            and sent.said.done()
            and sent.said.exception() is None
            and "error" not in sent.said.result()
        ]

    @property
    def answered(self) -> bool:
        return all(
            isinstance(each, Unreachable) or each.said.done()
            for each in self.sent.values()
        )


def _written(sent: Sent | Unreachable) -> Unreachable | OpsError | OSError | None:
    """Wait for a host's answer to an event, and return what went wrong."""
    if isinstance(sent, Unreachable):
        return sent
    try:
        sent.link.answer(sent)
    except (Unreachable, OpsError, OSError) as error:
        return error
    return None


class _Member:
    """One host: its connection, made when it is needed, and what was read there.

    `held` is what the lease was taken with: doing, by, epoch. `fresh` is a look that
    nobody has used yet, `seen` the host as it was looked at last.
    """

    def __init__(self, address: Address, environment: Environment) -> None:
        self.address = address
        self.environment = environment
        self.link: Link | None = None
        self.held: tuple[str, str, int] | None = None
        self.events: list[Event] = []
        self.fresh: dict[str, Any] | None = None
        self.seen: Host | None = None
        self.reading = threading.RLock()
        self._opening = threading.Lock()
        self._tried = float("-inf")
        self._why = Unreachable("")

    @property
    def connected(self) -> bool:
        return self.link is not None and not self.link.lost

    def open(self) -> Link:
        """Return the connection, made now if there is none.

        A lease that was held when it was cut is taken again, which succeeds only if
        nobody has acted on the host in between.

        Raises:
            Unreachable: there is none, and was none a moment ago either.
        """
        with self._opening:
            if self.link is not None and not self.link.lost:
                return self.link
            if time.monotonic() - self._tried < AGAIN:
                raise type(self._why)(str(self._why))
            fleet = self.environment.fleet
            assert fleet is not None  # nosec B101
            link = Link(
                self.address,
                fleet.root,
                {
                    "name": self.environment.name,
                    "port": self.environment.port,
                    "memory": fleet.memory,
                },
            )
            try:
                link.open()
                if self.held is not None:
                    _take_again(link, *self.held)
            except Unreachable as error:
                link.close()
                self._tried, self._why = time.monotonic(), error
                raise
            except BaseException:
                link.close()
                raise
            self.link = link
            return link

    def ask(self, verb: str, **arguments: Any) -> Any:
        """Ask the agent; what only looks is asked once more over a new connection."""
        try:
            return self.open().request(verb, **arguments)
        except Unreachable:
            if verb not in LOOKS:
                raise
            return self.open().request(verb, **arguments)


def _take_again(link: Link, doing: str, by: str, epoch: int) -> None:
    """Take the lease under the epoch we had, waiting for our old agent to end."""
    until = time.monotonic() + _ENDING
    while True:
        try:
            link.request("take", doing=doing, by=by, again=epoch)
            return
        except Locked as locked:
            ours = link.request("holder")
            mine = ours and ours.get("epoch") == epoch
            if time.monotonic() >= until or not mine:
                raise Locked(
                    (
                        f"the connection was cut; now {describe(ours)}"
                        if ours
                        else locked.what
                    ),
                    where=locked.where,
                    next="inv status",
                ) from None
            time.sleep(_POLL)
