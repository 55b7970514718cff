"""What may go where: an artefact comes to prod when staging has passed it.

`promotes_from` of an environment names the one before it. Passed means: a deploy of
this very artefact ended good there, and it was not found bad since. The journal of that
environment says so where it can be read; else a proof beside the artefact, which the
good deploy left there and which travels with `dist/`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ops import environment as environments
from ops import proof, report
from ops.environment import ROOT, Environment
from ops.errors import OpsError, Refused, Usage
from ops.history import History, Run
from ops.targets import open_target

if TYPE_CHECKING:
    from ops.world import World

# Says what the journal of an environment tells.
Reader = Callable[[Environment], History]
_DECIDED = ("good", "reverted", "revert_failed")


@dataclass(frozen=True, slots=True)
class Passage:
    """That an environment passed an artefact: as which release, when, by whom.

    `how` it is known: journal, or proof, which can't know of a later rollback.
    """

    environment: str
    artefact: str
    release: int
    run: str
    at: float
    by: str
    how: str = "journal"

    def __str__(self) -> str:
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.at))
        known = "its journal says" if self.how == "journal" else "its proof says"
        return f"{self.environment} passed it as v{self.release} on {day}, {known}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The passage, or why there is none."""

    passage: Passage | None
    why: str = ""


def judge(history: History, name: str, digest: str, commit: str = "") -> Judgement:
    """Return whether an environment has passed an artefact, by its history. Pure.

    The last deploy of it that came to the users decides, and what was rolled back
    afterwards is not passed.
    """
    deploys = [run for run in history.runs if run.op == "deploy"]
    tried = [run for run in deploys if run.artefact == digest]
    decided = [run for run in tried if run.outcome in _DECIDED]
    last = decided[-1] if decided else None
    if last is None or last.release is None:
        return Judgement(None, _never(deploys, tried, name, digest, commit))
    if last.outcome != "good":
        return Judgement(None, f"v{last.release} of it was put back on {name}")
    if not history.good(last.release):
        return Judgement(None, f"v{last.release} of it was rolled back on {name}")
    at = round(last.began + last.seconds, 3)
    return Judgement(Passage(name, digest, last.release, last.id, at, last.by))


def _never(
    deploys: list[Run], tried: list[Run], name: str, digest: str, commit: str
) -> str:
    if tried:
        return f"its deploy on {name} ended as {tried[-1].outcome or 'unfinished'}"
    same = [run for run in deploys if commit and run.commit == commit]
    if same:
        other = same[-1].artefact[:12]
        return f"{name} has artefact {other} of this commit, this is {digest[:12]}"
    good = [run for run in deploys if run.outcome == "good"]
    has = f"; its last good one is {good[-1].artefact[:12]}" if good else ""
    return f"{name} was never given artefact {digest[:12]}{has}"


def find(
    environment: Environment, digest: str, commit: str = "", read: Reader | None = None
) -> Judgement:
    """Return whether the environment before this one has passed an artefact."""
    source = environments.load(environment.promotes_from)
    try:
        history = (read or _journal)(source)
    except OpsError as error:
        # Its hosts are not known here, can't be reached, or are not trusted.
        return _by_proof(source.name, digest, error.what)
    return judge(history, source.name, digest, commit)


def require(
    environment: Environment,
    digest: str,
    commit: str = "",
    *,
    emergency: str | None = None,
    read: Reader | None = None,
) -> dict[str, Any]:
    """Return how an artefact may come to an environment, for the journal of its run.

    Raises:
        Refused: the environment before has not passed it, and it is no emergency.
    """
    if not environment.promotes_from:
        return {}
    judgement = find(environment, digest, commit, read)
    passage = judgement.passage
    if passage is not None:
        report.step("ok", "promotion", str(passage))
        return {"promotion": asdict(passage)}
    if emergency is not None:
        said = f"EMERGENCY, {emergency}: {judgement.why}"
        report.step("warned", "promotion", said)
        return {"promotion": {"how": "emergency", "why": judgement.why}}
    source, short = environment.promotes_from, digest[:8]
    raise Refused(
        f"{environment.name} takes what {source} has passed: {judgement.why}",
        where=f"artefact {short}",
        allowed="a deploy of it there that ended good and was not rolled back since",
        next=f"inv deploy --env {source}; or, announced to the team, "
        f'inv deploy --env {environment.name} --emergency "why it can\'t wait"',
    )


def reason(environment: Environment, emergency: str | None) -> str | None:
    """Return the reason of an emergency as it is told.

    Raises:
        Usage: there is no reason, or nothing that an emergency could lift.
    """
    if emergency is None:
        return None
    if not emergency.strip():
        raise Usage(
            "nobody will know why",
            where="--emergency",
            allowed='--emergency "why it can\'t wait for the environment before"',
        )
    if not environment.promotes_from:
        raise Usage(
            f"{environment.name} takes any artefact",
            where="--emergency",
            allowed="an environment with promotes_from in environments.toml",
        )
    return emergency.strip()


def note(environment: Environment, digest: str, world: World) -> None:
    """Leave a proof beside an artefact that an environment has passed.

    Only where another environment promotes from it. What it does not pass any more
    loses its proof.
    """
    names = environments.names()
    if environment.name not in {environments.load(n).promotes_from for n in names}:
        return
    folder, name = ROOT / "dist" / digest[:12], f"passed-{environment.name}"
    passage = judge(world.history, environment.name, digest).passage
    if passage is None:
        proof.forget(folder, name)
    elif folder.is_dir():
        proof.keep(folder, name, asdict(passage))


def _journal(source: Environment) -> History:
    """Return what the journal of an environment tells.

    Raises:
        Refused: none of its hosts can be reached. Usage: they are not known here.
    """
    with closing(open_target(source)) as target:
        world = target.observe()
    if not world.reached:
        raise Refused(f"no host of {source.name} can be reached")
    return world.history


def _by_proof(name: str, digest: str, unread: str) -> Judgement:
    """Return what the proof beside an artefact says, as the journal can't be read."""
    try:
        said = proof.found(ROOT / "dist" / digest[:12], f"passed-{name}")
    except Refused as error:
        return Judgement(None, f"{error.what} ({error.where}; {error.next})")
    if said is None or said.get("artefact") != digest:
        return Judgement(
            None, f"{unread}, and no proof of {name} lies beside artefact {digest[:12]}"
        )
    return Judgement(Passage(**{**said, "how": "proof"}))
