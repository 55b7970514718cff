"""A person's yes, bound to one environment and one artefact.

It can be used once and only for a few hours. Three ways lead to it: `inv approve`
beforehand, the artefact's name typed at the prompt of a deploy, or, in the workflow,
the protected environment whose reviewers let the job begin.

The seal is an HMAC under a key of this user: it shows that a yes was changed or made by
hand. It is no defence against this user, who owns the key and could deploy anyway.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ops import environment as environments
from ops import promotion, proof, report
from ops.environment import ROOT, Environment
from ops.errors import Refused, Usage

HOURS = 4.0
# A clock that was put back by more than this makes a yes of the future doubtful.
_SKEW = 60.0
# An old yes says who let what through; after this it is forgotten.
_KEPT = 90 * 86_400.0
_SHORT = 8
# Names of protected environments on GitHub, by ours.
_PROTECTED = {"prod": ("prod", "production"), "staging": ("staging",)}


@dataclass(frozen=True, slots=True)
class Approval:
    """One yes: for what, by whom, when, until when; `used` is 0.0 while it is not.

    `artefact` is the whole digest. `how` is stored, typed or workflow.
    """

    environment: str
    artefact: str
    by: str
    at: float
    expires: float
    how: str = "stored"
    nonce: str = ""
    used: float = 0.0
    seal: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The yes that fits, or the reason why there is none."""

    approval: Approval | None
    why: str = ""


def judge(
    approvals: Sequence[Approval],
    environment: str,
    digest: str,
    now: float,
    *,
    sealed: Callable[[Approval], bool] = lambda approval: True,
) -> Judgement:
    """Return the yes for an environment and an artefact, or why there is none. Pure."""
    mine = [each for each in approvals if each.environment == environment]
    if not mine:
        return Judgement(None, f"nobody has approved anything for {environment}")
    fitting = [each for each in mine if each.artefact == digest]
    if not fitting:
        last = max(mine, key=lambda each: each.at)
        return Judgement(
            None,
            f"{last.by} approved artefact {last.artefact[:_SHORT]}, "
            f"this is {digest[:_SHORT]}",
        )
    why = ""
    for each in sorted(fitting, key=lambda each: each.at, reverse=True):
        problem = _problem(each, now, sealed)
        if not problem:
            return Judgement(each)
        why = why or problem
    return Judgement(None, why)


def _problem(approval: Approval, now: float, sealed: Callable[[Approval], bool]) -> str:
    if not sealed(approval):
        return "the approval was changed after it was given"
    if approval.used:
        return f"the approval of {approval.by} was used before"
    if approval.at > now + _SKEW:
        return f"the approval of {approval.by} is from the future: look at the clock"
    if now >= approval.expires:
        ago = report.seconds(now - approval.expires)
        return f"the approval of {approval.by} expired {ago} ago"
    return ""


def require(
    environment: Environment,
    digest: str,
    *,
    typed: Callable[[str], str] = input,
    interactive: bool | None = None,
    by: str = "",
    environ: Mapping[str, str] = os.environ,
    now: float | None = None,
) -> Approval:
    """Return the yes that lets an artefact onto an environment; `consume` uses it up.

    Asks at the prompt when nobody said yes before and a person sits there.

    Raises:
        Refused: there is none, with the reason and the command that gives one.
    """
    at = time.time() if now is None else now
    if interactive is None:
        interactive = sys.stdin.isatty() and sys.stderr.isatty()
    store = Store()
    judgement = judge(store.read(), environment.name, digest, at, sealed=store.sealed)
    if judgement.approval is not None:
        return judgement.approval
    protected = _workflow(environment.name, digest, environ, at)
    if protected is not None:
        return protected
    short = digest[:_SHORT]
    if interactive:
        answer = typed(
            f"  {judgement.why}\n  type {short} to let this artefact onto "
            f"{environment.name}: "
        )
        if answer.strip() == short:
            return Approval(environment.name, digest, by, at, at + 3600, how="typed")
        raise Refused(f'"{answer.strip()}" is not "{short}"; nothing was touched')
    raise Refused(
        f"{environment.name} needs an approval: {judgement.why}",
        where=f"artefact {short}",
        allowed="an approval of this artefact for this environment, not used, not old",
        next=f"inv approve --env {environment.name} --artefact {short}",
    )


