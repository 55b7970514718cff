"""What this machine must have: `inv setup` brings it, `inv doctor` looks for it."""

from __future__ import annotations

import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ops import advisories, environment, errors, folders, quality, report
from ops.command import Command
from ops.environment import ROOT, Environment
from ops.preflight import Check
from ops.shell import run


@dataclass(frozen=True, slots=True)
class Part:
    """A program of the system: names on PATH or glob patterns, and its package."""

    name: str
    found_as: tuple[str, ...]
    package: str
    why: str

    def where(self) -> str:
        """Return the program's path, "" where there is none."""
        for name in self.found_as:
            found = (
                max(glob.glob(name), default="")
                if name.startswith("/")
                else shutil.which(name)
            )
            if found:
                return found
        return ""


PARTS = (
    Part("git", ("git",), "git", "an artefact is built from a commit"),
    Part(
        "chromium",
        ("chromium", "chromium-browser", "google-chrome"),
        "chromium",
        "the browser of the dashboard's regression tests",
    ),
    Part(
        "postgresql",
        ("/usr/lib/postgresql/*/bin/postgres", "postgres"),
        "postgresql",
        "the server of the integration tests",
    ),
    Part(
        "psql",
        ("/usr/share/doc/postgresql-client",),
        "postgresql-client",
        "backups of databases on the tests' throw-away hosts",
    ),
    Part("ssh", ("ssh",), "openssh-client", "reaching the hosts of a fleet"),
    Part("sshd", ("/usr/sbin/sshd",), "openssh-server", "the tests' throw-away hosts"),
    Part("dbus", ("/usr/bin/dbus-daemon",), "dbus", "the tests' throw-away hosts"),
    Part(
        "systemd",
        ("/lib/systemd/systemd", "/usr/lib/systemd/systemd"),
        "systemd-sysv",
        "PID 1 of the tests' throw-away hosts",
    ),
    Part(
        "pam_systemd",
        ("/usr/share/pam-configs/systemd",),
        "libpam-systemd",
        "systemd of an ordinary user there",
    ),
    Part("ip", ("ip", "/sbin/ip"), "iproute2", "their network"),
    Part("nginx", ("nginx", "/usr/sbin/nginx"), "nginx", "their front door"),
    Part("cc", ("cc", "gcc"), "gcc", "the faults that a campaign plants in processes"),
    Part("libc", ("/usr/include/stdio.h",), "libc6-dev", "the same"),
    Part("haproxy", ("haproxy", "/usr/sbin/haproxy"), "haproxy", "their balancer"),
    Part(
        "redis",
        ("valkey-server", "redis-server"),
        "redis-server",
        "the cache that processes may share",
    ),
    Part(
        "prometheus",
        ("promtool",),
        "prometheus",
        "tests of the alerts' rules, and inv monitor",
    ),
    Part(
        "alertmanager",
        ("amtool",),
        "prometheus-alertmanager",
        "tests of who is told of an alert, and inv monitor",
    ),
)
# Packages whose servers Debian starts right after it has installed them. Nothing here
# wants those running, and some of them listen on every address of the machine.
STARTED = (
    *("postgresql", "nginx", "haproxy", "redis-server"),
    *("prometheus", "prometheus-alertmanager"),
)


# There where systemd is the first process of the machine.
SYSTEMD = Path("/run/systemd/system")


@dataclass(frozen=True, slots=True)
class Rights:
    """By what right system packages are installed here.

    `apt`: there is apt-get; `root`: we are root; `sudo`: sudo asks no password.
    """

    apt: bool
    root: bool
    sudo: bool


