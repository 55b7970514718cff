"""Small worlds for tests of decisions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ops.environment import Budget, Environment, Web
from ops.history import History, Run, Took
from ops.release import Release, Schema
from ops.world import Balancer, Front, Host, Server, Slot, World

ENVIRONMENT = Environment(
    name="local",
    target="local",
    port=8050,
    gates=("quality",),
    dirty=True,
    approval=False,
    keep=2,
    seed="",
    web=Web(workers=1, threads=2),
    budget=Budget(
        environment=60,
        migrate=60,
        boot=20,
        gate=3,
        smoke=5,
        watch=0,
        stop=5,
        free_disk=500,
    ),
    batch=0,
    max_unavailable=0,
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


def schema(said: list[str] | None) -> Schema | None:
    """Return the schema in ["0002", "0001", "0099"]: head, oldest, newest."""
    return Schema(*said) if said else None


def with_schema(found: Slot, said: list[str] | None) -> Slot:
    return replace(found, release=replace(found.release, schema=schema(said)))


def host(said: dict[str, Any]) -> Host:
    """Return the host that a case describes.

    "schemas" holds what releases work on, "altered" what is wrong with one on the disk,
    "stale" the secrets that were rotated since one was started.
    """
    secrets = tuple(said.get("secrets", ()))
    schemas = said.get("schemas", {})
    return Host(
        name=said.get("name", "here"),
        current=said.get("current"),
        slots=tuple(
            replace(
                with_schema(slot(int(n), text, secrets), schemas.get(n)),
                altered=said.get("altered", {}).get(n, ""),
                stale=tuple(said.get("stale", {}).get(n, ())),
            )
            for n, text in said.get("slots", {}).items()
        ),
        front=Front(900, said["front"]) if said.get("front") else Front(),
        port_holder=said.get("port_holder", ""),
        free_disk=said.get("free_disk", 9000),
        unreachable=said.get("unreachable", ""),
        resting=said.get("resting", False),
    )


def balancer(said: dict[str, Any]) -> Balancer:
    """Return a balancer from {"a": "ready 100", "b": "drain 100"}: state and weight."""
    words = {name: text.split() for name, text in said.get("servers", {}).items()}
    servers = [Server(n, state, True, int(w)) for n, (state, w) in words.items()]
    return Balancer("lb", tuple(servers), said.get("unreachable", ""))


def world(said: dict[str, Any]) -> World:
    """Return the world that a case describes: one host, or those under "hosts"."""
    hosts = [host({**said, **each}) for each in said.get("hosts", [{}])]
    left = said.get("open")
    run = (
        Run("r1", left["op"], left["release"], left["previous"], 0.0) if left else None
    )
    if run:
        done = tuple(Took(name, 0.1, "done") for name in left.get("steps", ()))
        run = replace(run, steps=done)
    history = History(
        runs=(run,) if run else (),
        standing={int(n): text for n, text in said.get("standing", {}).items()},
        traffic=tuple(said.get("traffic", ())),
        open=run,
        schema=said.get("schema", ""),
    )
    balancers = tuple(balancer(each) for each in said.get("balancers", ()))
    return World("local", tuple(hosts), history, balancers)