def consume(approval: Approval, *, now: float | None = None) -> None:
    """Use a yes up, just before the deploy that it lets through begins.

    Raises:
        Refused: another deploy has used it since it was found.
    """
    if approval.how != "stored":
        # Typed for this very command, or for this very job: there is no second use.
        return
    at = time.time() if now is None else now
    store = Store()
    with store.changing() as approvals:
        for place, each in enumerate(approvals):
            if each.nonce != approval.nonce:
                continue
            if each.used or not store.sealed(each):
                break
            approvals[place] = store.seal(replace(each, used=round(at, 3)))
            return
        raise Refused(
            "the approval was used by another deploy just now",
            where=str(store.path),
            next=f"inv approve --env {approval.environment} "
            f"--artefact {approval.artefact[:_SHORT]}",
        )


def give_back(approval: Approval) -> None:
    """Take back that a yes was used: the deploy was refused before it did anything."""
    store = Store()
    if approval.how != "stored":
        return
    with store.changing() as approvals:
        for place, each in enumerate(approvals):
            if each.nonce == approval.nonce and store.sealed(each):
                approvals[place] = store.seal(replace(each, used=0.0))


def approve(
    name: str,
    artefact: str,
    *,
    by: str,
    hours: float = HOURS,
    as_json: bool = False,
    now: float | None = None,
) -> Approval:
    """Say yes to an artefact on an environment: `inv approve`.

    Raises:
        Usage: no such environment, or a span of hours that is none.
        Refused: no artefact of that name is known here.
    """
    environment = environments.load(name)
    if not 0 < hours <= 168:
        raise Usage(
            f"{hours:g} hours", where="--hours", allowed="more than 0, at most 168"
        )
    at = round(time.time() if now is None else now, 3)
    digest = resolve(artefact, known_artefacts())
    store = Store()
    given = store.seal(
        Approval(
            environment=environment.name,
            artefact=digest,
            by=by,
            at=at,
            expires=round(at + hours * 3600, 3),
            nonce=secrets.token_hex(8),
        )
    )
    with store.changing() as approvals:
        approvals[:] = [each for each in approvals if each.at > at - _KEPT]
        approvals.append(given)
    passed = promotion.Judgement(None)
    if environment.promotes_from:
        passed = promotion.find(environment, digest)
    if as_json:
        public = asdict(given)
        del public["seal"], public["nonce"]
        passage = asdict(passed.passage) if passed.passage else None
        public["promotion"] = {"passed": passage, "why": passed.why}
        report.as_json(public)
    else:
        until = time.strftime("%H:%M on %Y-%m-%d", time.localtime(given.expires))
        report.say(
            f"  {by} lets artefact {digest[:12]} onto {environment.name}, "
            f"once, until {until}",
            "green",
        )
        if passed.passage is not None:
            report.say(f"  {passed.passage}")
        elif environment.promotes_from:
            report.say(f"  a deploy will be refused: {passed.why}", "yellow")
            report.say(f"  next: inv deploy --env {environment.promotes_from}")
            return given
        report.say(f"  next: inv deploy --env {environment.name}")
    return given


def resolve(text: str, known: Sequence[str]) -> str:
    """Return the whole digest that a short one means. Pure.

    Raises:
        Usage: it is too short, no digest, or means several.
        Refused: it means none that is known.
    """
    wanted = text.strip().lower()
    if not re.fullmatch(rf"[0-9a-f]{{{_SHORT},64}}", wanted):
        raise Usage(
            f'"{text}" is no artefact',
            where="--artefact",
            allowed=f"the first {_SHORT} or more characters of its sha256",
            next="inv build; or inv status --env staging",
        )
    if len(wanted) == 64:
        return wanted
    found = sorted({digest for digest in known if digest.startswith(wanted)})
    if len(found) > 1:
        raise Usage(
            f"{wanted} means {len(found)} artefacts",
            where="--artefact",
            allowed=", ".join(digest[:16] for digest in found),
        )
    if not found:
        raise Refused(
            f"no artefact {wanted} is known here",
            where="dist/",
            allowed=", ".join(digest[:_SHORT] for digest in sorted(set(known)))
            or "none was built yet",
            next="inv build; or type all 64 characters",
        )
    return found[0]


