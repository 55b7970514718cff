"""What people do on one host between deploys: renew, look, run a program, set free.

Verbs beside the agent's, as plain as its own. Standard library only: they run where the
agent runs.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from ops import wire
from ops.errors import Refused, StepFailed
from ops.lines import hidden
from ops.targets import processes, written
from ops.targets.vault import Vault

if TYPE_CHECKING:
    from ops.targets.agent import Agent

# Verbs that talk with the terminal: input and output are the caller's own.
TALKING = frozenset({"attend"})
# What a program needs to know of the terminal it talks with.
_TERMINAL = ("TERM", "COLORTERM", "NO_COLOR", "LINES", "COLUMNS")
# Parameters of a libpq address whose variable has another name than PG + theirs.
_PG = {"dbname": "DATABASE", "application_name": "APPNAME"}
_LIBPQ = (
    *("host", "port", "user", "password", "dbname", "sslmode", "sslrootcert"),
    *("connect_timeout", "options", "application_name"),
)


class Hands:
    """What people ask of the host of an agent beside deploys."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    # Renew -----------------------------------------------------------------------

    def reload(self, number: int, timeout: float) -> dict[str, Any]:
        """Replace every worker of a release by a new one; its socket never closes.

        The master forks new workers first and then lets the old ones finish what they
        have. Returns how many were renewed, and how many old ones were still busy
        after `timeout` seconds: gunicorn ends those when their grace is over.

        Raises:
            Refused: the release does not run. StepFailed: no new worker came.
        """
        there = self._running(number)
        master = processes.master(there)
        if master is None:
            raise Refused(f"v{number} does not run", next="inv up")
        old = [pid for pid in there if pid != master]
        with _watched(old) as watched:
            os.kill(master, signal.SIGHUP)
            busy = _await_ends(watched, timeout)
        now = {*self._running(number)} - {master, *old}
        if not now:
            raise StepFailed(
                f"v{number} started no new worker within {timeout:g} s",
                where=str(self._folder(number) / "app.log"),
                next=f"inv logs --release v{number}; then inv deploy --force",
            )
        return {"renewed": len(now), "busy": len(busy)}

    # Look ------------------------------------------------------------------------

    def configuration(self, number: int) -> dict[str, Any]:
        """Return a release's variables; of a secret only a digest under our key."""
        record = self.agent.record_of(number)
        if record is None:
            raise Refused(f"v{number} is not there any more", next="inv status")
        said, key = self.agent.variables(number), self.agent.key()
        return {
            "values": {n: v for n, v in said.items() if n not in record.secrets},
            "secrets": {
                name: hmac.new(key, said[name].encode(), hashlib.sha256).hexdigest()
                for name in record.secrets
                if name in said
            },
        }

    def examine(self, port: int, database: Sequence[Any] | None) -> dict[str, Any]:
        """Return what tells whether this host is fit for a deploy, changing nothing.

        `database` is host and port of a PostgreSQL server, None for none. `came` and
        `left` are this host's clock at the beginning and at the end.
        """
        came = time.time()
        host = self.agent.observe(port)
        found = self.agent.root
        while not found.exists():
            found = found.parent
        files = os.statvfs(found)
        return {
            "host": host,
            # A file system that makes them as needed counts none.
            "inodes": files.f_favail if files.f_files else None,
            "database": None if database is None else wire.postgres(*database),
            "faults": self.agent.keeper.faults(),
            "came": came,
            "left": time.time(),
        }

    def written(
        self,
        positions: Mapping[str, Sequence[int]] | None,
        release: int | None = None,
        **asked: Any,
    ) -> dict[str, Any]:
        """Return what was written to the logs after `positions`; see `written.look`.

        The logs are those of the front door, of all releases or one, and the journal
        ("acts"). No line holds a secret of a release that is here.
        """
        logs: dict[str, Path] = {}
        if release is None:
            logs = {**self.agent.doorway.logs(), "acts": self.agent.journal.path}
        secrets: set[str] = set()
        for folder in sorted(self.agent.releases.glob("v*"), key=_number):
            log = folder / "app.log"
            if log.exists() and release in (None, _number(folder)):
                logs[folder.name] = log
            secrets |= self._hidden(_number(folder))
        return written.look(logs, positions, secrets=secrets, **asked)

    def _hidden(self, number: int) -> set[str]:
        """Return what no line may hold of a release's configuration."""
        record = self.agent.record_of(number)
        names = record.secrets if record else ()
        try:
            own, now = self.agent.own(number), self.agent.variables(number)
        except StepFailed:
            # Being staged, or pruned at this moment.
            return set()
        # It may have been started with its own value of a secret, and with today's.
        return hidden(own, names) | hidden(now, names)

    # Backups ---------------------------------------------------------------------

    def backups(self) -> list[dict[str, Any]]:
        """Return the backups that are kept here, newest first; see `Vault.listed`."""
        return Vault(self.agent.root).listed()

    def note_of(self, name: str) -> str:
        """Return all that is known of a backup, as text; "" for nothing."""
        return Vault(self.agent.root).note(name)

    def read_backup(self, name: str, offset: int) -> bytes:
        """Return the part of a backup that begins at an offset, b"" behind its end."""
        return Vault(self.agent.root).read(name, offset)

    def keep(self, name: str, sha256: str, note: str, path: Path) -> dict[str, Any]:
        """Take a file in among the backups, with what is known of it."""
        return Vault(self.agent.root).keep(name, sha256, note, path)

    # Run a program ---------------------------------------------------------------

    def attend(
        self, number: int, kind: str, words: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Run a program with a release's interpreter and environment; return its code.

        `kind`: exec (the words), shell (Python), database (psql or sqlite3, the words
        are one statement or none). It reads and writes where we do.

        Raises:
            Refused: the release or the program is not there.
        """
        if self.agent.record_of(number) is None:
            raise Refused(f"v{number} is not there any more", next="inv status")
        folder = self._folder(number)
        environ = {
            **processes.basics(),
            **self.agent.variables(number),
            "PYTHONPATH": str(folder / "lib"),
        }
        for name in _TERMINAL:
            if os.environ.get(name):
                environ[name] = os.environ[name]
        programs = folder / "env" / "bin"
        environ["PATH"] = f"{programs}{os.pathsep}{environ.get('PATH', os.defpath)}"
        argv = tuple(words)
        if kind == "shell":
            argv = (str(programs / "python"), *words)
        elif kind == "database":
            argv, more = database_program(environ.get("DATABASE_URL", ""), words)
            environ.update(more)
        found = shutil.which(argv[0], path=environ["PATH"])
        if found is None:
            raise Refused(
                f"{argv[0]} is not installed on this host",
                where=environ["PATH"],
                next=_PACKAGES.get(argv[0], "name a program by its path"),
            )
        return {"code": _talk((found, *argv[1:]), folder, environ)}

    # Set free --------------------------------------------------------------------

    def holders(self) -> dict[str, Any]:
        """Return the processes that hold the lease, as the kernel says."""
        return {"processes": _lock_holders(self.agent.lease.lock)}

    def end_holders(self, epoch: int, timeout: float) -> dict[str, Any]:
        """End the processes that hold the lease of an epoch, and no other.

        A holder is who has the lock on an open file, which the kernel says of the open
        file itself: not a number in a file, that may be another process's by now, and
        not a process group, which in a script holds the script too. The deployer is
        asked first and puts back what it has begun; who holds on after `timeout`
        seconds is killed.

        Raises:
            Refused: somebody else has taken it meanwhile.
        """
        said = self.agent.lease.held_by()
        if said is None:
            return {"ended": [], "killed": 0}
        if said.get("epoch") != epoch:
            raise Refused("the lease has changed hands meanwhile", next="inv unlock")
        held = [
            pid for pid in _lock_holders(self.agent.lease.lock) if pid != os.getpid()
        ]
        with _watched(held) as watched:
            # Looked at again with the descriptors open: no number can change its
            # owner from here on.
            sure = set(_lock_holders(self.agent.lease.lock))
            mine = {fd: pid for fd, pid in watched.items() if pid in sure}
            if not mine:
                raise Refused(
                    "no process of this user holds the lease",
                    where=str(self.agent.lease.lock),
                    next="run it as the user who deploys",
                )
            first = [fd for fd, pid in mine.items() if pid == said["pid"]]
            for descriptor in first or list(mine):
                _send(descriptor, signal.SIGTERM)
            stuck = self._await_free(mine, timeout)
            for descriptor in stuck:
                _send(descriptor, signal.SIGKILL)
            if _await_ends(stuck, 5.0):
                raise StepFailed(
                    f"processes {sorted(stuck.values())} can't be ended",
                    next="look at them with ps; a reboot ends them",
                )
        return {"ended": sorted(mine.values()), "killed": len(stuck)}

    def _await_free(self, held: Mapping[int, int], timeout: float) -> dict[int, int]:
        """Wait until none of these processes holds the lease; return who still does.

        One that is done with the lease may live on: it is on its way out.
        """
        until = time.monotonic() + timeout
        left = dict(held)
        while left:
            waits = min(0.2, max(0.0, until - time.monotonic()))
            left = _await_ends(left, waits)
            still = set(_lock_holders(self.agent.lease.lock))
            left = {fd: pid for fd, pid in left.items() if pid in still}
            if time.monotonic() >= until:
                break
        return left

    def _folder(self, number: int) -> Path:
        return self.agent.releases / f"v{number}"

    def _running(self, number: int) -> tuple[int, ...]:
        return self.agent.keeper.running().get(number, ())


def database_program(
    url: str, words: Sequence[str] = ()
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the shell of a database and its variables; no argument holds a secret.

    Raises:
        Refused: the address is none that has a shell.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        path = unquote(rest.partition("?")[0]).removeprefix("/")
        return ("sqlite3", "-cmd", ".timeout 5000", path, *words), {}
    if not re.fullmatch(r"postgres(ql)?(\+psycopg)?", scheme):
        said = f"a database of the kind {scheme!r}" if scheme != url else "no database"
        raise Refused(
            f"the release has {said}",
            where="DATABASE_URL",
            allowed="sqlite, postgresql",
        )
    try:
        parts = urlsplit(f"postgresql://{rest}")
        port = parts.port
    except ValueError:
        raise Refused(
            "DATABASE_URL can't be read", next="inv config shows which one it is"
        ) from None
    said = {
        "host": parts.hostname,
        "port": str(port) if port else None,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "dbname": unquote(parts.path.lstrip("/")),
        **dict(parse_qsl(parts.query)),
    }
    environ = {
        f"PG{_PG.get(name, name.upper())}": text
        for name, text in said.items()
        if text and name in _LIBPQ
    }
    statement = ("--command", *words) if words else ()
    return ("psql", *statement), environ


_PACKAGES = {
    "psql": "sudo apt-get install postgresql-client",
    "sqlite3": "sudo apt-get install sqlite3",
}


# Small parts --------------------------------------------------------------------------


def _number(folder: Path) -> int:
    digits = folder.name[1:]
    return int(digits) if digits.isdecimal() else 0


def _lock_holders(lock: Path) -> list[int]:
    """Return the processes that hold a kernel lock on an open file of this path."""
    try:
        wanted = lock.stat()
    except FileNotFoundError:
        return []
    found = []
    for pid in processes.all_pids():
        for link in processes.listing(Path(f"/proc/{pid}/fd")):
            try:
                there = link.stat()
                if (there.st_dev, there.st_ino) != (wanted.st_dev, wanted.st_ino):
                    continue
                said = Path(f"/proc/{pid}/fdinfo/{link.name}").read_text()
            except OSError:
                # Closed, ended or another user's while we looked.
                continue
            if re.search(r"^lock:.*\bFLOCK\b.*\bWRITE\b", said, re.MULTILINE):
                found.append(pid)
                break
    return found


@contextmanager
def _watched(processes: Sequence[int]) -> Iterator[dict[int, int]]:
    """Give descriptors of processes, by which a process is never mistaken."""
    opened: dict[int, int] = {}
    for pid in processes:
        try:
            opened[os.pidfd_open(pid)] = pid
        except ProcessLookupError:
            continue
    try:
        yield opened
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _await_ends(watched: Mapping[int, int], timeout: float) -> dict[int, int]:
    """Wait until all have ended, at most `timeout` seconds; return who has not."""
    until = time.monotonic() + timeout
    left = dict(watched)
    while left:
        waits = max(0.0, until - time.monotonic())
        ended, _, _ = select.select(list(left), [], [], waits)
        for descriptor in ended:
            del left[descriptor]
        if not ended:
            break
    return left


def _send(descriptor: int, number: int) -> None:
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        pass


def _talk(argv: tuple[str, ...], cwd: Path, environ: Mapping[str, str]) -> int:
    """Run a program on our own terminal; Ctrl-C is for it, its end is ours."""
    process = subprocess.Popen(argv, cwd=cwd, env=dict(environ))

    def pass_on(number: int, _: object) -> None:
        # The terminal has sent Ctrl-C to the program too.
        if number != signal.SIGINT:
            process.send_signal(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before[number] = signal.signal(number, pass_on)
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code
