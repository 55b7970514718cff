"""What serves: desired against actual, host by host, and the last runs."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

from ops import environment as environments
from ops import probe, report
from ops.alerts import firing
from ops.command import Answer, Request
from ops.delivery import load
from ops.environment import Environment
from ops.errors import OpsError, Refused, StepFailed, Usage, aimed
from ops.history import Run
from ops.lease import describe
from ops.targets import open_target
from ops.targets.target import Target
from ops.world import Host, World

LAST = 8
_TOLD = (Request("GET", "/health"), Request("GET", "/provenance"))
# Seconds: as long as a host has to take our call.
_PATIENT = 4.0


def show(name: str, *, as_json: bool = False) -> None:
    """Say what serves, since when, by whom, what stands by, and the last runs.

    Raises:
        StepFailed: what should serve does not.
    """
    environment = load(name)
    target = open_target(environment)
    with closing(target):
        world, found = _observed(environment, target)
    if as_json:
        report.as_json(found)
    else:
        _print(environment, world, found)
    _raise(found)


def show_all(*, as_json: bool = False) -> None:
    """Say of every environment whether it is well, those without hosts among them.

    Raises:
        StepFailed: one that something is deployed on is not well.
    """
    names = environments.names()
    with ThreadPoolExecutor(len(names)) as pool:
        found = dict(zip(names, pool.map(_glance, names), strict=True))
    if as_json:
        report.as_json({"environments": found})
    else:
        rows = [_glance_row(name, each) for name, each in found.items()]
        head = ("environment", "serves", "since", "by", "hosts", "verdict")
        report.data_table(rows, head, tones=_tones(found))
    ill = [name for name, each in found.items() if each["verdict"] in ILL]
    if ill:
        raise StepFailed(
            f"not well: {', '.join(ill)}", next=f"inv status --env {ill[0]}"
        )


def _glance(name: str) -> dict[str, Any]:
    """Return what is known of one environment; what can't be asked is an answer too."""
    try:
        environment = load(name)
        with closing(open_target(environment)) as target:
            return _observed(environment, target)[1]
    except Usage as error:
        return {"verdict": "not set up", "said": error.what}
    except OpsError as error:
        return {"verdict": "unknown", "said": error.what}


def _raise(found: Mapping[str, Any]) -> None:
    """End with 1 where all is not well."""
    name = found["environment"]
    away = any(host["unreachable"] for host in found["hosts"])
    if found["verdict"] == "nothing":
        raise Refused(found["said"], next=f"inv deploy --env {name}")
    if found["verdict"] == "down":
        raise StepFailed(
            f"{found['current']} should serve and does not: {found['said']}",
            where=found["url"],
            next=f"inv {'doctor' if away else 'up'} --env {name}",
        )
    if found["verdict"] == "degraded":
        late = any(host["drift"] or host["behind"] for host in found["hosts"])
        mends = "up" if late else "doctor"
        raise StepFailed(
            found["said"], where=found["url"], next=f"inv {mends} --env {name}"
        )


ILL = ("down", "degraded", "unknown")
_SIGNS = {"healthy": "ok", "maintenance": "warned", "nothing": "skipped"}


def judge(found: Mapping[str, Any]) -> tuple[str, str]:
    """Return the verdict and its sentence, from what `look` found. Pure.

    nothing: never deployed. down: what should serve does not answer as it should.
    degraded: users are served, and something is not as it should be. maintenance:
    people get the page, and all else is well. healthy.
    """
    if found["current"] is None:
        return "nothing", f"nothing is deployed on {found['environment']}"
    hosts = found["hosts"]
    wrong = [f"{each['name']} is out of reach" for each in hosts if each["unreachable"]]
    if found["problem"]:
        return "down", "; ".join((found["problem"], *wrong))
    for host in hosts:
        if not host["unreachable"] and not host["alive"]:
            wrong.append(f"nothing serves on {host['name']}")
        if host["drift"]:
            wrong.append(f"{host['name']} serves {host['current'] or 'nothing'}")
        # Whoever acts now is about to tell it, or has just told it and not the others.
        if host["behind"] and not found["lease"]:
            wrong.append(f"{host['name']} lacks {host['behind']} lines of the journal")
        if host["shut"] != bool(found["maintenance"]) and not host["unreachable"]:
            said = "shows the maintenance page" if host["shut"] else "lets people in"
            wrong.append(f"{host['name']} {said}")
    wrong += _unbalanced(found)
    # A warning is for working hours; of a critical one somebody has been called.
    wrong += [f"{a} fires" for a in found["alerts"] if a.startswith("critical")]
    failing = [name for name, fine in found["checks"].items() if not fine]
    wrong += [f"its check {name} fails" for name in failing]
    if found["unfinished"]:
        wrong.append(f"run {found['unfinished']} was left unfinished")
    if found["torn_journal_lines"]:
        wrong.append(f"{found['torn_journal_lines']} lines of the journal are damaged")
    serves = f"{found['current']} serves"
    if wrong:
        return "degraded", f"{serves}, but {'; '.join(wrong)}"
    if found["maintenance"]:
        return "maintenance", f"{serves} behind the maintenance page"
    many = f" on {len(hosts)} hosts" if len(hosts) > 1 else ""
    return "healthy", f"{serves}{many}"


