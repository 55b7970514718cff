"""Act on one host: the only code that touches an environment's state folder.

Standard library only. Every method is one idempotent effect named by a release, takes
and returns plain values, and is called with the lease held; what calls it writes the
journal. Layout of the state folder:

    releases/v7/    lib/ (unpacked wheels) · env -> ../../envs/<hash> · release.json
                    environ.json (0600) · app.sock · app.pid · app.log
    envs/<hash>/    installed locked dependencies, shared by releases
    current         -> releases/v7, replaced by one rename(2): the traffic pointer
    front/          the front door's program and log; front.json says pid and port
    state/          lock · holder.json · epoch · journal.jsonl · key
    data/ backups/  the embedded database and its copies
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ops import wire
from ops.command import Answer, Command, Request
from ops.errors import Refused, StepFailed, port_taken
from ops.journal import Journal
from ops.lease import Lease
from ops.release import Release
from ops.shell import Result, run
from ops.world import Front, Host, Slot

FRONT = Path(__file__).with_name("front.py")
_NAME = re.compile(r"v([1-9][0-9]*)")
_PORT_TAKEN = 98


class Agent:
    """The hands on one host, for one environment's state folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.releases = root / "releases"
        self.environments = root / "envs"
        self.state = root / "state"
        self.journal = Journal(self.state / "journal.jsonl")
        self.lease = Lease(self.state)

    # What is there ---------------------------------------------------------------

    def prepare(self) -> None:
        """Make the folders of the environment, readable by this user only.

        Raises:
            Refused: the folder cannot be written.
        """
        folders = ("releases", "envs", "front", "state", "data", "backups")
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in folders:
                (self.root / name).mkdir(exist_ok=True, mode=0o700)
            if not os.access(self.state, os.W_OK):
                raise PermissionError(0, "permission denied", str(self.state))
            self.journal.keep_reserve()
        except OSError as error:
            raise Refused(
                f"the state folder cannot be written: {error.strerror}",
                where=str(error.filename or self.root),
                allowed="a folder of this user with free space",
                next="free the folder, or name another one in MLTRADING_STATE",
            ) from None

    def observe(self, port: int) -> Host:
        """Return what this host looks like, with the front door wanted on `port`."""
        running = self._running()
        slots = [
            self._slot(number, running.get(number, ()))
            for number in sorted({*self._numbers(), *running})
        ]
        front = self.door()
        holder = ""
        if front.pid is None and port and not wire.port_is_free(port):
            holder = _who_holds(port)
        return Host(
            name=socket.gethostname(),
            current=self._current(),
            slots=tuple(slots),
            environments=frozenset(
                path.name
                for path in _listing(self.environments)
                if (path / "READY").exists()
            ),
            front=front,
            port_holder=holder,
            free_disk=shutil.disk_usage(_existing(self.root)).free // (1024 * 1024),
        )

    def _numbers(self) -> list[int]:
        matches = [_NAME.fullmatch(path.name) for path in _listing(self.releases)]
        return [int(match[1]) for match in matches if match]

    def _slot(self, number: int, processes: tuple[int, ...]) -> Slot:
        try:
            release = Release.parse((self._folder(number) / "release.json").read_text())
        except (OSError, ValueError, TypeError, KeyError):
            release = None
        listens = bool(processes) and _listens(self._folder(number) / "app.sock")
        return Slot(number, release, _master(processes), processes, listens)

    def record_of(self, number: int) -> Release | None:
        """Return the record of a release, None where it is not whole."""
        return self._slot(number, ()).release

    def _current(self) -> int | None:
        try:
            match = _NAME.fullmatch(Path(os.readlink(self.root / "current")).name)
        except OSError:
            return None
        return int(match[1]) if match else None

    def door(self) -> Front:
        """Return the front door that runs, if one does."""
        try:
            said = json.loads((self.root / "front.json").read_text())
            pid, port = int(said["pid"]), int(said["port"])
        except (OSError, ValueError, KeyError):
            return Front()
        ours = str(self.root / "front") + os.sep
        for argument in _arguments(pid):
            if argument.startswith(ours):
                return Front(pid, port, stale=Path(argument).name != _front_name())
        return Front()

    def _running(self) -> dict[int, tuple[int, ...]]:
        """Return the processes of each release, found by the pid file they name.

        The process table is asked, not the pid files: a deployer that was killed
        just after it started a release leaves a process and no pid file.
        """
        found: dict[int, list[int]] = {}
        prefix = str(self.releases) + os.sep
        for pid in _processes():
            for flag, argument in itertools.pairwise(_arguments(pid)):
                if flag != "--pid" or not argument.startswith(prefix):
                    continue
                match = _NAME.fullmatch(Path(argument).parent.name)
                if match and argument.endswith("/app.pid"):
                    found.setdefault(int(match[1]), []).append(pid)
        return {number: tuple(pids) for number, pids in found.items()}

    def _folder(self, number: int) -> Path:
        return self.releases / f"v{number}"

    def key(self) -> bytes:
        """Return this environment's own key for digests of secrets."""
        path = self.state / "key"
        try:
            return path.read_bytes()
        except FileNotFoundError:
            fresh = secrets.token_bytes(32)
            if not self.state.exists():
                # A dry run on an empty machine leaves it empty.
                return fresh
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(fresh)
            return fresh

    # Before the switch -----------------------------------------------------------

    def install(
        self, name: str, requirements: Path, python: str, uv: str, timeout: float
    ) -> dict[str, Any]:
        """Install locked dependencies into envs/<name>, or find them there.

        Made under another name and renamed, so a killed install leaves nothing that
        looks whole. What the cache holds is used without asking the network.
        """
        home = self.environments / name
        if (home / "READY").exists() and (home / "bin" / "python").exists():
            return {"made": False}
        # Its interpreter was moved or removed, or it never became whole.
        shutil.rmtree(home, ignore_errors=True)
        scratch = self.environments / f".{name}-{os.getpid()}"
        shutil.rmtree(scratch, ignore_errors=True)
        make = (uv, "venv", "--quiet", "--no-project", "--python", python, str(scratch))
        self._run(make, timeout, "making the environment failed")
        install = (
            *(uv, "pip", "install", "--quiet", "--no-deps", "--require-hashes"),
            *("--python", str(scratch / "bin" / "python"), "-r", str(requirements)),
        )
        cached = run(
            Command((*install, "--offline"), timeout=timeout, env=_UV),
            keep_open=self._held(),
        )
        if not cached.ok:
            self._run(install, timeout, "installing the locked dependencies failed")
        (scratch / "READY").write_text("")
        os.rename(scratch, home)
        _sync(self.environments)
        return {"made": True, "from_cache": cached.ok}

    def stage(
        self, release: str, wheels: Sequence[Path], environ: Mapping[str, str]
    ) -> dict[str, Any]:
        """Unpack a release into its slot; its record is written last.

        Raises:
            StepFailed: a wheel does not have the contents that it announces.
        """
        record = Release.parse(release)
        folder = self._folder(record.number)
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "lib").mkdir(parents=True)
        for wheel in wheels:
            try:
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(folder / "lib")
            except zipfile.BadZipFile as error:
                raise StepFailed(
                    f"a wheel is damaged: {error}",
                    where=str(wheel),
                    next="remove dist/ and run inv deploy again",
                ) from None
        os.symlink(os.path.join("..", "..", "envs", record.environment), folder / "env")
        descriptor = os.open(
            folder / "environ.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600
        )
        with os.fdopen(descriptor, "w") as file:
            json.dump(dict(environ), file)
        # The record says that all is there, so all must be on the disk before it is.
        staged = [path for path in folder.rglob("*") if path.is_file()]
        for path in staged:
            _sync(path)
        scratch = folder / ".release.json"
        scratch.write_text(release)
        _sync(scratch)
        os.replace(scratch, folder / "release.json")
        _sync(folder)
        _sync(self.releases)
        return {"files": len(staged)}

    def data(
        self, number: int, arguments: Sequence[str], timeout: float
    ) -> dict[str, Any]:
        """Run the data layer of a release: migrate, seed, back up, ingest, reset."""
        command = ("-m", "mltrading_marketdata", *arguments, "--json")
        result = run(
            Command(
                (str(self._python(number)), *command),
                cwd=self._folder(number),
                env=self._environ(number),
                timeout=timeout,
            ),
            keep_open=self._held(),
        )
        try:
            said = json.loads(result.out or "{}")
        except ValueError:
            said = {}
        if not result.ok:
            raise StepFailed(
                f"the data layer could not {arguments[0]}",
                where=f"{self._folder(number).name}, exit code {result.code}",
                detail=result.tail(12),
                next="inv doctor",
            )
        return said

    def migrate(self, number: int, seed: str, timeout: float) -> dict[str, Any]:
        """Bring the database to a release's schema; back it up first if it changes."""
        arguments = ["prepare", "--backup-dir", str(self.root / "backups")]
        if seed:
            arguments += ["--seed", seed]
        return self.data(number, arguments, timeout)

    def boot(self, number: int, timeout: float) -> dict[str, Any]:
        """Start a release on its own socket, beside whatever has traffic.

        Returns when its process says that the application is imported and its
        socket listens.

        Raises:
            StepFailed: it ended or said nothing within `timeout` seconds; the last
                lines of its log are in the detail.
        """
        folder = self._folder(number)
        processes = self._running().get(number, ())
        if processes and _listens(folder / "app.sock"):
            return {"started": False}
        # Half of a release: one that is still ending, or workers without a master.
        _end(processes, timeout / 2)
        # The process table has just said that no master runs: what a power cut left
        # here is stale, and gunicorn would refuse a pid file whose number lives again.
        for name in ("app.sock", "app.pid"):
            (folder / name).unlink(missing_ok=True)
        (folder / "run").mkdir(exist_ok=True)
        self._warm(number, timeout)
        log = (folder / "app.log").open("ab")
        begun = log.tell()
        argv = (
            *(str(self._python(number)), "-m", "gunicorn"),
            *("--config", "python:mltrading_dashboard.gunicorn_conf"),
            *("--bind", "unix:app.sock", "--pid", str(folder / "app.pid")),
            "mltrading_dashboard.wsgi:server",
        )
        with log, _Notification() as notification:
            environ = {
                **self._environ(number),
                "NOTIFY_SOCKET": notification.address,
                "MLTRADING_RUNTIME_DIR": str(folder / "run"),
            }
            process = subprocess.Popen(
                argv,
                cwd=folder,
                env={name: value for name, value in environ.items() if value},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            problem = notification.wait(process, timeout)
        if problem:
            self.stop(number, 2.0)
            raise StepFailed(
                f"v{number} did not boot: {problem}",
                where=str(folder / "app.log"),
                detail=_tail(folder / "app.log", begun),
                next="mend the code and run inv deploy again; the old version serves",
            )
        return {"started": True, "pid": process.pid}

    def _warm(self, number: int, timeout: float) -> None:
        """Import the application once in an environment that is new.

        Compiling byte-code swells the process that does it by 15 MB for good, so it
        is not the one that serves. Whether the import succeeds, the boot will tell.
        """
        mark = self._folder(number) / "env" / "WARM"
        if mark.exists():
            return
        program = "import gunicorn.app.wsgiapp, mltrading_dashboard.wsgi"
        command = Command(
            (str(self._python(number)), "-c", program),
            cwd=self._folder(number),
            env=self._environ(number),
            timeout=timeout,
        )
        if run(command, keep_open=self._held()).ok:
            mark.write_text("")

    def ask(self, number: int, requests: Iterable[Request]) -> list[Answer]:
        """Ask a release on its own socket, past the front door."""
        path = self._folder(number) / "app.sock"
        return [wire.ask(request, unix=path) for request in requests]

    # The switch ------------------------------------------------------------------

    def switch(self, number: int | None) -> dict[str, Any]:
        """Give traffic to a release by one rename, and read it back.

        None takes traffic from all: the front door then answers 503.
        """
        current = self.root / "current"
        if number is None:
            current.unlink(missing_ok=True)
        else:
            # A fresh name each time: a fixed one, left by a crash, would be followed.
            scratch = self.root / f".current-{secrets.token_hex(8)}"
            os.symlink(os.path.join("releases", f"v{number}"), scratch)
            os.rename(scratch, current)
        moved = time.time()
        _sync(self.root)
        if self._current() != number:
            raise StepFailed(
                f"current names v{self._current()} after a switch to v{number}",
                where=str(current),
                next="inv status",
            )
        return {"moved": moved}

    def front(self, port: int, timeout: float) -> dict[str, Any]:
        """Start the front door on a loopback port, or find it running."""
        front = self.door()
        if front.pid is not None:
            return {"port": front.port, "started": False}
        program = self.root / "front" / _front_name()
        if not program.exists():
            scratch = program.with_suffix(".new")
            shutil.copyfile(FRONT, scratch)
            os.replace(scratch, program)
        argv = (
            *(base_python(), "-I", str(program)),
            *("--state", str(self.root), "--port", str(port)),
        )
        with (self.root / "front" / "front.log").open("ab") as log:
            begun = log.tell()
            with _Notification() as notification:
                process = subprocess.Popen(
                    argv,
                    cwd=self.root,
                    env={**_basics(), "NOTIFY_SOCKET": notification.address},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                problem = notification.wait(process, timeout)
        if problem and process.poll() == _PORT_TAKEN:
            raise port_taken(port, _who_holds(port))
        if problem:
            _end((process.pid,), 1.0)
            raise StepFailed(
                f"the front door did not start: {problem}",
                where=str(self.root / "front" / "front.log"),
                detail=_tail(self.root / "front" / "front.log", begun),
                next="inv doctor",
            )
        return {"port": self.door().port, "started": True}

    # After the switch ------------------------------------------------------------

    def stop(self, number: int, timeout: float) -> dict[str, Any]:
        """End a release's processes: politely, and after `timeout` seconds for good.

        A release that has traffic is refused.
        """
        processes = self._running().get(number, ())
        return {"stopped": len(processes), "killed": _end(processes, timeout)}

    def retire(self, number: int) -> dict[str, Any]:
        """Ask a release to end by itself, without waiting for it."""
        master = _master(self._running().get(number, ()))
        if master is not None:
            _signal(master, signal.SIGTERM)
        return {"asked": master is not None}

    def close(self, timeout: float) -> dict[str, Any]:
        """End the front door."""
        front = self.door()
        if front.pid is not None:
            _end((front.pid,), timeout)
        return {"stopped": front.pid is not None}

    def prune(self, numbers: Sequence[int], keep_backups: int = 5) -> dict[str, Any]:
        """Remove releases, environments that none needs, and half-made leftovers.

        The release that has traffic is never removed, whatever the caller says.
        """
        current = self._current()
        for number in numbers:
            if number != current:
                # Renamed first: a half-removed release must not look like one.
                gone = self.releases / f".gone-{number}-{os.getpid()}"
                try:
                    os.rename(self._folder(number), gone)
                except FileNotFoundError:
                    continue
        needed = {
            slot.release.environment
            for slot in (self._slot(number, ()) for number in self._numbers())
            if slot.release
        }
        leftovers = [
            *(path for path in _listing(self.releases) if path.name.startswith(".")),
            *(path for path in _listing(self.environments) if path.name not in needed),
            *(
                path
                for path in _listing(self.root)
                if path.name.startswith(".current-")
            ),
            *_oldest(_listing(self.root / "backups"), but=keep_backups),
        ]
        for path in leftovers:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return {"removed": len(leftovers)}

    # Small parts -----------------------------------------------------------------

    def _python(self, number: int) -> Path:
        return self._folder(number) / "env" / "bin" / "python"

    def _environ(self, number: int) -> dict[str, str | None]:
        """Return the whole environment of a release's processes, nothing inherited."""
        try:
            said = json.loads((self._folder(number) / "environ.json").read_text())
        except (OSError, ValueError) as error:
            raise StepFailed(
                f"v{number} has lost its configuration: {error}",
                where=str(self._folder(number) / "environ.json"),
                next="inv deploy",
            ) from None
        inherited: dict[str, str | None] = dict.fromkeys(os.environ)
        lib = str(self._folder(number) / "lib")
        return {**inherited, **_basics(), **said, "PYTHONPATH": lib}

    def _held(self) -> tuple[int, ...]:
        held = self.lease.descriptor
        return (held,) if held >= 0 else ()

    def _run(self, argv: tuple[str, ...], timeout: float, what: str) -> Result:
        result = run(Command(argv, timeout=timeout, env=_UV), keep_open=self._held())
        if not result.ok:
            raise StepFailed(
                what,
                where=" ".join(argv[:3]),
                detail=result.tail(12),
                next="inv doctor",
            )
        return result


class _Notification:
    """Where a process says that it is ready, by systemd's sd_notify protocol."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # An abstract name: no file to remove, no limit of the path's length.
        self.address = f"@mltrading-{secrets.token_hex(12)}"

    def __enter__(self) -> _Notification:
        self.sock.bind("\0" + self.address[1:])
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def wait(self, process: subprocess.Popen[bytes], timeout: float) -> str:
        """Return "" once the process is ready, else why it never will be."""
        until = time.monotonic() + timeout
        ended = os.pidfd_open(process.pid)
        try:
            while True:
                left = until - time.monotonic()
                if left <= 0:
                    return f"it was not ready after {timeout:g} s"
                ready, _, _ = select.select([self.sock, ended], [], [], left)
                if self.sock in ready and b"READY=1" in self.sock.recv(4096):
                    return ""
                if ended in ready:
                    return f"it ended with exit code {process.wait()}"
        finally:
            os.close(ended)


# The release's environment is built by us alone: no warm-up, no surprise from outside.
_UV: dict[str, str | None] = {
    "VIRTUAL_ENV": None,
    "UV_PROJECT_ENVIRONMENT": None,
    "UV_PYTHON": None,
    "UV_LINK_MODE": "hardlink",
    "UV_NO_PROGRESS": "1",
}


def _basics() -> dict[str, str]:
    """Return the few variables of this user that every process needs."""
    names = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR")
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def base_python() -> str:
    """Return the interpreter below the checkout's environment, which may vanish."""
    return getattr(sys, "_base_executable", None) or sys.executable


def _front_name() -> str:
    """Return the file name of this version of the front door."""
    return f"front-{hashlib.sha256(FRONT.read_bytes()).hexdigest()[:12]}.py"


def _listing(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _processes() -> list[int]:
    return [int(path.name) for path in _listing(Path("/proc")) if path.name.isdigit()]


def _arguments(pid: int) -> list[str]:
    """Return a process's arguments; none for one that is gone or a zombie."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(part) for part in line.split(b"\0") if part]


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def _master(processes: tuple[int, ...]) -> int | None:
    """Return the process whose parent is none of the others."""
    for pid in processes:
        if _parent(pid) not in processes:
            return pid
    return None


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _end(processes: Sequence[int], timeout: float) -> int:
    """End processes: their master politely, after `timeout` seconds all for good.

    Returns how many had to be killed.

    Raises:
        StepFailed: a process outlives even that (it hangs inside the kernel).
    """
    watched: dict[int, int] = {}
    for pid in processes:
        try:
            watched[os.pidfd_open(pid)] = pid
        except ProcessLookupError:
            continue
    master = _master(tuple(processes))
    if master is not None:
        _signal(master, signal.SIGTERM)
    until = time.monotonic() + timeout
    killed = 0
    try:
        while watched:
            left = until - time.monotonic()
            if left <= 0 and killed:
                numbers = ", ".join(str(pid) for pid in watched.values())
                raise StepFailed(
                    f"processes {numbers} can't be ended",
                    next="look at them with ps; a reboot ends them",
                )
            if left <= 0:
                for pid in watched.values():
                    _signal(pid, signal.SIGKILL)
                killed, until = len(watched), time.monotonic() + 5
                continue
            for ended in select.select(list(watched), [], [], left)[0]:
                del watched[ended]
                os.close(ended)
    finally:
        for descriptor in watched:
            os.close(descriptor)
    return killed


def _who_holds(port: int) -> str:
    """Name the process that listens on a loopback port, as far as we may see."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == "0A":
                inodes.add(f"socket:[{fields[9]}]")
    for pid in _processes():
        for descriptor in _listing(Path(f"/proc/{pid}/fd")):
            try:
                held = os.readlink(descriptor) in inodes
            except OSError:
                continue
            if held:
                # Its name only: arguments of other programs are not ours to show.
                return f"process {pid} ({Path((_arguments(pid) or ['?'])[0]).name})"
    return "another program"


def _tail(path: Path, begun: int, lines: int = 15) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(begun, path.stat().st_size - 16_384))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _listens(path: Path) -> bool:
    """Say whether somebody takes calls on a unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            wire.dial(sock, path)
        except BlockingIOError:
            # A full queue is a busy listener.
            return True
        except OSError:
            return False
    return True


def _oldest(paths: Sequence[Path], *, but: int) -> list[Path]:
    """Return all but the newest files."""
    return sorted(paths, key=lambda path: path.stat().st_mtime)[:-but]


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    while not path.exists():
        path = path.parent
    return path


def _sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