def installation(packages: Sequence[str], prefix: Sequence[str]) -> list[Command]:
    """Return the commands that install Debian packages."""
    apt = (*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get")
    install = (*apt, "install", "-y", "--no-install-recommends", *packages)
    return [Command((*apt, "update"), timeout=300), Command(install, timeout=1800)]


def stopping(packages: Sequence[str], prefix: Sequence[str]) -> list[Command]:
    """Return the commands that stop what these packages have started, for good.

    None where nothing is started: there is no systemd, or no such package.
    """
    units = [name for name in packages if name in STARTED]
    if not units or not SYSTEMD.is_dir():
        return []
    argv = (*prefix, "systemctl", "disable", "--now", *units)
    return [Command(argv, timeout=60)]


def rights() -> Rights:
    """Return what we may do on this machine."""
    sudo = shutil.which("sudo") is not None
    root = os.geteuid() == 0
    return Rights(
        apt=shutil.which("apt-get") is not None,
        root=root,
        sudo=sudo and not root and run(Command(("sudo", "-n", "true"), timeout=10)).ok,
    )


def prefix(missing: Sequence[Part], may: Rights) -> tuple[str, ...]:
    """Return what comes before apt-get.

    Raises:
        Refused: we may not install, or there is no apt-get; says what an
            administrator types.
    """
    names = ", ".join(part.name for part in missing)
    packages = [part.package for part in missing]
    if not may.apt:
        raise errors.Refused(
            f"missing on this machine: {names}",
            allowed="this task installs by apt-get, which is not here",
            next=f"install {names} by this system's own package tool",
        )
    if may.root:
        return ()
    if may.sudo:
        return ("sudo", "-n")
    typed = " && ".join(str(command) for command in installation(packages, ("sudo",)))
    raise errors.Refused(
        f"missing on this machine: {names}",
        allowed="installing needs root, or sudo that asks no password",
        next=f"an administrator types: {typed}",
    )


def setup(
    *,
    yes: bool = False,
    dry_run: bool = False,
    root: Path = ROOT,
    environ: Mapping[str, str] = os.environ,
    parts: Sequence[Part] = PARTS,
    may: Rights | None = None,
    ask: Callable[[str], str] = input,
) -> None:
    """Install what the tests need of the system, and the commit hooks.

    Raises:
        Refused: something is missing and we may not install it.
        StepFailed: the installation failed.
    """
    places = {part.name: part.where() for part in parts}
    missing = [part for part in parts if not places[part.name]]
    rows = [
        (part.name, places[part.name] or "missing", part.package, part.why)
        for part in parts
    ]
    report.say(report.table(rows, ("part", "found at", "package", "what for")))
    if not missing:
        report.say("every part is here")
    else:
        before = prefix(missing, may or rights())
        packages = [part.package for part in missing]
        plan = installation(packages, before)
        after = stopping(packages, before)
        report.say("\nplan")
        for command in (*plan, *after):
            report.say(f"  {command}")
        unasked = yes or environ.get("CI") or not sys.stdin.isatty()
        if not dry_run:
            if not unasked and ask("install? [y/N] ").strip().lower() != "y":
                raise errors.Refused("not installed", next="inv setup --yes")
            _install(plan)
            _stop(after)
    hooks(root, dry_run=dry_run)


def _install(plan: Sequence[Command]) -> None:
    for number, command in enumerate(plan):
        result = run(command)
        report.step(
            "ok" if result.ok else "failed", "apt", str(command), result.seconds
        )
        # A failed update is no end: the lists that are there may be good enough.
        if not result.ok and number == len(plan) - 1:
            raise errors.StepFailed(
                "the installation failed", where=str(command), detail=result.tail()
            )


def _stop(commands: Sequence[Command]) -> None:
    for command in commands:
        result = run(command)
        # What goes on running harms no test.
        state = "ok" if result.ok else "warned"
        report.step(state, "systemd", str(command), result.seconds)


def hooks(root: Path, *, dry_run: bool = False) -> None:
    """Install the pre-commit and commit-msg hooks where there is a git checkout."""
    argv = (sys.executable, "-m", "pre_commit", "install", "--overwrite")
    argv += ("--hook-type", "pre-commit", "--hook-type", "commit-msg")
    if not (root / ".git").exists():
        report.step("skipped", "hooks", "not a git checkout")
    elif dry_run:
        report.step("skipped", "hooks", f"dry run: {' '.join(argv[1:])}")
    else:
        result = run(Command(argv, cwd=root))
        said = result.tail(1) if not result.ok else "pre-commit, commit-msg"
        state = "ok" if result.ok else "skipped"
        report.step(state, "hooks", said, result.seconds)


def doctor(
    env: str = "local",
    *,
    as_json: bool = False,
    extra: Sequence[Check] = (),
    root: Path = ROOT,
    environ: Mapping[str, str] = os.environ,
) -> tuple[Check, ...]:
    """Show what this machine lacks for an environment and what mends it.

    Raises:
        Refused: something that is required is missing.
    """
    found = (*checks(environment.load(env), root=root, environ=environ), *extra)
    if as_json:
        report.as_json({"environment": env, "checks": [asdict(c) for c in found]})
    else:
        signs = {"ok": "ok", "warned": "warning", "failed": "FAILED"}
        tones = {"warned": "yellow", "failed": "red"}
        report.say(
            report.table(
                [(c.name, c.where, signs[c.state], c.said) for c in found],
                ("check", "host", "state", "found"),
                tones={
                    number: tones[check.state]
                    for number, check in enumerate(found)
                    if check.state in tones
                },
            )
        )
        for check in found:
            if check.mend and check.state != "ok":
                report.say(f"{check.name} {check.where}".rstrip() + f": {check.mend}")
    failed = dict.fromkeys(check.name for check in found if check.state == "failed")
    if failed:
        raise errors.Refused(f"not ready for {env}: {', '.join(failed)}")
    return found


def checks(
    env: Environment, *, root: Path, environ: Mapping[str, str]
) -> tuple[Check, ...]:
    """Look at everything that an environment needs of this machine."""
    return (
        python(sys.version_info[:3]),
        _uv(),
        _git(root),
        _lock(root),
        disk(env.state, env.budget.free_disk),
        writable("state folder", environment.state_home(environ)),
        writable("cache folder", folders.cache(environ)),
        *(_part(part) for part in PARTS if part.name != "git"),
        _advisories(root, environ),
    )


def python(version: Sequence[int]) -> Check:
    """Judge the version of this interpreter."""
    said = ".".join(str(part) for part in version)
    if tuple(version[:2]) >= (3, 11):
        return Check("python", "ok", said)
    return Check("python", "failed", f"{said}, needs 3.11", "uv python install 3.13")


def _uv() -> Check:
    if shutil.which("uv") is None:
        return Check("uv", "failed", "not on PATH", "pip install uv")
    return Check("uv", "ok", run(Command(("uv", "--version"), timeout=20)).out.strip())


def _git(root: Path) -> Check:
    if shutil.which("git") is None:
        return Check("git", "failed", "not on PATH", "inv setup")
    head = run(Command(("git", "rev-parse", "--short", "HEAD"), cwd=root, timeout=20))
    if not head.ok:
        return Check("git", "failed", "no commit here", "git clone, or git commit")
    return Check("git", "ok", f"at commit {head.out.strip()}")


def _lock(root: Path) -> Check:
    if shutil.which("uv") is None:
        return Check("lock", "warned", "not checked: needs uv", "pip install uv")
    (verdict,) = quality.run(("lock",), root=root)
    if verdict.state == "green":
        return Check("lock", "ok", "fits every pyproject.toml")
    return Check("lock", "failed", verdict.findings.splitlines()[0], verdict.fix)


def disk(folder: Path, needed: int) -> Check:
    """Judge the free space where a folder is or will be; `needed` in MiB."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free // 2**20
    said = f"{free:,} MiB free, {needed:,} needed"
    state = "ok" if free >= needed else "failed"
    return Check("disk", state, said, f"make room on the disk of {there}")


def writable(name: str, folder: Path) -> Check:
    """Judge whether files can be made in a folder, which is made where missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return Check(name, "ok", str(folder))
    except OSError as error:
        said = f"{folder}: {error.strerror}"
        return Check(name, "failed", said, "make it writable for this user")


def _part(part: Part) -> Check:
    where = part.where()
    if where:
        return Check(part.name, "ok", where)
    return Check(part.name, "warned", f"missing: {part.why}", "inv setup")


def _advisories(root: Path, environ: Mapping[str, str]) -> Check:
    import datetime

    mend = f"set {advisories.DATABASE} to a newer database"
    folder = advisories.database(root, environ)
    if folder is None:
        return Check("advisories", "warned", "no database", mend)
    try:
        date = advisories.dated(folder)
    except ValueError as error:
        return Check("advisories", "warned", str(error), mend)
    age = (datetime.datetime.now(datetime.UTC).date() - date).days
    state = "ok" if age <= advisories.FRESH_DAYS else "warned"
    return Check("advisories", state, f"of {date}, {age} days old", mend)