def _unbalanced(found: Mapping[str, Any]) -> list[str]:
    """Return what is wrong about balancers and who is in their rotation.

    Not while somebody acts, nor about what a person has put into maintenance there.
    """
    wrong = [
        f"balancer {name} is out of reach"
        for name, said in found["balancers"].items()
        if said != "ok"
    ]
    for host in found["hosts"] if not found["lease"] else ():
        for name, server in host["rotation"].items():
            if server["state"] == "drain":
                wrong.append(f"{host['name']} has left balancer {name}")
            elif server["state"] == "ready" and not server["up"] and host["alive"]:
                wrong.append(f"{host['name']} is not ready for balancer {name}")
            if server["weight"] != server["usual"]:
                share = f"weight {server['weight']}, usually {server['usual']}"
                wrong.append(f"{host['name']} has {share} at balancer {name}")
    return wrong


def _observed(environment: Environment, target: Target) -> tuple[World, dict[str, Any]]:
    """Look at the hosts, and meanwhile ask what people reach: either may be gone."""
    if environment.fleet is None:
        # Somebody else may have the port; it is asked where the door is ours.
        world = target.observe()
        return world, look(environment, target, world)
    with ThreadPoolExecutor(1) as beside:
        answers = beside.submit(_front, target)
        world = target.observe()
        return world, look(environment, target, world, answers.result())


def _front(target: Target) -> dict[str, Answer]:
    """Return what the address that people type answers, by path."""
    found: dict[str, Answer] = {}
    for request in (*(each.request for each in probe.gate("", "")), *_TOLD):
        asked = replace(request, timeout=_PATIENT)
        found[request.path] = target.ask_front([asked])[0]
        if not found[request.path].status:
            # Who is gone is waited for once.
            break
    return found


def look(
    environment: Environment,
    target: Target,
    world: World,
    front: Mapping[str, Answer] | None = None,
) -> dict[str, Any]:
    """Return all that is known of an environment, as JSON values.

    `front`: what the address that people type has answered already, by path.
    """
    release = world.record(world.current)
    problem, checks, bars = _asked(target, world, front or {})
    hosts = [_host(host, world) for host in world.hosts]
    holder, left = target.holder(), world.history.open
    closure, came = world.history.closure, world.history.arrival(world.current)
    found = {
        "environment": environment.name,
        "url": target.url(),
        "current": _named(world.current),
        "problem": problem,
        "checks": checks,
        "data": bars,
        "release": dataclasses.asdict(release) if release else None,
        "balancers": {each.name: each.unreachable or "ok" for each in world.balancers},
        "processes": [pid for host in hosts for pid in host["processes"]],
        "standby": sorted({name for host in hosts for name in host["standby"]}),
        "kept": next((h["kept"] for h in hosts if not h["unreachable"]), []),
        "hosts": hosts,
        "alerts": _alerts(environment, world),
        "lease": holder,
        "unfinished": left.id if left and not holder else None,
        "torn_journal_lines": world.history.torn,
        "state": _state(environment),
        "traffic": _traffic(came),
        "maintenance": dataclasses.asdict(closure) if closure else None,
        "runs": [dataclasses.asdict(run) for run in world.history.runs[-LAST:]],
    }
    verdict, said = judge(found)
    healthy = verdict in ("healthy", "maintenance")
    return {**found, "verdict": verdict, "said": said, "healthy": healthy}


def _alerts(environment: Environment, world: World) -> list[str]:
    """Return the alerts that fire, by the hosts and by a monitor of this machine."""
    many = len(world.hosts) > 1
    found = [
        f"{text} on {host.name}" if many else text
        for host in world.hosts
        for text in host.firing
    ]
    if (environment.state / "monitor").is_dir():
        from ops.alerts import monitor

        found += monitor.alerts(environment)
    return list(firing.told(found))


