"""What a rollout does when it is told no: by a watched release, by a newer holder."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from ops import delivery, promotion
from ops.command import Answer, Request
from ops.errors import GateFailed, Locked, StepFailed
from ops.plan import Plan, Step
from ops.release import Release
from ops.rollout import Rollout, signals_interrupt
from ops.world import World
from tests.ops import worlds

WATCH = Step("watch", "one", "", 3, 0.2)


class Host:
    """A host whose release answers each round of questions as it is told to."""

    def __init__(self, ready: Sequence[int]) -> None:
        self.ready = list(ready)

    def record_of(self, host: str, number: int) -> Release:
        return worlds.release(number)

    def ask(self, host: str, number: int, requests: Sequence[Request]) -> list[Answer]:
        said = {"release": f"v{number}", "artefact": worlds.release(number).artefact}
        bodies = {"/version": json.dumps(said).encode()}
        ready = 200
        if any(request.path == "/readyz" for request in requests):
            ready = self.ready.pop(0) if len(self.ready) > 1 else self.ready[0]
        return [
            Answer(
                ready if request.path == "/readyz" else 200,
                {},
                bodies.get(request.path, b""),
            )
            for request in requests
        ]


def watched(*ready: int) -> dict:
    return Rollout(Host(ready), worlds.ENVIRONMENT, "ann")._watch(WATCH)


def test_a_release_that_does_not_stay_ready_is_put_back() -> None:
    with pytest.raises(GateFailed, match="GET /readyz.*2 times in a row"):
        watched(200, 503)


def test_a_release_that_was_not_ready_once_stays() -> None:
    assert watched(503, 200)["verdict"] == "INCONCLUSIVE"


class Taken:
    """A host that a newer holder has taken over; it lets nobody look who wants it."""

    held = True

    def record(self, event: dict[str, Any]) -> None:
        raise Locked("epoch 3 is over")

    def settle(self) -> None:
        """Nothing is under way."""

    def release(self) -> None:
        self.held = False

    def observe(self) -> World:
        if self.held:
            raise Locked("somebody else has acted here")
        return worlds.world({"current": 4, "slots": {"4": "alive a"}})


def test_who_was_replaced_meanwhile_says_so_and_puts_nothing_back() -> None:
    """The campaign found it: a woken deployer called for a rollback, with code 5."""
    rollout = Rollout(Taken(), worlds.ENVIRONMENT, "ann", moved=True)
    plan = Plan("deploy", "local", (), 3, 2)
    with pytest.raises(Locked, match="another holder has taken over") as told:
        rollout._put_back(plan, StepFailed("smoke could not be done"))
    assert told.value.code == 3
    assert told.value.next == "inv status --env local"


class Lost:
    """Two hosts of which one is lost as soon as the new release is staged."""

    def __init__(self) -> None:
        self.ended: list[dict[str, Any]] = []

    def record(self, event: dict[str, Any]) -> None:
        if event["phase"] == "end":
            self.ended.append(event["facts"])

    def act(self, host: str, verb: str, **_: Any) -> dict[str, Any]:
        if host == "two" or verb == "boot":
            raise StepFailed(f"{verb} could not be done: its lease is not held")
        return {}

    def settle(self) -> None:
        """Nothing is on its way."""

    def observe(self) -> World:
        said = {"current": 1, "slots": {"1": "alive a"}, "front": 80}
        return worlds.world({**said, "hosts": [{"name": "one"}, {"name": "two"}]})


def test_a_new_release_that_cant_be_ended_is_no_failed_revert() -> None:
    steps = (Step("boot", "one", "", 2, stage=0), Step("boot", "two", "", 2, stage=1))
    target = Lost()
    with pytest.raises(StepFailed) as failed:
        Rollout(target, worlds.ENVIRONMENT, "ann").carry_out(
            Plan("deploy", "staging", steps, 2, 1)
        )
    assert "v1 serves, but v2 may still run on two: stop could" in failed.value.what
    assert failed.value.code == 1
    assert target.ended[0]["outcome"] == "aborted"


class Done:
    """A host on which all is as asked; whoever asks again is interrupted meanwhile."""

    def __init__(self) -> None:
        self.looked = 0

    def reach(self) -> None:
        """It is here."""

    def take(self, *_: Any, **__: Any) -> None:
        """Nobody else is at it."""

    def release(self) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Nothing is open."""

    def url(self) -> str:
        return "http://127.0.0.1:8050/"

    def observe(self) -> World:
        self.looked += 1
        if self.looked == 3:
            signal.raise_signal(signal.SIGINT)
        said = {"slots": {"1": "alive a"}, "traffic": [1], "standing": {"1": "good"}}
        return worlds.world({"current": 1, "front": 8050, **said})