def known_artefacts(root: Path = ROOT) -> list[str]:
    """Return the digests of the artefacts that were built here."""
    found = []
    for path in sorted(root.glob("dist/*/manifest.json")):
        try:
            found.append(str(json.loads(path.read_text())["digest"]))
        except (OSError, ValueError, KeyError, TypeError):
            # Half a build; `inv build` makes it anew.
            continue
    return found


def _workflow(
    name: str, digest: str, environ: Mapping[str, str], now: float
) -> Approval | None:
    """Return the yes of a protected environment, where the workflow says it had one.

    Sound only if the job names that environment (`environment: production`), which
    GitHub lets begin after its reviewers agreed, and if the variable is set there and
    nowhere else: as a variable of that protected environment, not of the repository.
    A pull request can't read it, as its jobs never enter the environment.
    """
    protected = environ.get("MLTRADING_APPROVED_BY", "")
    if environ.get("GITHUB_ACTIONS") != "true" or not protected:
        return None
    if protected not in _PROTECTED.get(name, (name,)):
        return None
    actor, run = environ.get("GITHUB_ACTOR", "?"), environ.get("GITHUB_RUN_ID", "?")
    by = f"{protected} (run {run} of {actor})"
    return Approval(name, digest, by, now, now + 3600, how="workflow")


# Where they are kept ------------------------------------------------------------------


class Store:
    """The file of approvals in this user's state folder, readable by nobody else."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = environments.state_home() if folder is None else folder
        self.path = self.folder / "approvals.json"
        self._key_path = self.folder / "approvals.key"

    def read(self) -> list[Approval]:
        """Return all approvals; none where there is no file.

        Raises:
            Refused: the file is not ours alone, or is damaged.
        """
        try:
            mode = self.path.stat().st_mode
            rows = json.loads(self.path.read_text())
            if mode & 0o077:
                raise Refused(
                    "others may read or write the approvals",
                    where=str(self.path),
                    allowed="mode 0600",
                    next=f"chmod 600 {self.path}",
                )
            return [_parsed(row) for row in rows]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, KeyError) as error:
            raise Refused(
                f"the approvals can't be read: {error}",
                where=str(self.path),
                next="move the file away and run inv approve again",
            ) from None

    @contextmanager
    def changing(self) -> Iterator[list[Approval]]:
        """Give the approvals to change; written when the block ends well."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self.folder / "approvals.lock", flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            approvals = self.read()
            yield approvals
            rows = [asdict(each) for each in approvals]
            _write(self.path, json.dumps(rows, indent=1).encode())
        finally:
            os.close(descriptor)

    def seal(self, approval: Approval) -> Approval:
        """Return the approval with the seal that its words ask for."""
        return replace(approval, seal=self._seal(approval))

    def sealed(self, approval: Approval) -> bool:
        """Say whether an approval is as it was when it was given or used."""
        return hmac.compare_digest(approval.seal, self._seal(approval))

    def _seal(self, approval: Approval) -> str:
        words = asdict(replace(approval, seal=""))
        return proof.seal(words, proof.own_key(self._key_path))


def _parsed(row: Any) -> Approval:
    fields = {name: row[name] for name in Approval.__dataclass_fields__}
    texts = ("environment", "artefact", "by", "how", "nonce", "seal")
    if not all(isinstance(fields[name], str) for name in texts):
        raise TypeError("a row holds no text where there should be one")
    for name in ("at", "expires", "used"):
        fields[name] = float(fields[name])
    return Approval(**fields)


def _write(path: Path, content: bytes) -> None:
    """Replace a file of this user alone in one step, and wait for the disk."""
    scratch = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    descriptor = os.open(scratch, flags, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)