def _traffic(run: Run | None) -> dict[str, Any] | None:
    """Return since when what serves has traffic, and who gave it that."""
    if run is None:
        return None
    since = round(run.began + run.seconds, 3)
    return {"since": since, "by": run.by, "op": run.op, "run": run.id}


def _state(environment: Environment) -> str:
    """Return the folder that holds the environment: here, or on each host."""
    fleet = environment.fleet
    return f"~/{fleet.root}" if fleet else str(environment.state)


def _asked(
    target: Target, world: World, front: Mapping[str, Answer]
) -> tuple[str, dict[str, bool], tuple[str, ...]]:
    """Return what is wrong with what serves, its own checks, whence it has its bars.

    "" for nothing wrong; no sources from a release that does not tell them.
    """
    if world.current is None:
        return "", {}, ()
    for host in world.reached:
        if host.front.pid is None:
            return "the front door is closed", {}, ()

    def ask(request: Request) -> Answer:
        if world.drifted:
            # What people reach may be a host that serves something else.
            return target.ask_door(world.serving[0].name, [request])[0]
        return front.get(request.path) or target.ask_front([request])[0]

    record = world.record(world.current)
    wanted = record.artefact if record else ""
    probes = probe.gate(f"v{world.current}", wanted)
    for each in probes:
        # One after the other: a host that is gone is waited for once.
        problem = probe.worst([each], [ask(each.request)])
        if problem:
            return problem, {}, ()
    health, told = map(ask, _TOLD)
    checks = (probe.parsed(health) or {}).get("checks", {})
    said = probe.parsed(told) if told.status == 200 else None
    return "", checks, tuple((said or {}).get("sources") or ())


def _host(host: Host, world: World) -> dict[str, Any]:
    slot = host.slot(host.current)
    return {
        "name": host.name,
        "unreachable": host.unreachable,
        "current": _named(host.current),
        "behind": host.behind,
        "artefact": slot.release.artefact if slot and slot.release else None,
        "config": slot.release.config if slot and slot.release else None,
        "shut": host.shut,
        "drift": not host.unreachable and host.current != world.current,
        "alive": bool(slot and slot.alive),
        "processes": list(slot.processes) if slot else [],
        "standby": [
            f"v{each.number}"
            for each in host.slots
            if each.alive and each.number != host.current
        ],
        "kept": [f"v{each.number}" for each in host.slots if each.whole],
        "altered": {f"v{e.number}": e.altered for e in host.slots if e.altered},
        "front": {
            "pid": host.front.pid,
            "port": host.front.port,
            "outdated": host.front.stale,
        },
        "free_disk_mib": host.free_disk,
        "resting": host.resting,
        "rotation": {
            balancer.name: dataclasses.asdict(server)
            for balancer in world.balancers
            for server in balancer.servers
            if server.name == host.name
        },
    }


def _named(number: int | None) -> str | None:
    return None if number is None else f"v{number}"


def _print(environment: Environment, world: World, found: dict[str, Any]) -> None:
    release = found["release"]
    title = f"{environment.name}  {found['url']}"
    report.data(report.colour(title, "bold", stream=sys.stdout))
    sign = report.mark(_SIGNS.get(found["verdict"], "failed"), stream=sys.stdout)
    report.data(f"{sign} {found['verdict']}: {found['said']}")
    rows = []
    if found["traffic"]:
        since = found["traffic"]["since"]
        what = f"{found['traffic']['op']} of {found['traffic']['by']}"
        rows.append(("since", f"{when(since)} ({_ago(since)}), {what}"))
    if release is not None:
        dirty = " with changes that were not committed" if release["dirty"] else ""
        rows.append(("commit", f"{release['commit'][:9]}{dirty}"))
        digests = f"{release['artefact'][:12]}, configuration {release['config'][:8]}"
        rows.append(("artefact", digests))
        rows.append(("made", f"{when(release['at'])} by {release['by']}"))
    if found["maintenance"]:
        rows += _maintenance_rows(found["maintenance"], environment.name)
    checks = ", ".join(
        f"{name} {'ok' if fine else 'FAILS'}" for name, fine in found["checks"].items()
    )
    rows.append(("checks", checks or "none answered"))
    if found["alerts"]:
        rows.append(("ALERTS", "; ".join(found["alerts"])))
    if found["data"]:
        rows.append(("data", "; ".join(found["data"])))
    rows.append(("standby", ", ".join(found["standby"]) or "none"))
    rows.append(("kept", ", ".join(found["kept"]) or "none"))
    for host in found["hosts"]:
        for name, what in host["altered"].items():
            mends = aimed("inv deploy", environment.name)
            rows.append(("ALTERED", f"{name} on {host['name']}: {what}; {mends}"))
    if any(host["front"]["outdated"] for host in found["hosts"]):
        rows.append(("door", "of an older checkout; inv down, inv up renews it"))
    rows.append(("lease", describe(found["lease"])))
    if world.history.runs and world.history.runs[-1].reason:
        last = world.history.runs[-1]
        rows.append(("last run", f"{last.op} {last.outcome}: {last.reason}"))
    if found["unfinished"]:
        rows.append(("left", f"run {found['unfinished']}; the next act finishes it"))
    if len(found["hosts"]) == 1:
        rows.append(("state", found["state"]))
    report.data_table(rows)
    if len(found["hosts"]) > 1:
        report.data("")
        head = (*_HOST_HEAD, *found["balancers"])
        report.data_table(_host_rows(found), head, right=(4,))
    if world.history.runs:
        report.data("")
        report.data_table(_run_rows(world), _RUN_HEAD)


