"""Carry out a plan step by step: intent on the disk, effect, outcome on the disk.

Whatever fails or interrupts, traffic ends on a release that was good: before the
switch the new one is stopped and the old one was never touched, after it traffic goes
back. A deployer that dies half-way is finished by the next command: `recover`.
"""

from __future__ import annotations

import errno
import itertools
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ops import probe, report, watch
from ops.command import Answer, Request
from ops.environment import Environment
from ops.errors import (
    GateFailed,
    Interrupted,
    Locked,
    OpsError,
    RevertFailed,
    StepFailed,
)
from ops.plan import plan_recover
from ops.release import Release, record_digest
from ops.rotation import settled
from ops.step import SWITCH, Plan, Step
from ops.targets.target import Target
from ops.window import Comparison
from ops.world import Host, World

_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Shipment:
    """What a deploy stages: record, wheels, variables with their secrets revealed."""

    release: Release
    wheels: tuple[Path, ...]
    requirements: Path
    environ: Mapping[str, str] = field(repr=False)
    python: str = ""
    uv: str = ""

    def named(self, release: Release) -> Shipment:
        """Return the same under a release's record: its variables say which it is."""
        environ = {
            **self.environ,
            "MLTRADING_RELEASE": release.name,
            "MLTRADING_ARTEFACT": release.artefact,
            "MLTRADING_COMMIT": release.commit,
        }
        return replace(self, release=release, environ=environ)


