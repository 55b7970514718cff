"""What serves: desired against actual, host by host, and the last runs."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from ops import probe, report
from ops.command import Request
from ops.delivery import load
from ops.environment import Environment
from ops.errors import StepFailed
from ops.lease import describe
from ops.targets import open_target
from ops.targets.target import Target
from ops.world import Host, World

LAST = 8


def show(name: str, *, as_json: bool = False) -> None:
    """Say what serves, since when, by whom, what stands by, and the last runs.

    Raises:
        StepFailed: what should serve does not.
    """
    environment = load(name)
    target = open_target(environment)
    world = target.observe()
    found = look(environment, target, world)
    if as_json:
        report.as_json(found)
    else:
        _print(environment, world, found)
    if found["current"] and found["problem"]:
        raise StepFailed(
            f"{found['current']} should serve and does not: {found['problem']}",
            where=found["url"],
            next=f"inv up --env {environment.name}",
        )


def look(environment: Environment, target: Target, world: World) -> dict[str, Any]:
    """Return all that is known of an environment, as JSON values."""
    release = world.record(world.current)
    problem, checks = _asked(target, world)
    hosts = [_host(host, world) for host in world.hosts]
    holder, left = target.holder(), world.history.open
    return {
        "environment": environment.name,
        "url": target.url(),
        "current": _named(world.current),
        "healthy": world.current is not None and not problem,
        "problem": problem,
        "checks": checks,
        "release": dataclasses.asdict(release) if release else None,
        "processes": [pid for host in hosts for pid in host["processes"]],
        "standby": sorted({name for host in hosts for name in host["standby"]}),
        "kept": hosts[0]["kept"] if hosts else [],
        "hosts": hosts,
        "lease": holder,
        "unfinished": left.id if left and not holder else None,
        "torn_journal_lines": world.history.torn,
        "state": str(environment.state),
        "runs": [dataclasses.asdict(run) for run in world.history.runs[-LAST:]],
    }


def _asked(target: Target, world: World) -> tuple[str, dict[str, bool]]:
    """Return what is wrong with what serves, "" for nothing, and its own checks."""
    if world.current is None:
        return "", {}
    for host in world.reached:
        if host.current != world.current:
            return f"{host.name} has {_named(host.current) or 'nothing'}", {}
        if host.front.pid is None:
            return "the front door is closed", {}
    record = world.record(world.current)
    wanted = record.artefact if record else ""
    probes = probe.gate(f"v{world.current}", wanted)
    problem = probe.worst(probes, target.ask_front([each.request for each in probes]))
    said = probe.parsed(target.ask_front([Request("GET", "/health")])[0])
    return problem, (said or {}).get("checks", {})


def _host(host: Host, world: World) -> dict[str, Any]:
    slot = host.slot(host.current)
    return {
        "name": host.name,
        "unreachable": host.unreachable,
        "current": _named(host.current),
        "behind": host.behind,
        "drift": not host.unreachable and host.current != world.current,
        "alive": bool(slot and slot.alive),
        "processes": list(slot.processes) if slot else [],
        "standby": [
            f"v{each.number}"
            for each in host.slots
            if each.alive and each.number != host.current
        ],
        "kept": [f"v{each.number}" for each in host.slots if each.whole],
        "front": {
            "pid": host.front.pid,
            "port": host.front.port,
            "outdated": host.front.stale,
        },
        "free_disk_mib": host.free_disk,
    }


def _named(number: int | None) -> str | None:
    return None if number is None else f"v{number}"


def _print(environment: Environment, world: World, found: dict[str, Any]) -> None:
    release = found["release"]
    report.data(report.colour(f"{environment.name}  {found['url']}", "bold"))
    rows = []
    if release is None:
        rows.append(("serves", f"nothing; inv deploy --env {environment.name}"))
    else:
        state = "healthy" if found["healthy"] else found["problem"]
        dirty = " with changes that were not committed" if release["dirty"] else ""
        rows.append(("serves", f"{found['current']}  {state}"))
        rows.append(("commit", f"{release['commit'][:9]}{dirty}"))
        rows.append(("artefact", release["artefact"][:12]))
        rows.append(("made", f"{when(release['at'])} by {release['by']}"))
    checks = ", ".join(
        f"{name} {'ok' if fine else 'FAILS'}" for name, fine in found["checks"].items()
    )
    rows.append(("checks", checks or "none answered"))
    rows.append(("standby", ", ".join(found["standby"]) or "none"))
    rows.append(("kept", ", ".join(found["kept"]) or "none"))
    if any(host["front"]["outdated"] for host in found["hosts"]):
        rows.append(("door", "of an older checkout; inv down, inv up renews it"))
    rows.append(("lease", describe(found["lease"])))
    if found["unfinished"]:
        rows.append(("left", f"run {found['unfinished']}; the next act finishes it"))
    if len(found["hosts"]) == 1:
        rows.append(("state", found["state"]))
    report.data(report.table(rows))
    if len(found["hosts"]) > 1:
        report.data("")
        report.data(report.table(_host_rows(found["hosts"]), _HOST_HEAD, right=(4,)))
    if world.history.runs:
        report.data("")
        report.data(report.table(_run_rows(world), _RUN_HEAD))


_HOST_HEAD = ("host", "serves", "state", "standby", "free MiB")
_RUN_HEAD = ("when", "what", "how", "took", "by")


def _host_rows(hosts: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    rows = []
    for host in hosts:
        if host["unreachable"]:
            rows.append((host["name"], "?", host["unreachable"], "", ""))
            continue
        state = "up" if host["alive"] else "DOWN"
        if host["drift"]:
            state += ", drifted"
        if host["behind"]:
            state += f", lacks {host['behind']} lines of the journal"
        standby = ", ".join(host["standby"])
        free = f"{host['free_disk_mib']:,}"
        rows.append((host["name"], host["current"] or "nothing", state, standby, free))
    return rows


def _run_rows(world: World) -> list[tuple[str, ...]]:
    rows = []
    for run in world.history.runs[-LAST:]:
        what = f"{run.op} v{run.release}" if run.release else run.op
        took = report.seconds(run.seconds) if run.outcome else ""
        rows.append((when(run.began), what, run.outcome or "open", took, run.by))
    return rows


def when(at: float) -> str:
    """Return a moment (seconds since the epoch) in this machine's time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
