"""`inv monitor`: Prometheus and Alertmanager on this machine, for one environment.

Both run as this user on loopback, with configurations of their own in the environment's
folder. Started again, they are found running and read what has changed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ops import delivery, report, wire
from ops.alerts import channels, firing, generate, mail, slack
from ops.alerts.channels import Channels
from ops.alerts.rules import Rule
from ops.alerts.site import MailDoor, Site
from ops.alerts.thresholds import SEVERITIES, Alerts
from ops.command import Command, Request, Secret
from ops.environment import Environment
from ops.errors import Refused, StepFailed, Usage
from ops.shell import leave
from ops.targets import processes
from ops.targets.doors import OwnDoor

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_READY = 30.0
_END = 15.0
_KEPT = "15d"
# As Debian calls them, and as others do.
NAMES = {
    "prometheus": ("prometheus",),
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),
}


@dataclass(frozen=True, slots=True)
class Running:
    """One of the two programs: where it answers, and which process it is."""

    name: str
    pid: int
    port: int
    started: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Made:
    """Files of a place and their texts; those of `secrets` for their owner only."""

    files: Mapping[str, str]
    secrets: Mapping[str, Secret]


def watch(
    env: str,
    *,
    down: bool = False,
    render: str = "",
    dry_run: bool = False,
    as_json: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Start the monitor of an environment, or find it running; or end it.

    `render` writes what a Prometheus host needs into a folder instead.

    Raises:
        Refused: a program is not installed, or `render` is not empty.
        StepFailed: one does not start; the end of its log is in the message.
        Usage: there is no such environment, or a variable holds something else.
    """
    known = delivery.load(env)
    folder = folder_of(known)
    if down:
        _end(folder, dry_run=dry_run, as_json=as_json)
        return
    alerts, rules = generate.asked()
    ways = channels.of(alerts, env, environ)
    if render:
        site = _site(alerts, ways, known, environ, Path(alerts.monitoring.secrets))
        made = _made(alerts, rules, site, known, ways, environ)
        _render(
            made,
            Path(render).absolute(),
            alerts,
            ways,
            dry_run=dry_run,
            as_json=as_json,
        )
        return
    programs = installed()
    with _alone(folder, dry_run):
        ports = _ports(folder, alerts)
        site = _site(alerts, ways, known, environ, folder / "secrets")
        site = replace(site, alertmanager=f"127.0.0.1:{ports['alertmanager']}")
        made = _made(alerts, rules, site, known, ways, environ)
        if dry_run:
            _tell_plan(folder, made, ports, programs, as_json=as_json)
            return
        changed = write(made, folder)
        found = [
            start(name, programs[name], folder, ports[name], changed)
            for name in ("alertmanager", "prometheus")
        ]
    _tell(known, ways, found, _targets(known, environ), as_json=as_json)


# What they read -----------------------------------------------------------------------


def _site(
    alerts: Alerts,
    ways: Channels,
    environment: Environment,
    environ: Mapping[str, str],
    secrets: Path,
) -> Site:
    """Return the place of a monitor of one environment."""
    name = environment.name
    mails = ways.smtp is not None and "mail" not in ways.lacking
    return Site(
        environments=(name,),
        alertmanager=f"127.0.0.1:{alerts.monitoring.alertmanager_port or 9093}",
        sender=ways.sender,
        people={word: ways.people(word) for word in SEVERITIES},
        mail=_door(ways.smtp, secrets) if ways.smtp is not None and mails else None,
        tokens=_token(environment, environ, secrets),
        webhooks={name: f"{secrets}/slack_{name}"} if ways.webhook else {},
    )


def _door(smtp: Secret, secrets: Path) -> MailDoor:
    """Return the mail server of an SMTP_URL as Alertmanager wants it.

    Raises:
        Usage: it names none.
    """
    found = mail.server(smtp)
    if found is None:
        raise Usage(
            "SMTP_URL is no address of a mail server",
            where="the variable SMTP_URL",
            allowed="smtp://user:password@host:587 or smtps://user:password@host:465",
        )
    return MailDoor(
        smarthost=f"{found.host}:{found.port}",
        # With smtps all is encrypted before a word is said.
        encrypt=not found.tls and found.host not in _LOOPBACK,
        user=found.user,
        password_file=f"{secrets}/smtp_password" if found.user else "",
    )