@dataclass(slots=True)
class Rollout:
    """One run: a plan being carried out on a target, told to the journal.

    `because` is what a person gave as a reason, where one had to be given; `granted`
    says why this may be done: approval and promotion. `begun` when the journal has it.
    """

    target: Target
    environment: Environment
    by: str
    shipment: Shipment | None = None
    because: str = ""
    granted: Mapping[str, Any] = field(default_factory=dict)
    begun: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(4))
    moved: bool = False
    booted: set[str] = field(default_factory=set)
    turned: bool = False
    steps: list[dict[str, Any]] = field(default_factory=list)
    _many: bool = False
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def carry_out(self, plan: Plan) -> str:
        """Carry a plan out and return its outcome: good.

        Raises:
            StepFailed (1): a step failed, the old release serves.
            GateFailed (4): a gate said no, and what had moved was put back.
            RevertFailed (5): putting back failed.
            Interrupted (130): Ctrl-C or SIGTERM, put back likewise.
        """
        recovering = plan.op.startswith("recover")
        self._many = len({step.host for step in plan.steps}) > 1
        self.moved = recovering and plan.release is not None
        try:
            if not recovering:
                self._record(plan, "begin", facts=self._facts(plan))
            self.begun = True
            for _, stage in itertools.groupby(plan.steps, lambda step: step.stage):
                self._perform_stage(plan, list(stage))
            with signals_wait():
                self._record(plan, "end", facts={"outcome": _outcome(plan)})
                self.target.settle()
        except BaseException as error:
            # Whatever it is, a defect of ours too: users come first, then the trace.
            with signals_wait():
                self._put_back(plan, error)
        return _outcome(plan)

    def _perform_stage(self, plan: Plan, steps: list[Step]) -> None:
        """Carry out one stage: hosts side by side, in order on each.

        After a failure no host begins another step; the first error is raised when
        all have come to rest.
        """
        lanes: dict[str, list[Step]] = {}
        for step in steps:
            lanes.setdefault(step.host, []).append(step)
        if len(lanes) == 1:
            for step in steps:
                self._perform(plan, step)
            return
        errors: list[BaseException] = []

        def carry(lane: list[Step]) -> None:
            for step in lane:
                if errors:
                    return
                try:
                    self._perform(plan, step)
                except BaseException as error:
                    errors.append(error)

        threads = [
            threading.Thread(target=carry, args=(lane,), daemon=True)
            for lane in lanes.values()
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt as error:
            errors.insert(0, error)
            # A boot or an upload that nobody waits for any more is cut short.
            self.target.cancel()
            for thread in threads:
                thread.join()
        if errors:
            raise errors[0]

    # One step --------------------------------------------------------------------

    def _perform(self, plan: Plan, step: Step) -> None:
        begun = time.monotonic()
        if step.verb == SWITCH:
            self.moved = True
        if step.verb in ("leave", "share", "refuse"):
            self.turned = True
        try:
            self._record(plan, "intent", step)
            facts = self._act(step)
            took = time.monotonic() - begun
            self._record(plan, "done", step, {**facts, "seconds": round(took, 4)})
        except (OpsError, OSError) as error:
            took = time.monotonic() - begun
            said = str(error)
            self._note(plan, "fail", step, {"seconds": round(took, 4), "error": said})
            if step.optional:
                self._tell(step, "warned", f"{step.text}: {said}", took)
                return
            self._tell(step, "failed", step.text, took)
            raise
        missed = "; ".join(f"{n}: {why}" for n, why in facts.get("missed", {}).items())
        text = f"{step.text}; missed {missed}" if missed else _told(step, facts)
        self._tell(step, "warned" if missed else "ok", text, took)

    def _act(self, step: Step) -> dict[str, Any]:
        act, number, budget = self.target.act, step.release, step.budget
        shipment = self.shipment
        match step.verb:
            case "install" if shipment:
                return act(
                    step.host,
                    "install",
                    name=shipment.release.environment,
                    requirements=shipment.requirements,
                    python=shipment.python,
                    uv=shipment.uv,
                    timeout=budget,
                )
            case "stage" if shipment:
                return act(
                    step.host,
                    "stage",
                    release=shipment.release.as_json(),
                    wheels=shipment.wheels,
                    environ=shipment.environ,
                )
            case "migrate":
                return act(
                    step.host,
                    "migrate",
                    number=number,
                    seed=self.environment.seed,
                    timeout=budget,
                    within=step.within,
                    hosts=step.hosts,
                )
            case "boot":
                self.booted.add(step.host)
                return act(step.host, "boot", number=number, timeout=budget)
            case "gate":
                return self._gate(step)
            case "front":
                port = self.environment.port
                return act(step.host, "front", port=port, timeout=budget)
            case "switch":
                return act(step.host, "switch", number=number)
            case "smoke":
                return self._smoke(step)
            case "leave":
                return self._leave(step)
            case "join":
                return act(step.host, "join", well=number is not None)
            case "share":
                return self._share(step)
            case "even":
                return act(step.host, "share", share=None)
            case "refuse":
                raise GateFailed(step.text, where=step.host, next="inv deploy again")
            case "reload":
                return act(step.host, "reload", number=number, timeout=budget)
            case "watch":
                return self._watch(step)
            case "drain":
                return act(step.host, "retire", number=number)
            case "stop":
                return act(step.host, "stop", number=number, timeout=budget)
            case "halt":
                return act(step.host, "halt", number=number, timeout=budget)
            case "close":
                return act(step.host, "close", timeout=budget)
            case "empty":
                days = step.days
                return act(step.host, "empty", number=number, days=days, timeout=budget)
            case "prune":
                return act(step.host, "prune", numbers=self._prunable(step.host))
        raise StepFailed(f"no such step: {step.verb}", where=step.host)

    def _prunable(self, name: str) -> list[int]:
        """Return what pruning may remove now, from what is there now."""
        from ops.plan import retained

        world = self.target.observe()
        host = next((host for host in world.reached if host.name == name), None)
        if host is None:
            # Nothing is lost: what is left there goes with the next deploy.
            raise StepFailed("it can't be reached any more", where=name)
        shipped = self.shipment.release.number if self.shipment else None
        alive = {slot.number for slot in host.slots if slot.processes}
        stay = retained(
            world, host, self.environment.keep, {host.current, shipped, *alive}
        )
        return [slot.number for slot in host.slots if slot.number not in stay]

    # The gates -------------------------------------------------------------------

    def _gate(self, step: Step) -> dict[str, Any]:
        """Ask a release on its own socket until it says yes three times in a row.

        A release that users have never seen is asked for its pages too: what would
        fail in front of them fails here first.
        """
        number = _number(step)
        probes = probe.gate(f"v{number}", self._artefact(step.host, number))

        def ask(requests: Sequence[Request]) -> list[Answer]:
            return self.target.ask(step.host, number, requests)

        facts, _ = _until_yes(probes, ask, step, in_a_row=probe.IN_A_ROW)
        if self.shipment and self.shipment.release.number == number:
            facts["asked"] = self._ask_pages(ask, step)
        return facts

    def _smoke(self, step: Step) -> dict[str, Any]:
        """Ask the version, the pages and their callbacks through the front door."""
        number = _number(step)
        artefact = self._artefact(step.host, number)

        def ask(requests: Sequence[Request]) -> list[Answer]:
            # Through this host's own door: behind a balancer any host may answer.
            return self.target.ask_door(step.host, requests)

        version = probe.version(f"v{number}", artefact)
        if not self.environment.pages:
            return {**_until_yes(version, ask, step)[0], "asked": len(version)}
        return {"rounds": 1, "asked": self._ask_pages(ask, step, version)}

    # The rotation of balancers ---------------------------------------------------

    def _leave(self, step: Step) -> dict[str, Any]:
        """Take a host out of rotation: the release that serves there, and the new one.

        Both, as balancers that we can't speak with ask whichever has traffic.
        """
        world = self.target.observe()
        host = next(host for host in world.hosts if host.name == step.host)
        numbers = [n for n in (host.current, step.release) if n is not None]
        return self.target.act(step.host, "leave", numbers=numbers, timeout=step.budget)

    def _share(self, step: Step) -> dict[str, Any]:
        """Give a host its share of the traffic.

        Raises:
            StepFailed: a balancer did not, so nobody knows what the host gets.
        """
        facts = self.target.act(step.host, "share", share=step.share)
        for name, why in facts.get("missed", {}).items():
            raise StepFailed(
                f"balancer {name} did not share the traffic: {why}",
                where=step.host,
                next="deploy without --canary, or mend the balancer",
            )
        return facts

    def _settle(self) -> str:
        """Put every host back into rotation; return what is doubtful about it."""
        doubts = []
        for step in settled(self.target.observe()):
            try:
                facts = self._act(step)
                missed = "; ".join(facts.get("missed", {}))
            except (OpsError, OSError) as error:
                missed = str(error)
            if missed:
                doubts.append(f", but {step.host} could not {step.text}: {missed}")
        return "".join(doubts)

    # The watch -------------------------------------------------------------------

    def _watch(self, step: Step) -> dict[str, Any]:
        """Compare what the new release counts with what the old one does.

        With too little traffic to judge by, a strict watch holds for one more window
        and is a no then; any other goes on.

        It is asked what its gate asked too: who was well for a moment is found out.

        Raises:
            GateFailed: it does worse, by the rules of `ops.watch`.
        """
        number = _number(step)
        probes = probe.gate(f"v{number}", self._artefact(step.host, number))
        gate = [each.request for each in probes]

        def problem() -> str:
            return probe.worst(probes, self.target.ask(step.host, number, gate))

        compared = Comparison(step, self._counted, problem)
        verdict = compared.window()
        if verdict.state == "INCONCLUSIVE" and step.strict:
            self._tell(step, "warned", f"{verdict.said}; holding once more", 0.0)
            verdict = compared.window()
        if verdict.state == "FAIL" or (verdict.state != "PASS" and step.strict):
            allow = "" if verdict.state == "FAIL" else "add --allow-inconclusive, or "
            raise GateFailed(
                f"watch of v{step.release} said no: {verdict.said}",
                where=step.host,
                next=f"{allow}inv logs --release v{step.release}",
            )
        return {"verdict": verdict.state, "said": verdict.said}

    def _counted(self, host: str, number: int) -> watch.Sample | None:
        """Return what a release has counted on a host, None where it does not say."""
        asked = [Request("GET", "/metrics", headers={"Accept": "text/plain"})]
        try:
            (answer,) = self.target.ask(host, number, asked)
        except StepFailed:
            return None
        text = answer.body.decode(errors="replace")
        return watch.parse(text) if answer.status == 200 else None

    def _ask_pages(
        self,
        ask: Callable[[Sequence[Request]], list[Answer]],
        step: Step,
        also: tuple[probe.Probe, ...] = (),
    ) -> int:
        """Ask each page and the callback that draws it; return how many were asked.

        `also` is asked together with the pages.
        """
        pages = self.environment.pages
        if not pages:
            return 0
        first = (*also, *probe.pages(pages), *probe.described())
        _, answers = _until_yes(first, ask, step)
        drawn = probe.callbacks(answers[-1], pages)
        if not drawn:
            raise GateFailed(
                f"v{step.release} describes no callback that draws a page",
                where="GET /_dash-dependencies",
                detail=f"status {answers[-1].status} {answers[-1].error}".strip(),
                next=f"inv logs --release v{step.release}",
            )
        _until_yes(drawn, ask, step)
        return len(also) + len(pages) + len(drawn)

    def _artefact(self, host: str, number: int) -> str:
        """Return the artefact that a release was made from."""
        if self.shipment and self.shipment.release.number == number:
            return self.shipment.release.artefact
        record = self.target.record_of(host, number)
        if record is None:
            raise StepFailed(f"v{number} is not there any more", where=host)
        return record.artefact

    # Failure ---------------------------------------------------------------------

    def _put_back(self, plan: Plan, error: BaseException) -> None:
        """Leave a good release in front of the users, then say what happened."""
        doubt = ""
        try:
            self.target.settle()
        except (OpsError, OSError) as second:
            # What goes back must not wait for a journal that can't be written.
            report.say(f"  the journal could not be written: {second}", "yellow")
        try:
            if self.moved:
                report.say("  putting traffic back", "yellow")
                doubt = self._revert(plan)
            if self.turned:
                doubt += self._settle()
            if self._stops_new(plan):
                doubt += self._stop_new(plan)
        except Locked as second:
            # What there is now is another holder's, and so is the journal. Ours is
            # given up first: who wants it back is not even let in to look.
            self.target.release()
            raise Locked(
                f"another holder has taken over ({second.what}); {self._serves()}",
                where=second.where,
                next=f"inv status --env {self.environment.name}",
            ) from error
        except (OpsError, OSError) as second:
            self._note_end(plan, "revert_failed", f"{error}; then: {second}")
            raise RevertFailed(
                f"{error}; putting traffic back failed too: {second}",
                where=self.environment.name,
                detail=getattr(error, "detail", ""),
                next=f"inv status --env {self.environment.name}; then inv rollback",
            ) from error
        interrupted = isinstance(error, KeyboardInterrupt)
        outcome = "reverted" if self.moved else "aborted"
        if interrupted and not self.moved:
            outcome = "interrupted"
        self._note_end(plan, outcome, str(error) or type(error).__name__)
        raise self._explained(error, f"{self._serves()}{doubt}")

    def _explained(self, error: BaseException, serves: str) -> BaseException:
        """Return the error to end with: what happened, and what serves now."""
        if isinstance(error, KeyboardInterrupt):
            return Interrupted(f"interrupted; {serves}", next="inv status")
        if isinstance(error, OSError):
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            error = StepFailed(
                error.strerror or str(error),
                where=str(error.filename or self.environment.state),
                next="free some space and run it again" if full else "inv doctor",
            )
        if not isinstance(error, OpsError):
            report.say(f"  a defect of the engine: {error!r}; {serves}", "red")
            return error
        kind = GateFailed if self.moved else type(error)
        return kind(
            f"{error.what}; {serves}",
            where=error.where,
            allowed=error.allowed,
            next=error.next,
            detail=error.detail,
        )

    def _revert(self, plan: Plan) -> str:
        """Move traffic back on every host; return what is doubtful about it.

        A release that served well before and does not answer well now is doubtful,
        but better than the one that was just found bad: something that both need,
        the database perhaps, is not well.

        Raises:
            StepFailed: there was a release before, and no host has it or an older one
                any more; what was found bad goes on serving, as nothing else could.
        """
        doubts = []
        budget = self.environment.budget
        world = self.target.observe()
        # A host that was at this release before us is not ours to move.
        moved = {step.host for step in plan.steps if step.verb == SWITCH}
        ours = {*plan.hosts} if plan.op.startswith("recover") else moved
        behind = [plan.previous, *reversed(world.history.traffic)]
        behind = [number for number in behind if number != plan.release]
        fits = {host.name: _fit(host, behind) for host in world.reached}
        there = [host.name for host in world.reached if host.current == plan.release]
        stuck = plan.previous is not None and not any(fits.values())
        if stuck and {*there} & ours:
            raise StepFailed(
                f"no host can run v{plan.previous} or an older release any more",
                where="; ".join(there),
            )
        for host in reversed(world.hosts):
            if host.unreachable and host.name in ours:
                doubts.append(f", but {host.name} can't be reached: {host.unreachable}")
            if host.current != plan.release or host.name not in ours:
                continue
            fit = fits[host.name]
            if not fit:
                self.target.act(host.name, "switch", number=None)
                continue
            slot = host.slot(fit[0])
            if slot is None or not slot.alive or slot.stale:
                timeout = float(budget.boot)
                self.target.act(host.name, "boot", number=fit[0], timeout=timeout)
            self.target.act(host.name, "switch", number=fit[0])
            step = Step("gate", host.name, "", fit[0], float(budget.gate))
            try:
                self._gate(step)
            except GateFailed as doubt:
                doubts.append(f", but: {doubt.what}")
        return "".join(doubts)

    def _stop_new(self, plan: Plan) -> str:
        """End what this run has started; return where that is doubtful.

        A deploy's own release ends on every host. An older one stood by, or served a
        host that drifted, before we came: it ends only where we have started it. One
        that goes on running has no traffic: the next deploy ends it.
        """
        doubts = []
        new = plan.op.endswith("deploy")
        for host in sorted({step.host for step in plan.steps} if new else self.booted):
            budget = float(self.environment.budget.stop)
            try:
                self.target.act(host, "stop", number=plan.release, timeout=budget)
            except Locked:
                raise
            except (OpsError, OSError) as error:
                doubts.append(f", but v{plan.release} may still run on {host}: {error}")
        return "".join(doubts)

    def _stops_new(self, plan: Plan) -> bool:
        """Say whether the release of this plan must not go on running."""
        if plan.op == "converge":
            return bool(self.booted)
        if plan.release is None or plan.release == plan.previous:
            return False
        if plan.op == "rollback":
            return bool(self.booted)
        return plan.op.endswith("deploy")

    def _serves(self) -> str:
        """Say what has traffic now, from what is seen and not from the plan."""
        said: dict[str, list[str]] = {}
        for host in self.target.observe().hosts:
            slot = host.slot(host.current)
            if host.unreachable:
                found = "can't be reached"
            elif slot is None or not slot.alive:
                found = "nothing serves now"
            else:
                door = "" if host.front.pid else ", behind a closed front door"
                found = f"v{slot.number} serves{door}"
            said.setdefault(found, []).append(host.name)
        if len(said) == 1:
            return next(iter(said))
        return "; ".join(f"{', '.join(names)}: {text}" for text, names in said.items())

    # Telling ---------------------------------------------------------------------

    def _facts(self, plan: Plan) -> dict[str, Any]:
        facts: dict[str, Any] = {"by": self.by, "previous": plan.previous}
        facts |= self.granted
        if self.because:
            facts["reason"] = self.because
        if self.shipment:
            facts["artefact"] = self.shipment.release.artefact
            facts["commit"] = self.shipment.release.commit
            facts["record"] = record_digest(self.shipment.release.as_json())
        return facts

    def _record(
        self,
        plan: Plan,
        phase: str,
        step: Step | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        event: dict[str, Any] = {
            "run": self.id,
            "op": plan.op,
            "phase": phase,
            "at": round(time.time(), 3),
            "release": plan.release,
        }
        if step:
            event.update(step=step.verb, host=step.host, release=step.release)
        if facts:
            event["facts"] = dict(facts)
        with self._writing:
            self.target.record(event)

    def _note(self, plan: Plan, phase: str, step: Step, facts: dict[str, Any]) -> None:
        """Record a failure if that is possible: a full disk must not stop a revert."""
        try:
            self._record(plan, phase, step, facts)
            self.target.settle()
        except (OpsError, OSError) as error:
            report.say(f"  the journal could not be written: {error}", "yellow")

    def _note_end(self, plan: Plan, outcome: str, reason: str) -> None:
        try:
            facts = {"outcome": outcome, "reason": reason.splitlines()[0]}
            self._record(plan, "end", facts=facts)
            self.target.settle()
        except (OpsError, OSError) as error:
            report.say(f"  the journal could not be written: {error}", "yellow")

    def _tell(self, step: Step, state: str, text: str, took: float) -> None:
        said = {"step": step.verb, "host": step.host, "state": state, "seconds": took}
        self.steps.append(said)
        where = f"{step.host}: " if self._many else ""
        report.step(state, step.verb, where + text, took)


def recover(target: Target, environment: Environment, by: str) -> World:
    """Finish what a dead deployer left open, and return the world as it is then.

    Called with the lease held, before anything else is decided. A gate that says no
    here leads back to the release that served before, which is a recovery, not an
    error of the command that found it.
    """
    for _ in range(3):
        world = target.observe()
        for host, lines in target.catch_up().items():
            # Before anything else is written there: then no later line is without them.
            report.step("ok", "catch up", f"{host}: {lines} lines of the journal")
        plan = plan_recover(world, environment)
        if plan is None:
            return world
        report.say(f"  {plan.notes[0]}; putting it in order", "yellow")
        rollout = Rollout(target, environment, by)
        if world.history.open:
            rollout.id = world.history.open.id
        try:
            rollout.carry_out(plan)
        except RevertFailed:
            raise
        except OpsError as error:
            report.say(f"  {error.what}", "yellow")
        if world.history.open is None:
            # Only the balancers: what they don't obey stops nobody.
            return target.observe()
    raise RevertFailed(
        "an unfinished run could not be finished",
        where=environment.name,
        next=f"inv status --env {environment.name}",
    )


def _until_yes(
    probes: tuple[probe.Probe, ...],
    ask: Callable[[Sequence[Request]], list[Answer]],
    step: Step,
    in_a_row: int = 1,
) -> tuple[dict[str, Any], list[Answer]]:
    """Ask until every probe says yes `in_a_row` times, or the budget is spent.

    Returns facts for the journal, and the last answers. Rounds that are still missing
    are asked for at once: a host may be far away.
    """
    until = time.monotonic() + step.budget
    requests = [each.request for each in probes]
    yes = rounds = 0
    while True:
        answers = ask(requests * (in_a_row - yes))
        for first in range(0, len(answers), len(probes)):
            round_ = answers[first : first + len(probes)]
            rounds += 1
            problem = probe.worst(probes, round_)
            yes = 0 if problem else yes + 1
        if yes >= in_a_row:
            slowest = max(answer.seconds for answer in answers)
            return {"rounds": rounds, "slowest": round(slowest, 4)}, round_
        if time.monotonic() >= until:
            raise GateFailed(
                f"{step.verb} of v{step.release} said no: {problem}",
                where=step.host,
                detail=f"asked {rounds} times in {step.budget:g} s",
                next=f"inv logs --release v{step.release}",
            )
        if problem:
            time.sleep(_PAUSE)


_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def signals_interrupt() -> AbstractContextManager[None]:
    """Make SIGTERM and a lost terminal end a command the way Ctrl-C does, once.

    Whoever hits Ctrl-C twice would interrupt what puts traffic back, or the very line
    that guards it.
    """
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            raise KeyboardInterrupt

    return _signals(_ENDING, interrupt)


def signals_wait() -> AbstractContextManager[None]:
    """Let a revert finish: a second Ctrl-C must not leave traffic nowhere.

    A handler, not SIG_IGN: what is ignored would be ignored by a release booted here.
    """
    return _signals(_ENDING, lambda *_: None)


@contextmanager
def _signals(
    numbers: Sequence[signal.Signals], handler: Callable[..., None]
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        # Whoever runs us there owns the signals.
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    # One that is ignored (nohup) stays so.
    mine = [number for number in numbers if before[number] is not signal.SIG_IGN]
    for number in mine:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, before[number])


def _fit(host: Host, behind: Sequence[int | None]) -> list[int]:
    """Return those of some releases that a host can give traffic to, in their order.

    One that runs has its code in memory: it is as good as it was, whatever has
    happened to its files.
    """
    slots = [host.slot(number) for number in behind]
    return [
        slot.number
        for slot in slots
        if slot and slot.whole and (slot.alive or not slot.altered)
    ]


def _number(step: Step) -> int:
    if step.release is None:
        raise StepFailed(f"{step.verb} without a release", where=step.host)
    return step.release


def _outcome(plan: Plan) -> str:
    """Return the outcome of a plan that was carried out to its end."""
    if plan.op.startswith("recover") and plan.release is None:
        return "aborted"
    return "good"


def _told(step: Step, facts: Mapping[str, Any]) -> str:
    """Return a finished step's sentence, with what it found out."""
    match step.verb:
        case "install" if facts.get("made"):
            source = "the cache" if facts.get("from_cache") else "the package index"
            return f"{step.text} from {source}"
        case "migrate":
            return _migrated(facts)
        case "gate" if facts.get("asked"):
            return f"{step.text}, then {facts['asked']} pages and callbacks"
        case "smoke":
            return f"{step.text}: {facts['asked']} questions, all answered"
        case "reload":
            late = f", {facts['busy']} old still busy" if facts["busy"] else ""
            return f"{step.text}: {facts['renewed']} new{late}"
        case "leave" if facts.get("busy"):
            return f"{step.text}: {facts['busy']} still going on"
        case "watch":
            return f"{step.text}: {facts['verdict']}, {facts['said']}"
        case "front":
            return f"open the front door on port {facts['port']}"
    return step.text


def _migrated(facts: Mapping[str, Any]) -> str:
    parts = []
    if facts.get("backup"):
        parts.append(f"backed up to {facts['backup']}")
    applied = facts.get("applied") or ()
    if applied:
        parts.append(f"applied {', '.join(applied)}")
    if facts.get("ingested"):
        parts.append(f"put {facts['ingested']:,} sample bars in")
    kind = facts.get("database", "database")
    return f"{kind}: {'; '.join(parts) or 'schema is current, nothing to do'}"
