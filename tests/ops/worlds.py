"""Small worlds for tests of decisions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ops.environment import Budget, Environment, Web
from ops.history import History, Run
from ops.release import Release
from ops.world import Front, Host, Slot, World

ENVIRONMENT = Environment(
    name="local",
    target="local",
    port=8050,
    gates=("quality",),
    dirty=True,
    keep=2,
    seed="",
    web=Web(workers=1, threads=2),
    budget=Budget(
        environment=60, migrate=60, boot=20, gate=3, smoke=5, stop=5, free_disk=500
    ),
    pages=("/",),
    config={},
    from_environment=(),
)


def release(number: int, artefact: str = "a") -> Release:
    return Release(
        number, artefact, "c" * 40, False, "config", "env", "cpython", "ann@laptop", 0.0
    )


def slot(number: int, said: str, secrets: tuple[str, ...] = ()) -> Slot:
    """Return a slot from "alive b", "ending b", "dead b": state and artefact."""
    state, _, artefact = said.partition(" ")
    whole = replace(release(number, artefact), secrets=secrets)
    pids = (1000 + number,) if state in ("alive", "ending") else ()
    return Slot(number, whole, pids[0] if pids else None, pids, state == "alive")


def world(said: dict[str, Any]) -> World:
    """Return the world that a case describes."""
    front = Front(900, said["front"]) if said.get("front") else Front()
    secrets = tuple(said.get("secrets", ()))
    host = Host(
        name="here",
        current=said["current"],
        slots=tuple(slot(int(n), text, secrets) for n, text in said["slots"].items()),
        front=front,
        port_holder=said.get("port_holder", ""),
        free_disk=said.get("free_disk", 9000),
    )
    left = said.get("open")
    run = (
        Run("r1", left["op"], left["release"], left["previous"], 0.0) if left else None
    )
    history = History(
        runs=(run,) if run else (),
        standing={int(n): text for n, text in said.get("standing", {}).items()},
        traffic=tuple(said.get("traffic", ())),
        open=run,
    )
    return World("local", (host,), history)