def _token(
    environment: Environment, environ: Mapping[str, str], secrets: Path
) -> dict[str, str]:
    """Return the file with the token for the metrics, none where they are open.

    On this machine a release lays one into its own folder, which `current` leads to:
    the next release brings its own.
    """
    if environment.config.get("METRICS") == "open":
        return {}
    name = environment.name
    if environment.target == "local" and not _said_token(environment, environ):
        return {name: str(environment.state / "current" / "run" / "token")}
    return {name: f"{secrets}/token_{name}"}


def _said_token(environment: Environment, environ: Mapping[str, str]) -> str:
    return environ.get(f"HEALTH_TOKEN{environment.suffix}", "").strip()


def _made(
    alerts: Alerts,
    rules: Sequence[Rule],
    site: Site,
    environment: Environment,
    ways: Channels,
    environ: Mapping[str, str],
) -> Made:
    """Return all files of a place.

    Raises:
        Usage: the hosts are not named, or a webhook or token can't be one.
    """
    name = environment.name
    files = generate.configurations(alerts, rules, site)
    targets = [{"targets": _targets(environment, environ), "labels": {}}]
    files[f"targets/{name}.json"] = json.dumps(targets) + "\n"
    secrets: dict[str, Secret] = {}
    if ways.webhook is not None:
        problem = slack.unfit(ways.webhook)
        if problem:
            raise Usage(
                problem,
                where="the variable SLACK_WEBHOOK_URL",
                allowed="https://hooks.slack.com/services/…",
            )
        secrets[f"slack_{name}"] = ways.webhook
    if site.mail is not None and ways.smtp is not None and site.mail.user:
        server = mail.server(ways.smtp)
        secrets["smtp_password"] = server.password if server else Secret("")
    if site.tokens.get(name, "").endswith(f"/token_{name}"):
        token = _said_token(environment, environ)
        if not token:
            variable = f"HEALTH_TOKEN{environment.suffix}"
            raise Usage(
                f"{variable} is not set: the metrics of {name} need it",
                where=f"the variables of this shell, for --env {name}",
                next=f"export {variable}=…, the value of the deploy",
            )
        secrets[f"token_{name}"] = Secret(token)
    return Made(files, secrets)


def _targets(environment: Environment, environ: Mapping[str, str]) -> list[str]:
    """Return host:port of all that is scraped: each host, not what balances them."""
    if environment.target == "local":
        port = OwnDoor(environment.state).seen().port or environment.port
        return [f"127.0.0.1:{port}"]
    found = environment.hosts(environ)
    return [f"{address.host}:{environment.port}" for address in found]


