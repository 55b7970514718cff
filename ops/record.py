"""What the journal says about how well we deliver: runs in, numbers out.

Pure: no clock, no file, no print. Every number is defined where it is computed; times
are seconds, moments are seconds since the epoch.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from ops.errors import Usage
from ops.history import History, Run

DAY = 86_400.0
WEEK = 7 * DAY
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY, "w": WEEK}
_SPAN = re.compile(r"([1-9][0-9]{0,4})([smhdw])")
# Outcomes of a deploy whose release had traffic, if only for a moment.
_REACHED = ("good", "reverted", "revert_failed")
_BAR = 40


@dataclass(frozen=True, slots=True)
class Spread:
    """How often something was measured, and its middle and its slow end in seconds."""

    count: int
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Week:
    """One week that begins on a Monday (UTC): deploys that were good, and not."""

    monday: str
    good: int
    failed: int


@dataclass(frozen=True, slots=True)
class Keys:
    """The four DORA keys, None where nothing was there to measure.

    `frequency`: good deploys a week. `lead`: from the commit of a release until that
    release serves. `failure_rate`: share of deploys that reached users and were put
    back, by the deploy itself or by a later rollback. `restore`: how long such a
    release had traffic.
    """

    frequency: float | None = None
    lead: Spread | None = None
    failure_rate: float | None = None
    restore: Spread | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """How an environment's deploys went between two moments.

    `success_rate` leaves out deploys that a person interrupted. `recover` is the time
    from a deploy that failed until the next one that was good. `steps` are those of
    deploys, `rollback` is a whole rollback.
    """

    since: float
    until: float
    deploys: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    rollbacks: int = 0
    success_rate: float | None = None
    deploy: Spread | None = None
    rollback: Spread | None = None
    recover: Spread | None = None
    steps: Mapping[str, Spread] = field(default_factory=dict)
    keys: Keys = Keys()
    weeks: tuple[Week, ...] = ()


def measure(
    history: History,
    *,
    since: float,
    until: float,
    commits: Mapping[str, float] | None = None,
) -> Record:
    """Return the record of the deploys that began between two moments.

    `commits` maps a commit to the moment it was made, as far as that is known.
    """
    ended = [run for run in history.runs if run.outcome]
    inside = [run for run in ended if since <= run.began <= until]
    deploys = [run for run in inside if run.op == "deploy"]
    good = [run for run in deploys if run.outcome == "good"]
    judged = [run for run in deploys if run.outcome != "interrupted"]
    back = [run for run in inside if run.op == "rollback" and run.outcome == "good"]
    return Record(
        since=since,
        until=until,
        deploys=len(deploys),
        outcomes=dict(Counter(run.outcome for run in deploys)),
        rollbacks=len(back),
        success_rate=_share(len(good), len(judged)),
        deploy=spread(run.seconds for run in good),
        rollback=spread(run.seconds for run in back),
        recover=spread(_recoveries(ended, since, until)),
        steps=_steps(good),
        keys=_keys(ended, good, deploys, since, until, commits or {}),
        weeks=_weeks(judged, since, until),
    )


def spread(values: Iterable[float]) -> Spread | None:
    """Return count, p50 and p95 (nearest rank: a value that was measured)."""
    known = sorted(values)
    if not known:
        return None
    return Spread(len(known), _rank(known, 0.5), _rank(known, 0.95))


def moment(text: str, now: float) -> float:
    """Return the moment that "90d", "10m", "2026-03-01", "2026-03-01T12:30" … means.

    Without a time zone it is UTC; "all" is the beginning of time.

    Raises:
        Usage: the text is none of these.
    """
    if text == "all":
        return 0.0
    if _SPAN.fullmatch(text):
        return now - span(text, "--since")
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        raise Usage(
            f'"{text}" is no span of time',
            where="--since",
            allowed="such as 12w, 90d, 24h, 10m, 2026-03-01, 2026-03-01T12:30Z, all",
        ) from None


def span(text: str, where: str) -> float:
    """Return the seconds that "10m", "24h" or "90d" means.

    Raises:
        Usage: the text is none of these.
    """
    match = _SPAN.fullmatch(text)
    if not match:
        raise Usage(
            f'"{text}" is no span of time',
            where=where,
            allowed="such as 30s, 10m, 24h, 90d, 12w",
        )
    return int(match[1]) * _UNITS[match[2]]


def told(runs: Sequence[Run], *, release: int | None, lines: int) -> tuple[Run, ...]:
    """Return the last runs, oldest first; only those of one release where asked.

    Raises:
        Usage: no run was ever about that release.
    """
    if release is None:
        return tuple(runs[-lines:]) if lines > 0 else ()
    about = [run for run in runs if release in (run.release, run.previous)]
    if not about:
        known = sorted({run.release for run in runs if run.release})
        said = f"v{known[0]} to v{known[-1]}" if known else "nothing was ever deployed"
        raise Usage(f"the journal knows no v{release}", where="--release", allowed=said)
    return tuple(about)


def chart(weeks: Sequence[Week]) -> list[str]:
    """Return one line a week: good deploys as full blocks, the others as light ones.

    A block is one deploy, or as many as it takes for the longest line to fit.
    """
    most = max((week.good + week.failed for week in weeks), default=0)
    per = max(1, math.ceil(most / _BAR))
    lines = []
    for week in weeks:
        good, failed = math.ceil(week.good / per), math.ceil(week.failed / per)
        bar = "█" * good + "░" * failed
        said = f"{week.good} good" + (f", {week.failed} not" if week.failed else "")
        lines.append(f"{week.monday}  {bar}{' ' if bar else ''}{said}")
    return lines


# The parts of a record ----------------------------------------------------------------


def _keys(
    ended: Sequence[Run],
    good: Sequence[Run],
    deploys: Sequence[Run],
    since: float,
    until: float,
    commits: Mapping[str, float],
) -> Keys:
    reached = [run for run in deploys if run.outcome in _REACHED]
    exposed = _exposures(ended)
    bad = [exposed[run.id] for run in reached if run.id in exposed]
    first = min((run.began for run in ended), default=until)
    # Before the first run there was nothing that could have been deployed.
    span = max(until - max(since, first), WEEK)
    leads = [
        run.began + run.seconds - commits[run.commit]
        for run in good
        if run.commit in commits
    ]
    return Keys(
        frequency=round(len(good) * WEEK / span, 2) if deploys else None,
        lead=spread(max(0.0, lead) for lead in leads),
        failure_rate=_share(len(bad), len(reached)),
        restore=spread(seconds for seconds in bad if seconds is not None),
    )


def _exposures(ended: Sequence[Run]) -> dict[str, float | None]:
    """Return, by run, how long each release that was put back had traffic.

    None where it still has: the way back failed, and nothing good came since.
    """
    exposed: dict[str, float | None] = {}
    serving: dict[int, tuple[str, float]] = {}
    stuck: tuple[str, float] | None = None
    for run in ended:
        end = run.began + run.seconds
        if run.op not in ("deploy", "rollback"):
            continue
        if run.outcome == "good" and stuck is not None:
            exposed[stuck[0]] = end - stuck[1]
            stuck = None
        if run.op == "deploy" and run.release is not None:
            moved = run.began + _until_switch(run)
            if run.outcome == "good":
                serving[run.release] = (run.id, moved)
            elif run.outcome == "reverted":
                exposed[run.id] = max(0.0, end - moved)
            elif run.outcome == "revert_failed":
                exposed[run.id], stuck = None, (run.id, moved)
        elif run.outcome == "good" and run.previous in serving:
            # Going forward again leaves a release that was good: no failure.
            if run.release is not None and run.previous > run.release:
                bad, moved = serving.pop(run.previous)
                exposed[bad] = max(0.0, end - moved)
    return exposed


def _until_switch(run: Run) -> float:
    """Return the seconds from the beginning of a run until traffic moved.

    Summed from its steps, which follow each other; what lies between two steps is a
    line of the journal. Where the switch is not among them it is the whole run.
    """
    spent = 0.0
    for each in run.steps:
        spent += each.seconds
        if each.step == "switch":
            return min(spent, run.seconds)
    return run.seconds


def _recoveries(ended: Sequence[Run], since: float, until: float) -> list[float]:
    """Return the time from each first failure until the next good deploy."""
    found, failed = [], None
    for run in ended:
        if run.op != "deploy" or run.outcome == "interrupted":
            continue
        end = run.began + run.seconds
        if run.outcome != "good":
            failed = end if failed is None else failed
        elif failed is not None:
            if since <= failed <= until:
                found.append(end - failed)
            failed = None
    return found


def _steps(runs: Sequence[Run]) -> dict[str, Spread]:
    """Return the spread of each step that was done, in the order of the deploy."""
    seen: dict[str, list[float]] = {}
    for run in runs:
        for each in run.steps:
            if each.how == "done":
                seen.setdefault(each.step, []).append(each.seconds)
    return {name: found for name, known in seen.items() if (found := spread(known))}


def _weeks(deploys: Sequence[Run], since: float, until: float) -> tuple[Week, ...]:
    """Return every week from the first deploy on, those without one among them."""
    if not deploys:
        return ()
    good: Counter[date] = Counter()
    failed: Counter[date] = Counter()
    for run in deploys:
        (good if run.outcome == "good" else failed)[_monday(run.began)] += 1
    first = _monday(max(since, min(run.began for run in deploys)))
    weeks = []
    while first <= _monday(until):
        weeks.append(Week(first.isoformat(), good[first], failed[first]))
        first += timedelta(days=7)
    return tuple(weeks)


def _monday(at: float) -> date:
    day = datetime.fromtimestamp(at, UTC).date()
    return day - timedelta(days=day.weekday())


def _rank(known: Sequence[float], share: float) -> float:
    return round(known[max(0, math.ceil(share * len(known)) - 1)], 3)


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