def test_who_interrupts_what_is_done_is_told_that_it_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The campaign found it: exit code 130 of a rollback that had moved traffic."""
    monkeypatch.setattr(delivery, "open_target", lambda _: Done())
    monkeypatch.setattr(delivery, "recover", lambda target, *_: target.observe())
    monkeypatch.setattr(delivery, "settle", lambda target, _: target.observe())
    monkeypatch.setattr(promotion, "note", lambda *_: None)
    delivery.rollback("local", to="v1")
    assert "v1 serves http://127.0.0.1:8050/" in capsys.readouterr().err


class Fleet:
    """Three hosts on v2; v1 has to be booted on one, and is what another drifted to."""

    def __init__(self) -> None:
        self.stopped: list[tuple[str, Any]] = []

    def record(self, event: dict[str, Any]) -> None:
        """Nobody reads it."""

    def settle(self) -> None:
        """Nothing is on its way."""

    def act(self, host: str, verb: str, **said: Any) -> dict[str, Any]:
        if verb == "stop":
            self.stopped.append((host, said["number"]))
        return {}

    def record_of(self, host: str, number: int) -> Release:
        raise StepFailed("it does not answer")

    def observe(self) -> World:
        names = ("cold", "warm", "drifted")
        said = {"current": 2, "slots": {"1": "alive a", "2": "alive b"}, "front": 80}
        hosts = [{"name": name} for name in names[:2]]
        drifted = {"name": "drifted", "current": 1}
        return worlds.world({**said, "hosts": [*hosts, drifted]})


def test_a_rollback_that_fails_ends_only_what_it_has_started() -> None:
    steps = (
        Step("boot", "cold", "", 1),
        *(Step("gate", host, "", 1, stage=1) for host in ("cold", "warm", "drifted")),
    )
    target = Fleet()
    with pytest.raises(StepFailed, match="does not answer"):
        Rollout(target, worlds.ENVIRONMENT, "ann").carry_out(
            Plan("rollback", "staging", steps, 1, 2)
        )
    assert target.stopped == [("cold", 1)]


class Gone:
    """Two hosts of which one is lost after all traffic has moved, before pruning."""

    def __init__(self) -> None:
        self.ended: list[dict[str, Any]] = []

    def record(self, event: dict[str, Any]) -> None:
        if event["phase"] == "end":
            self.ended.append(event["facts"])

    def act(self, host: str, verb: str, **_: Any) -> dict[str, Any]:
        return {}

    def settle(self) -> None:
        """Nothing is on its way."""

    def observe(self) -> World:
        said = {"current": 2, "slots": {"2": "alive a"}, "front": 80}
        away = {"name": "two", "unreachable": "no connection"}
        return worlds.world({**said, "hosts": [{"name": "one"}, away]})


def test_a_host_that_is_lost_before_pruning_puts_nothing_back() -> None:
    """The campaign found it: a trace, and traffic went back from a good release."""
    steps = tuple(Step("prune", host, "", optional=True) for host in ("one", "two"))
    target = Gone()
    rollout = Rollout(target, worlds.ENVIRONMENT, "ann", moved=True)
    assert rollout.carry_out(Plan("deploy", "staging", steps, 2, 1)) == "good"
    assert [each["outcome"] for each in target.ended] == ["good"]


@pytest.fixture
def listening() -> Iterator[None]:
    """Ctrl-C interrupts, also where a shell in the background made it deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_only_the_first_ctrl_c_interrupts(listening: None) -> None:
    """The campaign found it: the second one came before traffic was put back."""
    with signals_interrupt():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(number)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