def write(made: Made, folder: Path) -> list[str]:
    """Write what differs, secrets for us only; return the names."""
    changed = []
    texts = {
        **{name: (text, 0o644) for name, text in made.files.items()},
        **{f"secrets/{n}": (s.value + "\n", 0o600) for n, s in made.secrets.items()},
    }
    (folder / "secrets").mkdir(parents=True, exist_ok=True, mode=0o700)
    for stale in set(os.listdir(folder / "secrets")) - made.secrets.keys():
        (folder / "secrets" / stale).unlink()
    for name, (text, mode) in texts.items():
        place = folder / name
        if place.exists() and place.read_text() == text:
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = place.with_name(f".{place.name}-{os.getpid()}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(scratch, flags, mode), "w") as file:
            file.write(text)
        os.replace(scratch, place)
        changed.append(name)
    return changed


def _render(
    made: Made,
    folder: Path,
    alerts: Alerts,
    ways: Channels,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise Refused(
            "the folder is not empty",
            where=str(folder),
            allowed="a new folder",
            next=f"rm -r {folder}, if nobody needs it",
        )
    names = [*made.files, *(f"secrets/{name}" for name in made.secrets)]
    if not dry_run:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write(made, folder)
    if as_json:
        said = {"folder": str(folder), "files": names, "lacking": dict(ways.lacking)}
        report.as_json({"schema_version": 1, "written": not dry_run, **said})
        return
    for name in names:
        report.say(f"  {'would write' if dry_run else 'wrote'} {folder / name}")
    _tell_lacking(ways)
    report.say(
        f"\n  secrets/ goes to {alerts.monitoring.secrets}/ on the host, the rest to\n"
        "  /etc/prometheus/: docs/how-to/alerts.md#a-host-that-watches"
    )


# Start and end ------------------------------------------------------------------------


def folder_of(environment: Environment) -> Path:
    """Return where all of an environment's monitor is."""
    return environment.state / "monitor"


def running(folder: Path, name: str) -> Running | None:
    """Return one of the two programs where it runs, by the folder of the monitor."""
    try:
        said = json.loads((folder / f"{name}.json").read_text())
        pid, port = int(said["pid"]), int(said["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # A number is used again; the path of our configuration is not.
    ours = f"--config.file={folder}{os.sep}"
    there = any(word.startswith(ours) for word in processes.arguments(pid))
    return Running(name, pid, port) if there else None


def alerts(environment: Environment) -> tuple[str, ...]:
    """Return the alerts that fire by an environment's Alertmanager, if that runs."""
    there = running(folder_of(environment), "alertmanager")
    if there is None:
        return ()
    request = Request("GET", "/api/v2/alerts?active=true&inhibited=false", timeout=2.0)
    answer = wire.ask(request, port=there.port)
    return firing.listed(answer.body) if answer.status == 200 else ()


def stop(folder: Path, *, dry_run: bool = False) -> list[str]:
    """End what runs of a monitor; return the names.

    Raises:
        StepFailed: a process can't be ended.
    """
    ended = []
    for name in NAMES:
        found = running(folder, name)
        if found is None:
            continue
        ended.append(name)
        if not dry_run:
            processes.end((found.pid,), _END)
            (folder / f"{name}.json").unlink(missing_ok=True)
    return ended


def installed() -> dict[str, str]:
    """Return the path of each program.

    Raises:
        Refused: one is not installed.
    """
    found = {
        name: next(filter(None, map(shutil.which, names)), "")
        for name, names in NAMES.items()
    }
    lost = [name for name, path in found.items() if not path]
    if lost:
        raise Refused(
            f"missing on this machine: {', '.join(lost)}",
            allowed="Debian's packages prometheus and prometheus-alertmanager",
            next="inv setup",
        )
    return found


@contextmanager
def _alone(folder: Path, dry_run: bool) -> Iterator[None]:
    """Let one command at a time start a monitor."""
    if dry_run:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(folder / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _ports(folder: Path, alerts: Alerts) -> dict[str, int]:
    """Return the port of each program: its own where it runs, else a free one."""
    wanted = {
        "prometheus": alerts.monitoring.prometheus_port,
        "alertmanager": alerts.monitoring.alertmanager_port,
    }
    found: dict[str, int] = {}
    for name, port in wanted.items():
        there = running(folder, name)
        if there is not None:
            found[name] = there.port
        elif port and wire.port_is_free(port):
            found[name] = port
        else:
            found[name] = wire.free_port()
    return found


def _arguments(name: str, folder: Path, port: int) -> tuple[str, ...]:
    shared = (
        f"--config.file={folder}/{name}.yml",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--web.external-url=http://127.0.0.1:{port}/",
        "--log.level=warn",
    )
    if name == "prometheus":
        kept = f"--storage.tsdb.retention.time={_KEPT}"
        return (*shared, f"--storage.tsdb.path={folder}/data/prometheus", kept)
    # Without a partner there is nobody to gossip with.
    alone = "--cluster.listen-address="
    return (*shared, f"--storage.path={folder}/data/alertmanager", alone)


def start(
    name: str, program: str, folder: Path, port: int, changed: Sequence[str]
) -> Running:
    """Start a program and wait until it is ready, or let it read what changed."""
    there = running(folder, name)
    if there is not None:
        own = {"prometheus": ("prometheus.yml", "rules.yml", "slo.yml")}
        read = own.get(name, (f"{name}.yml",))
        if {*read} & {*changed}:
            processes.tell(there.pid, signal.SIGHUP)
        return there
    (folder / "data" / name).mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    begun = log.stat().st_size if log.exists() else 0
    argv = (program, *_arguments(name, folder, port))
    # Of our variables only what every program needs: the others hold secrets.
    needed = processes.basics()
    rest = {variable: None for variable in os.environ if variable not in needed}
    try:
        pid = leave(Command(argv, cwd=folder, env=rest), log)
    except OSError as error:
        raise StepFailed(
            f"{name} can't be started: {error.strerror}", where=program
        ) from None
    note = {"pid": pid, "port": port}
    scratch = folder / f".{name}.json"
    scratch.write_text(json.dumps(note))
    os.replace(scratch, folder / f"{name}.json")
    _await(name, pid, port, log, begun)
    return Running(name, pid, port, started=True)


def _await(name: str, pid: int, port: int, log: Path, begun: int) -> None:
    until = time.monotonic() + _READY
    ask = Request("GET", "/-/ready", timeout=2.0)
    while wire.ask(ask, port=port).status != 200:
        gone = processes.gone(pid)
        if gone or time.monotonic() >= until:
            processes.end((pid,), 1.0)
            raise StepFailed(
                f"{name} {'ended at once' if gone else 'is not ready'}",
                where=str(log),
                detail=processes.tail(log, begun),
                next="inv alerts --check",
            )
        time.sleep(0.05)


# What people are told -----------------------------------------------------------------


def _end(folder: Path, *, dry_run: bool, as_json: bool) -> None:
    ended = stop(folder, dry_run=dry_run)
    if as_json:
        report.as_json({"schema_version": 1, "ended": ended, "dry_run": dry_run})
    elif not ended:
        report.step("ok", "monitor", "nothing runs")
    for name in () if as_json else ended:
        report.step("ok", name, "would be ended" if dry_run else "ended")


def _tell_plan(
    folder: Path,
    made: Made,
    ports: Mapping[str, int],
    programs: Mapping[str, str],
    *,
    as_json: bool,
) -> None:
    names = (*made.files, *(f"secrets/{name}" for name in made.secrets))
    commands = [
        " ".join((program, *_arguments(name, folder, ports[name])))
        for name, program in programs.items()
    ]
    if as_json:
        files = [str(folder / name) for name in names]
        report.as_json(
            {"schema_version": 1, "would_write": files, "would_start": commands}
        )
        return
    for name in names:
        report.say(f"  would write {folder / name}")
    for command in commands:
        report.say(f"  would start {command}")


def _tell(
    environment: Environment,
    ways: Channels,
    found: Sequence[Running],
    targets: Sequence[str],
    *,
    as_json: bool,
) -> None:
    """Say what runs where, what it watches, whom it tells, and how it is ended."""
    name = environment.name
    silent = _silent(targets)
    stopped = f"inv monitor --env {name} --down"
    if as_json:
        programs = {
            one.name: {"url": one.url, "pid": one.pid, "started": one.started}
            for one in found
        }
        report.as_json(
            {
                "schema_version": 1,
                "environment": name,
                **programs,
                "targets": list(targets),
                "silent": silent,
                "lacking": dict(ways.lacking),
                "stop": stopped,
            }
        )
        return
    for one in found:
        ran = "" if one.started else " (ran already)"
        report.step("ok", one.name, f"{one.url}/{ran}")
    for target in targets:
        well = target not in silent
        said = "answers" if well else f"does not answer; next: inv up --env {name}"
        report.step("ok" if well else "warned", "watches", f"{target} {said}")
    _tell_lacking(ways)
    report.say(f"\n  to try whom it tells:  inv alerts --test --env {name}")
    report.say(f"  to end it:             {stopped}")


def _silent(targets: Sequence[str]) -> list[str]:
    """Return the targets on which nobody answers; they are watched all the same."""
    ask = Request("GET", "/livez", timeout=3.0)
    asked = {each: wire.ask(ask, url=f"http://{each}") for each in targets}
    return [each for each, answer in asked.items() if answer.status != 200]


def _tell_lacking(ways: Channels) -> None:
    told = "slack" not in ways.lacking
    if told:
        report.step("ok", "slack", ways.channel)
    for channel, variable in ways.lacking.items():
        report.step("warned", channel, f"not configured: {variable} is not set")
    for severity in SEVERITIES:
        if ways.people(severity):
            people = ", ".join(ways.people(severity))
            report.step("ok", "mail", f"{severity}: {people}")
