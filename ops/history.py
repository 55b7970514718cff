"""The history folded from the journal: pure, its arguments are values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

Event = Mapping[str, Any]
# Why a run ended that did not end itself.
_UNKNOWN = "noted on too few hosts; others acted since without knowing of it"


@dataclass(frozen=True, slots=True)
class Consent:
    """The yes that let a deploy through: whose, when (seconds since the epoch).

    `how`: stored (`inv approve`), typed at the prompt, or workflow.
    """

    by: str
    how: str = ""
    at: float = 0.0


class Took(NamedTuple):
    """One step of a run: what, how long in seconds, "done" or "fail", on which host."""

    step: str
    seconds: float
    how: str
    host: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One deploy, rollback or other act: what it did, when, by whom, how it ended.

    `began` is seconds since the epoch (UTC); `outcome` is "" while it is open.
    `approval` is None where none was asked for.
    """

    id: str
    op: str
    release: int | None
    previous: int | None
    began: float
    by: str = ""
    artefact: str = ""
    commit: str = ""
    outcome: str = ""
    seconds: float = 0.0
    reason: str = ""
    steps: tuple[Took, ...] = ()
    approval: Consent | None = None


@dataclass(frozen=True, slots=True)
class Closure:
    """Maintenance that is on: what people read, who closed it, when, for how long.

    Seconds since the epoch; `until` is 0 where nobody said. `reason` is for us, the
    `message` is for everybody.
    """

    message: str
    by: str = ""
    since: float = 0.0
    until: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class History:
    """What the journal says: every run, each release's standing, the order of traffic.

    `standing` maps a release's number to good, bad or aborted; `traffic` lists the
    releases that got traffic and kept it, oldest first, each rollback popping what
    it left behind; `open` is the run that a dead deployer did not end; `closure` the
    maintenance that was switched on last, and not off since; `schema` the revision that
    the last migration left the database at, "" where none is known.
    """

    runs: tuple[Run, ...] = ()
    standing: Mapping[int, str] = field(default_factory=dict)
    traffic: tuple[int, ...] = ()
    open: Run | None = None
    torn: int = 0
    closure: Closure | None = None
    schema: str = ""

    @property
    def last(self) -> int:
        """The highest release number that was ever used."""
        return max([0, *(run.release or 0 for run in self.runs)])

    def arrival(self, number: int | None) -> Run | None:
        """Return the run that gave a release the traffic it has, None if none did."""
        for run in reversed(self.runs):
            kept = run.op in ("deploy", "rollback") and run.outcome == "good"
            if kept and run.release == number:
                return run
        return None

    @property
    def left(self) -> frozenset[int]:
        """The releases that traffic was moved away from since a deploy ended well.

        They stand by: whoever has gone back may want to go forward again.
        """
        found: set[int] = set()
        for run in self.runs:
            if run.op == "deploy" and run.outcome == "good":
                found.clear()
            if run.outcome and run.previous is not None:
                found.add(run.previous)
        return frozenset(found)

    def good(self, number: int) -> bool:
        """Say whether a release has passed its gates and was not found bad since."""
        return self.standing.get(number) == "good"


def fold(events: Iterable[Event], torn: int = 0) -> History:
    """Return the history that a sequence of events tells.

    Every command finishes what is open before it does anything else. So a run that is
    open while a later epoch goes on with another was never known to those who act: it
    was noted on too few hosts, nothing of it was carried out, and it counts as aborted.
    """
    runs: dict[str, Run] = {}
    standing: dict[int, str] = {}
    traffic: list[int] = []
    closure, schema = None, ""
    epochs: dict[str, int] = {}
    for event in events:
        epoch = event.get("epoch", 0)
        for id in [id for id, its in epochs.items() if its < epoch]:
            if id != event["run"]:
                del epochs[id]
                runs[id] = replace(runs[id], outcome="aborted", reason=_UNKNOWN)
                _judge(runs[id], standing, traffic)
        if event["phase"] == "done":
            schema = event.get("facts", {}).get("schema") or schema
        run = _run(runs.get(event["run"]), event)
        runs[run.id] = run
        if run.outcome:
            epochs.pop(run.id, None)
        else:
            epochs[run.id] = epoch
        if event["phase"] == "end":
            _judge(run, standing, traffic)
            if run.op == "maintenance" and run.outcome == "good":
                said = event["facts"].get("closure")
                closure = Closure(**said) if said else None
    every = tuple(runs.values())
    left = [run for run in every if not run.outcome]
    last = left[-1] if left else None
    return History(every, standing, tuple(traffic), last, torn, closure, schema)


def _run(run: Run | None, event: Event) -> Run:
    facts = event.get("facts", {})
    if run is None:
        run = Run(
            id=event["run"],
            op=event["op"],
            release=event.get("release"),
            previous=facts.get("previous"),
            began=event["at"],
            by=facts.get("by", ""),
            artefact=facts.get("artefact", ""),
            commit=facts.get("commit", ""),
            reason=facts.get("reason", ""),
            approval=_consent(facts.get("approval")),
        )
    if event["phase"] in ("done", "fail"):
        seconds, host = facts.get("seconds", 0.0), event.get("host", "")
        step = Took(event["step"], seconds, event["phase"], host)
        run = replace(run, steps=(*run.steps, step))
    if event["phase"] == "end":
        run = replace(
            run,
            outcome=facts["outcome"],
            reason="; ".join(filter(None, (run.reason, facts.get("reason", "")))),
            seconds=round(event["at"] - run.began, 3),
        )
    return run


def _consent(said: Mapping[str, Any] | None) -> Consent | None:
    if not said:
        return None
    return Consent(said["by"], said.get("how", ""), said.get("at", 0.0))


def _judge(run: Run, standing: dict[int, str], traffic: list[int]) -> None:
    """Apply the end of a run to the standing of releases and the order of traffic."""
    if run.release is None:
        return
    if run.op == "deploy":
        standing[run.release] = {
            "good": "good",
            "aborted": "aborted",
            "interrupted": "aborted",
        }.get(run.outcome, "bad")
        if run.outcome == "good":
            traffic.append(run.release)
        elif run.release in traffic:
            traffic.remove(run.release)
    if run.op == "rollback" and run.outcome == "good":
        # What was left behind going back is not offered by the next rollback.
        if run.previous in standing and run.previous > run.release:
            standing[run.previous] = "bad"
        while traffic and traffic[-1] != run.release:
            if run.release not in traffic:
                break
            traffic.pop()
        if not traffic or traffic[-1] != run.release:
            traffic.append(run.release)
        standing[run.release] = "good"
