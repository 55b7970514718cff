"""Run after run: begin a command, let something happen to it, look, run it again.

    command, meanwhile a fault -> look -> the same again (a second fault may strike)
    -> the same once more, which must change nothing -> look and judge all

Lanes go on side by side, each with a load on all of its front doors.
"""

from __future__ import annotations

import contextlib
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.faults import checkout, observer
from bench.faults.faults import BY_NAME, Run, Strike, choose
from bench.faults.lane import SECRETS, Command, FleetLane, Lane, LocalLane
from bench.faults.observer import Ended, Sight, Violation
from ops.environment import ROOT
from ops.errors import Refused

KEEP = 3
# Seconds that a command may wait for the lease: an agent's patience and a step.
WAIT = "45"
_POLL = 0.002
SHIM = Path(__file__).with_name("shim.c")


@dataclass(slots=True)
class Outcome:
    """What came of a run."""

    run: Run
    codes: list[int] = field(default_factory=list)
    first: int = 0
    struck: str = ""
    violations: list[Violation] = field(default_factory=list)
    seconds: float = 0.0
    recovery: float | None = None
    rollbacks: list[float] = field(default_factory=list)
    sent: int = 0
    failed: int = 0
    unreachable: int = 0
    said: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return it as a line of the report; what was said only where it matters."""
        said = {"said": self.said} if self.violations else {}
        return {
            **asdict(self),
            "violations": [asdict(each) for each in self.violations],
            **said,
        } | ({} if self.violations else {"said": []})


class Runner:
    """One lane with what is remembered of it from run to run."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.known: dict[Path, Any] = {}
        self.searched: dict[Path, Any] = {}
        self.kept: dict[str, dict[str, dict[str, str]]] = {}
        self.torn: dict[str, int] = {}
        self.lines = {"deploy": 22, "rollback": 12}
        self.outages: list[tuple[str, float, float]] = []

    # One run ---------------------------------------------------------------------

    def run(self, run: Run) -> Outcome:
        """Do one run and judge it."""
        begun = time.monotonic()
        found = Outcome(run)
        try:
            self._run(run, found)
        finally:
            self._put_right(found)
        found.seconds = round(time.monotonic() - begun, 3)
        return found

    def _run(self, run: Run, found: Outcome) -> None:
        op = run.op
        before = self._look(door=False)
        words, version, back = self._words(run, before, found)
        if run.dry:
            self._dry(words, version, found)
        if run.migrates:
            self.lane.unmigrate()
        before = self._look(door=False)
        self._remember(before)
        strike = self._struck(run, words, version, found)
        after = self._look()
        ended = self._ended(strike.command, found)
        found.first = ended.code
        outage = bool(strike.outages) or BY_NAME[run.fault.kind].outage
        self._judge_first(run, strike, ended, before, after, outage, found)
        if op == "rollback" and ended.code == 0:
            found.rollbacks.append(ended.seconds)
        # The same again: what a person does who has read the message.
        again = words if back is None else (*words[:3], "--to", f"v{back}")
        sound = version if checkout.FAULTY.get(version, True) else run.other
        fault = run.second
        for attempt in range(3):
            command, hit = self._again(sound, again, fault, found)
            if fault is None:
                break
            fault = None
            self._look_served(found)
        ended = self._ended(command, found)
        found.recovery = round(ended.seconds, 3)
        if ended.code:
            found.violations.append(
                Violation("I3", "the same again", f"ended with {ended.code}")
            )
        middle = self._rested()
        command = self.lane.run(sound, *again, "--wait", WAIT)
        command.wait()
        ended = self._ended(command, found)
        if ended.code:
            found.violations.append(
                Violation("I3", "once more", f"ended with {ended.code}")
            )
        last = self._rested()
        for one, two in zip(middle, last, strict=True):
            found.violations += observer.same(one, two)
        there = {sight.place.name: [*sight.slots] for sight in before}
        found.violations += observer.settled(last, KEEP, there)
        self._judge_last(sound, back, last, found)

    def _words(
        self, run: Run, before: Sequence[Sight], found: Outcome
    ) -> tuple[tuple[str, ...], str, int | None]:
        """Return what to type, where, and for a rollback the release it leads to."""
        serving = self._mark(before)
        version = run.version
        if version == serving:
            version = run.other
        if run.op == "deploy":
            return self.lane.words("deploy"), version, None
        said = observer.standing(observer.memory(before))
        if len(said.traffic) < 2 or not observer.whole(before, said.traffic[-2]):
            # Nothing to go back to: rollbacks went deeper than what is kept.
            command = self.lane.run(version, *self.lane.words("deploy"))
            command.wait()
            ended = self._ended(command, found)
            if ended.code:
                found.violations.append(
                    Violation("I3", "a plain deploy", f"ended with {ended.code}")
                )
            before = self._look(door=False)
            said = observer.standing(observer.memory(before))
        return self.lane.words("rollback"), version, said.traffic[-2]

    def _struck(
        self, run: Run, words: tuple[str, ...], version: str, found: Outcome
    ) -> Strike:
        """Begin the command, do the fault to it, put the machines right again."""
        fault = run.fault
        if fault.planted:
            self.lane.plant(fault.host, fault.line)
        sizes = self._sizes()
        well = self._ended_well()
        command = self.lane.run(version, *words, shimmed=fault.planted)
        rival = ("--wait", WAIT) if fault.wait else ()
        strike = Strike(
            fault,
            self.lane,
            command,
            lambda: self.lane.run(run.other, *self.lane.words("deploy"), *rival),
        )
        self._await(strike, sizes, self.lines[run.op], found)
        if strike.stopped:
            # It may have been stopped when all was done and noted.
            strike.finished = self._ended_well() > well
            self._taken_over(run, strike, found)
        command.wait()
        if strike.rival:
            strike.rival.wait()
        strike.repair()
        self.lane.unplant()
        # Another command may have been what the journal tells of.
        if run.fault.kind == "none" and command.process.returncode == 0:
            grown = sum(self._sizes()[1]) - sum(sizes[1])
            self.lines[run.op] = max(4, grown // len(self.lane.places))
        return strike

    def _await(self, strike: Strike, sizes: Any, lines: int, found: Outcome) -> None:
        """Wait for the moment of a fault, and do it."""
        fault, command = strike.fault, strike.command
        if fault.planted or fault.kind in ("none", "faulty release"):
            found.struck = fault.line or fault.kind
            return
        if fault.at < 0:
            # Before the journal's first line: while it looks, builds, takes the lease.
            time.sleep((fault.at + 0.15) * 6)
        wanted = sizes[1][0] + max(0, round(fault.at * lines))
        tail = Tail(self.lane.places[0].root / "state" / "journal.jsonl", sizes[0][0])
        while fault.at >= 0 and command.running:
            if sizes[1][0] + tail.read() >= wanted:
                break
            time.sleep(_POLL)
        if fault.delay:
            with contextlib.suppress(subprocess.TimeoutExpired):
                command.process.wait(fault.delay)
        if not command.running:
            found.struck = "missed"
            return
        tail.read()
        found.struck = tail.last if fault.at >= 0 else "before the journal"
        arguments = [line for place in self.lane.places for line in _argv(place)]
        found.violations += observer.whispered(
            {"arguments": "\n".join(arguments)}, SECRETS
        )
        strike.strike()

    def _taken_over(self, run: Run, strike: Strike, found: Outcome) -> None:
        """Let another deploy come in while the first is stopped, then wake that."""
        command = strike.command
        if not command.running or found.struck == "missed":
            return
        words = self.lane.words("deploy")
        if self.lane.kind == "local":
            other = self.lane.run(run.other, *words)
            other.wait()
            ended = self._ended(other, found)
            holds = observer.locked(self.lane.places[0].root / "state" / "lock")
            if holds and ended.code != 3:
                what = f"a second deploy ended with {ended.code}, 3 was due"
                found.violations.append(Violation("I4", "lease", what))
            command.send(signal.SIGCONT)
            return
        if run.fault.wait:
            other = self.lane.run(run.other, *words, "--wait", WAIT)
            other.wait()
            ended = self._ended(other, found)
            if ended.code:
                what = f"a deploy after {observer.__name__} ended with {ended.code}"
                found.violations.append(Violation("I4", "lease", what))
            one = self._look(door=False)
            command.send(signal.SIGCONT)
            command.wait()
            two = self._look(door=False)
            for then, now in zip(one, two, strict=True):
                for said in observer.same(then, now):
                    found.violations.append(
                        Violation("I5", said.where, f"by a woken deployer: {said.what}")
                    )
            if command.process.returncode == 0 and not strike.finished:
                found.violations.append(
                    Violation("I10", "exit code 0", "of a deployer that was replaced")
                )
        command.send(signal.SIGCONT)

    def _again(
        self, version: str, words: tuple[str, ...], fault: Any, found: Outcome
    ) -> tuple[Command, str]:
        """Type the same again; a second fault may strike that."""
        if fault is None:
            command = self.lane.run(version, *words, "--wait", WAIT)
            command.wait()
            return command, ""
        if fault.planted:
            self.lane.plant(fault.host, fault.line)
        sizes = self._sizes()
        command = self.lane.run(version, *words, "--wait", WAIT, shimmed=fault.planted)
        strike = Strike(fault, self.lane, command, lambda: command)
        kept = found.struck
        self._await(strike, sizes, self.lines["deploy"], found)
        hit = found.struck
        found.struck = f"{kept}; then {hit}"
        command.wait()
        strike.repair()
        self.lane.unplant()
        self._ended(command, found)
        return command, hit

    # Looking ---------------------------------------------------------------------

    def _look(self, *, door: bool = True) -> list[Sight]:
        return [observer.look(place, door=door) for place in self.lane.places]

    def _rested(self) -> list[Sight]:
        """Look when what was asked to end by itself has ended."""
        until = time.monotonic() + 8
        while True:
            sights = self._look()
            said = observer.standing(observer.memory(sights))
            idle = any(observer.idle(sight, said) for sight in sights)
            if time.monotonic() > until or not idle:
                return sights
            time.sleep(0.1)

    def _look_served(self, found: Outcome) -> None:
        for sight in self._look():
            found.violations += observer.serves(sight)

    def _ended_well(self) -> int:
        """Return how many runs the journals say have ended well."""
        said = observer.memory(self._look(door=False))
        return sum(
            event["phase"] == "end" and event["facts"]["outcome"] == "good"
            for event in said
        )

    def _sizes(self) -> tuple[list[int], list[int]]:
        """Return the bytes and the lines of each journal."""
        texts = [
            (place.root / "state" / "journal.jsonl").read_bytes()
            for place in self.lane.places
        ]
        return [len(text) for text in texts], [text.count(b"\n") for text in texts]

    def _remember(self, sights: Sequence[Sight]) -> None:
        """Note the files of each good release, once."""
        for sight in sights:
            name, root = sight.place.name, sight.place.root
            kept = self.kept.setdefault(name, {})
            for number in observer.standing(sight.journal.events).good:
                folder = root / "releases" / f"v{number}"
                if f"v{number}" not in kept and folder.is_dir():
                    kept[f"v{number}"] = observer.files(folder, self.known)
            for gone in [each for each in kept if int(each[1:]) not in sight.slots]:
                del kept[gone]
            self.torn[name] = sight.journal.torn

    @staticmethod
    def _mark(sights: Sequence[Sight]) -> str:
        return observer.ask(sights[0].place.door).mark

    # Judging ---------------------------------------------------------------------

    def _ended(self, command: Command, found: Outcome) -> Ended:
        """Note how a command ended, and that it kept its secrets."""
        code = command.process.returncode
        said = command.said
        found.codes.append(code)
        found.said.append(f"{' '.join(command.words)} -> {code}\n{said[-1800:]}")
        found.violations += observer.whispered(
            {f"the output of {command.words[0]}": said}, SECRETS
        )
        return Ended(code, said, command.seconds)

    def _judge_first(
        self,
        run: Run,
        strike: Strike,
        ended: Ended,
        before: Sequence[Sight],
        after: Sequence[Sight],
        outage: bool,
        found: Outcome,
    ) -> None:
        """Judge the moment after the fault: the site serves, the message is true."""
        for sight in after:
            found.violations += observer.serves(sight)
        was = {sight.place.name: sight.serves for sight in before}
        now = {sight.place.name: sight.serves for sight in after}
        if strike.rival:
            rival = self._ended(strike.rival, found)
            found.violations += observer.honest(rival, now, now)
            if ended.code != 0 and rival.code != 0:
                what = f"two deploys ended with {ended.code} and {rival.code}"
                found.violations.append(Violation("I4", "race", what))
            if rival.code == 0:
                was = now
        elif strike.stopped and run.fault.wait and self.lane.kind != "local":
            was = now
        broken = run.fault.kind == "fsync error"
        found.violations += observer.honest(
            ended, was, now, outage=outage, broken=broken
        )
        replaced = strike.rival or (strike.finished and run.fault.wait)
        if ended.code == 0 and run.op == "deploy" and not replaced:
            self._is_shipped(strike.command.checkout.name, after, found)
        if strike.command.checkout.name in checkout.PUBLIC:
            begun = strike.command.begun
            span = (begun, begun + strike.command.seconds + 0.2)
            self.outages += [(sight.place.name, *span) for sight in before]
        self._answers(strike, found)

    def _is_shipped(
        self, version: str, sights: Sequence[Sight], found: Outcome
    ) -> None:
        for sight in sights:
            if sight.door.mark != version and not sight.door.problem:
                what = f"{sight.door.mark} answers, {version} was shipped"
                found.violations.append(Violation("I10", sight.place.name, what))

    def _judge_last(
        self, version: str, back: int | None, last: Sequence[Sight], found: Outcome
    ) -> None:
        """Judge the end of a run, when all has come to rest."""
        for sight in last:
            name = sight.place.name
            torn = self.torn.get(name, 0) + self._explained(found.run)
            found.violations += [
                *observer.serves(sight),
                *observer.chained(sight, torn),
                *observer.announced(sight),
                *observer.whispered(
                    {f"arguments on {name}": "\n".join(sight.arguments)}, SECRETS
                ),
            ]
            now = {
                release: observer.files(
                    sight.place.root / "releases" / release, self.known
                )
                for release in self.kept.get(name, {})
                if int(release[1:]) in sight.slots
            }
            found.violations += observer.kept(name, self.kept.get(name, {}), now)
            found.violations += [
                Violation("I9", name, leak)
                for leak in observer.leaks(sight.place, SECRETS, self.searched)
            ]
            if back is not None and sight.serves != back:
                what = f"v{sight.serves} serves, v{back} was to"
                found.violations.append(Violation("I3", name, what))
        if back is None:
            self._is_shipped(version, last, found)
        found.violations += observer.migrated(self.lane.rows())
        self._answers(None, found)

    @staticmethod
    def _explained(run: Run) -> int:
        """Return how many torn lines this run's faults may leave behind."""
        tears = ("crash at a call", "disk full", "power off", "reboot", "fsync error")
        faults = [fault for fault in (run.fault, run.second) if fault]
        # A planted call is met by each agent that comes after the one that died.
        return sum(
            12 if fault.planted else 2
            for fault in faults
            if fault.kind in tears or "kill" in fault.kind
        )

    def _answers(self, strike: Strike | None, found: Outcome) -> None:
        """Judge what became of the load's requests."""
        if strike:
            self.outages += strike.outages
        if self.lane.doors is None:
            return
        answers = self.lane.doors.since()
        failures = [
            (name, answer.well or answer.sent, answer.ended, answer.failure)
            for name, answer in answers
            if answer.failure
        ]
        judged, unreachable = observer.excused(failures, self.outages)
        found.sent += len(answers)
        found.failed += len(judged)
        found.unreachable += unreachable
        found.violations += judged[:3]

    def _dry(self, words: tuple[str, ...], version: str, found: Outcome) -> None:
        """I12: ask for the plan, which may change nothing."""
        places = self.lane.places
        before = [observer.everything(place.root, self.known) for place in places]
        command = self.lane.run(version, *words, "--dry-run")
        command.wait()
        ended = self._ended(command, found)
        if ended.code:
            what = f"--dry-run ended with {ended.code}"
            found.violations.append(Violation("I12", "output", what))
        for place, then in zip(places, before, strict=True):
            now = observer.everything(place.root, self.known)
            changed = [p for p in {*then, *now} if then.get(p) != now.get(p)]
            if changed:
                what = f"--dry-run changed {sorted(changed)[:5]}"
                found.violations.append(Violation("I12", place.name, what))

    def _put_right(self, found: Outcome) -> None:
        """Begin again after a violation, so that it is told once."""
        if found.violations:
            self.lane.renew()
            self.known.clear()
            self.searched.clear()
            self.kept.clear()
            self.torn.clear()


class Tail:
    """The lines that a journal grows by, and what the last of them says."""

    def __init__(self, path: Path, offset: int) -> None:
        self.path = path
        self.offset = offset
        self.lines = 0
        self.last = "before the journal"

    def read(self) -> int:
        """Return how many lines have come."""
        with contextlib.suppress(OSError):
            if self.path.stat().st_size <= self.offset:
                return self.lines
            with self.path.open("rb") as file:
                file.seek(self.offset)
                text = file.read()
            whole = text.rfind(b"\n") + 1
            if not whole:  # a line that is half written
                return self.lines
            self.offset += whole
            self.lines += text[:whole].count(b"\n")
            said = re.findall(rb'"phase":"(\w+)"', text[:whole])
            step = re.findall(rb'"step":"([\w-]+)"', text[:whole].splitlines()[-1])
            words = [found[-1].decode() for found in (said, step) if found]
            self.last = " ".join(words) or self.last
        return self.lines


def _argv(place: observer.Place) -> list[str]:
    return observer.processes(place)


# The campaign -------------------------------------------------------------------------


def campaign(
    numbers: Sequence[int],
    seed: int,
    *,
    lanes: Sequence[str] = ("local", "ssh2", "ssh2", "ssh3"),
    kinds: Sequence[str] = (),
    tell: Callable[[Outcome], None] = lambda _: None,
) -> list[Outcome]:
    """Do runs of a campaign on lanes side by side, and return what came of them.

    `tell` hears of each as it ends.

    Raises:
        Refused: this machine can't have what a campaign needs.
    """
    sorts = tuple(dict.fromkeys(lanes))
    waiting: dict[str, queue.SimpleQueue[Run]] = {
        name: queue.SimpleQueue() for name in sorts
    }
    for number in numbers:
        run = choose(seed, number, sorts, kinds)
        waiting[run.lane].put(run)
    outcomes: list[Outcome] = []
    errors: list[BaseException] = []
    speaking = threading.Lock()
    with tempfile.TemporaryDirectory(prefix="mlt-", dir="/dev/shm") as name:
        folder = Path(name)
        shim = compiled(folder)
        versions = (*checkout.SOUND, *checkout.FAULTY)
        places = folder / "checkouts"
        places.mkdir()
        checkout.make(places, versions, _build_environ(folder))

        def work(number: int, sort: str) -> None:
            lane = open_lane(sort, f"{sort}-{number}", folder, places, shim)
            try:
                with lane.up():
                    runner = Runner(lane)
                    while not errors:
                        try:
                            run = waiting[sort].get_nowait()
                        except queue.Empty:
                            return
                        found = runner.run(run)
                        with speaking:
                            outcomes.append(found)
                            tell(found)
            except BaseException as error:
                errors.append(error)

        threads = [
            threading.Thread(target=work, args=(number, sort), daemon=True)
            for number, sort in enumerate(lanes)
            if not waiting[sort].empty()
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)
        except KeyboardInterrupt as error:
            errors.append(error)
            for thread in threads:
                thread.join()
        if errors:
            raise errors[0]
    return outcomes


def open_lane(sort: str, name: str, folder: Path, checkouts: Path, shim: Path) -> Lane:
    """Return a lane of a sort, not up yet."""
    if sort == "local":
        return LocalLane(name, folder / name, checkouts, shim)
    return FleetLane(name, folder / name, checkouts, shim, int(sort[3:]))


def compiled(folder: Path) -> Path:
    """Return the preloaded library, compiled.

    Raises:
        Refused: there is no C compiler.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Refused(
            "a fault campaign needs a C compiler",
            where="PATH",
            next="sudo apt-get install gcc libc6-dev",
        )
    shim = folder / "shim.so"
    subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-o", str(shim), str(SHIM), "-ldl"],
        check=True,
        cwd=ROOT,
    )
    return shim


def _build_environ(folder: Path) -> dict[str, str]:
    from bench.faults.lane import _plain

    return _plain(folder / "build")