_HOST_HEAD = ("host", "serves", "state", "standby", "free MiB")
_RUN_HEAD = ("when", "what", "how", "took", "by")


def _host_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for host in found["hosts"]:
        seen = tuple(
            _seen(host, name, said) for name, said in found["balancers"].items()
        )
        if host["unreachable"]:
            rows.append((host["name"], "?", host["unreachable"], "", "", *seen))
            continue
        state = "up" if host["alive"] else "DOWN"
        if host["drift"]:
            state += ", drifted"
        if host["behind"]:
            state += f", lacks {host['behind']} lines of the journal"
        if host["resting"]:
            state += ", resting"
        standby = ", ".join(host["standby"])
        free = f"{host['free_disk_mib']:,}"
        serves = host["current"] or "nothing"
        rows.append((host["name"], serves, state, standby, free, *seen))
    return rows


def _seen(host: dict[str, Any], balancer: str, said: str) -> str:
    """Return how a balancer sees a host: its part of the sum of weights, or why none.

    A balancer that can't be reached says why.
    """
    if said != "ok":
        return said
    server = host["rotation"].get(balancer)
    if server is None:
        return "not known there"
    if server["state"] != "ready":
        return {"drain": "left", "maint": "in maintenance"}[server["state"]]
    return f"weight {server['weight']}" if server["up"] else "not ready"


def _run_rows(world: World) -> list[tuple[str, ...]]:
    rows = []
    for run in world.history.runs[-LAST:]:
        what = f"{run.op} v{run.release}" if run.release else run.op
        took = report.seconds(run.seconds) if run.outcome else ""
        rows.append((when(run.began), what, run.outcome or "open", took, run.by))
    return rows


def _maintenance_rows(closure: Mapping[str, Any], name: str) -> list[tuple[str, str]]:
    until = closure["until"]
    ends = f", announced until {when(until)}" if until else ""
    late = " (over)" if until and until < time.time() else ""
    return [
        ("page", f"since {when(closure['since'])} by {closure['by']}{ends}{late}"),
        ("", f"people read: {closure['message']}"),
        ("", f"inv maintenance off --env {name}"),
    ]


def _glance_row(name: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    if "current" not in found:
        return (name, "", "", "", "", f"{found['verdict']}: {found['said']}")
    came = found["traffic"] or {}
    well = [host for host in found["hosts"] if host["alive"] and not host["drift"]]
    since = _ago(came["since"]) if came else ""
    many = f"{len(well)} of {len(found['hosts'])}"
    plain = found["verdict"] == "healthy"
    said = "healthy" if plain else f"{found['verdict']}: {found['said']}"
    return (name, found["current"] or "", since, came.get("by", ""), many, said)


def _tones(found: Mapping[str, Mapping[str, Any]]) -> dict[int, str]:
    """Return the colour of each row that needs one."""
    tones = {"maintenance": "yellow", "not set up": "dim", "nothing": "dim"}
    tones |= dict.fromkeys(ILL, "red")
    verdicts = [each["verdict"] for each in found.values()]
    return {n: tones[said] for n, said in enumerate(verdicts) if said in tones}


def _ago(at: float) -> str:
    """Return how long ago a moment was, to the second."""
    return report.seconds(round(max(0.0, time.time() - at))).replace(".00", "")


def when(at: float) -> str:
    """Return a moment (seconds since the epoch) in this machine's time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
