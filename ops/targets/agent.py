"""Act on one host: the only code that touches an environment's state folder.

Standard library only, and what few verbs need is imported by them: each connection to a
host starts an agent. Every method is one idempotent effect named by a release, takes
and returns plain values, and is called with the lease held; what calls it writes the
journal. Layout of the state folder:

    releases/v7/    lib/ (unpacked wheels) · env -> ../../envs/<hash> · release.json
                    environ.json (0600) · app.sock · app.pid · app.log
    envs/<hash>/    installed locked dependencies, shared by releases
    current         -> releases/v7, replaced by one rename(2): the traffic pointer
    front/          the front door's program and log; front.json says pid and port
    closed/         the maintenance page, and whether people get it
    state/          lock · holder.json · epoch · journal.jsonl · key · sticky.json
    data/ backups/  the embedded database and its copies
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ops import contents, wire
from ops.alerts import firing
from ops.command import Answer, Command, Request
from ops.errors import Refused, StepFailed
from ops.journal import Journal
from ops.lease import Lease
from ops.release import Release, record_digest
from ops.shell import Result, run
from ops.targets import closed, processes
from ops.targets.doors import Door, OwnDoor
from ops.targets.keepers import SLOT, Daemons, Keeper
from ops.targets.processes import listing
from ops.targets.sticky import SCRATCH, Sticky
from ops.world import Front, Host, Slot

# Files kept on a host that is reached over SSH: wheels, and agents (two files each).
_WHEELS = 30
_AGENTS = 6
# Seconds for which a look at a release's files holds; before a start all are read.
_FRESH = 5.0
# What of the data layer may be asked at any time, since it only reads.
CONSULTED = frozenset(("info", "page", "rejects", "runs", "schema"))
# What stands in words for the data layer for this environment's backups.
BACKUPS = "{backups}"
# In a release's folder: while it is there, /readyz answers 503 "draining".
MARK = "run/drain"
# Made anew at each start, readable by this user only (packages/health).
KEY = "run/token"


class Agent:
    """The hands on one host, for one environment's state folder.

    `shared`: the front door is another user's, who must be able to pass through the
    folders above a release's socket, and to read none of them.
    """

    def __init__(
        self,
        root: Path,
        keeper: Keeper | None = None,
        doorway: Door | None = None,
        *,
        shared: bool = False,
    ) -> None:
        self.root = root
        self.shared = shared
        self.keeper = keeper or Daemons(root / "releases")
        self.doorway = doorway or OwnDoor(root)
        self.passable = 0o711 if shared else 0o700
        self.releases = root / "releases"
        self.environments = root / "envs"
        self.state = root / "state"
        self.journal = Journal(self.state / "journal.jsonl")
        self.lease = Lease(self.state)
        self.sticky = Sticky(self.state / "sticky.json")
        # By the text of a record: what was found altered, and when.
        self._looked: dict[str, tuple[str, float]] = {}

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
            if self.shared:
                for path in (self.root.parent, self.root, self.releases):
                    path.chmod(self.passable)
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

    def take(
        self,
        doing: str,
        by: str,
        wait: float = 0.0,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Take the lease, and make ready what acting needs.

        Raises:
            Locked: somebody holds it. Refused: the disk is full or read-only.
        """
        self.prepare()
        self.journal.events()
        above = self.journal.highest
        try:
            self.lease.take(doing, by, wait=wait, tell=tell, above=above)
        except OSError as error:
            if error.errno != errno.ENOSPC or not self.journal.give_up_reserve():
                raise full(error, self.root) from None
            self.lease.take(doing, by, wait=wait, tell=tell, above=above)
        try:
            self.keeper.prepare()
        except BaseException:
            self.lease.release()
            raise

    def observe(self, port: int) -> Host:
        """Return what this host looks like, with the front door wanted on `port`."""
        running, records = self.keeper.running(), self._records()
        slots = [
            self._slot(number, running.get(number, ()), records)
            for number in sorted({*self._numbers(), *running})
        ]
        front = self.door(port)
        return Host(
            name=socket.gethostname(),
            current=self._current(),
            slots=tuple(slots),
            environments=frozenset(
                path.name
                for path in listing(self.environments)
                if (path / "READY").exists()
            ),
            front=front,
            port_holder=self.doorway.holder(port) if front.pid is None else "",
            free_disk=_free(self.root) // (1024 * 1024),
            python=self.python(),
            shut=closed.is_shut(self.root),
            resting=any(True for _ in self.releases.glob(f"v*/{MARK}")),
            firing=firing.watched(self.root / "run"),
        )

    def _numbers(self) -> list[int]:
        matches = [SLOT.fullmatch(path.name) for path in listing(self.releases)]
        return [int(match[1]) for match in matches if match]

    def _slot(
        self,
        number: int,
        pids: tuple[int, ...],
        records: Mapping[int, str] | None = None,
    ) -> Slot:
        """Return a release as it is here; whether it was altered, given `records`."""
        folder, altered = self._folder(number), ""
        release: Release | None = None
        try:
            text = (folder / "release.json").read_text()
            release = Release.parse(text)
        except (OSError, ValueError, TypeError, KeyError):
            text = ""
        if release is not None and records is not None:
            altered = self._seen(release, text, records)
        listens = bool(pids) and _listens(folder / "app.sock")
        stale = self._stale(release) if release is not None and pids else ()
        master = processes.master(pids)
        return Slot(number, release, master, pids, listens, altered, stale)

    def _stale(self, release: Release) -> tuple[str, ...]:
        """Return the secrets of which a release that runs has an old value."""
        folder = self._folder(release.number)
        return self.sticky.stale(folder, release, self.own(release.number))

    def _seen(self, release: Release, text: str, records: Mapping[int, str]) -> str:
        """Return what `_altered` says; a command looks at a host several times."""
        now = time.monotonic()
        said, at = self._looked.get(text, ("", -_FRESH))
        if now - at >= _FRESH:
            said = self._altered(release, text, records)
            self._looked[text] = (said, now)
        return said

    def _records(self) -> dict[int, str]:
        """Return the digest of each release's record, as this host's journal has it."""
        found = {}
        for event in self.journal.events()[0]:
            said = event.get("facts", {}).get("record")
            if said and event["phase"] == "begin" and event["op"] == "deploy":
                found[event["release"]] = said
        return found

    def _altered(
        self,
        release: Release,
        text: str,
        records: Mapping[int, str],
        *,
        whole: bool = False,
    ) -> str:
        """Return what of a release is not as it was staged, "" when all is.

        The journal holds the digest of the record, the record that of the list of
        files, the list that of each file.
        """
        if records.get(release.number) not in (None, record_digest(text)):
            return "release.json is not the record that the journal names"
        if not release.files:
            # Staged by an engine that kept no list.
            return ""
        return contents.altered(
            self._folder(release.number), release.files, whole=whole
        )

    def record_of(self, number: int) -> Release | None:
        """Return the record of a release, None where it is not whole."""
        return self._slot(number, ()).release

    def _current(self) -> int | None:
        try:
            match = SLOT.fullmatch(Path(os.readlink(self.root / "current")).name)
        except OSError:
            return None
        return int(match[1]) if match else None

    def door(self, port: int = 0) -> Front:
        """Return the front door that is open, if one is."""
        return self.doorway.seen(port)

    def python(self) -> str:
        """Return what a release's installed environment on this host depends on."""
        import platform

        return f"cpython-{platform.python_version()}-{platform.machine()}"

    def _folder(self, number: int) -> Path:
        return self.releases / f"v{number}"

    def key(self) -> bytes:
        """Return this environment's own key for digests of secrets."""
        path = self.state / "key"
        try:
            return path.read_bytes()
        except FileNotFoundError:
            fresh = os.urandom(32)
            if not self.state.exists():
                # A dry run on an empty machine leaves it empty.
                return fresh
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(fresh)
            return fresh

    def adopt_key(self, key: bytes) -> None:
        """Take over the key of the environment's other hosts."""
        path = self.state / "key"
        if not path.exists() or path.read_bytes() != key:
            scratch = path.with_name(f".key-{os.getpid()}")
            scratch.write_bytes(key)
            scratch.chmod(0o600)
            os.replace(scratch, path)

    # Before the switch -----------------------------------------------------------

    def install(
        self, name: str, requirements: Path, python: str, uv: str, timeout: float
    ) -> dict[str, Any]:
        """Install locked dependencies into envs/<name>, or find them there.

        Made under another name and renamed, so a killed install leaves nothing that
        looks whole. What the cache holds is used without asking the network.
        """
        import shutil

        from ops.targets import installed

        home = self.environments / name
        if (home / "READY").exists() and (home / "bin" / "python").exists():
            return {"made": False}
        # Its interpreter was moved or removed, it never became whole, or is so no more.
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
        installed.note(scratch, installed.entries(installed.site_of(scratch)))
        (scratch / "READY").write_text("")
        installed.place(scratch, home)
        _sync(self.environments)
        return {"made": True, "from_cache": cached.ok}

    def stage(
        self, release: str, wheels: Sequence[Path], environ: Mapping[str, str]
    ) -> dict[str, Any]:
        """Unpack a release into its slot; its record is written last.

        What came to lie on the disk is read back and must be what the record names.

        Raises:
            StepFailed: a wheel does not have the contents that it announces.
        """
        import shutil
        import zipfile

        record = Release.parse(release)
        folder = self._folder(record.number)
        shutil.rmtree(folder, ignore_errors=True)
        self._looked.pop(release, None)
        (folder / "lib").mkdir(parents=True)
        folder.chmod(self.passable)
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
        listed = contents.of_folder(folder / "lib")
        if record.files and contents.digest(listed) != record.files:
            wrong = contents.differs(contents.of_wheels(wheels), listed)
            raise StepFailed(
                f"{record.name} did not unpack to what its record names",
                where=f"{folder}/lib/{wrong}" if wrong else str(folder / "lib"),
                next="remove dist/ and run inv deploy again",
            )
        os.symlink(os.path.join("..", "..", "envs", record.environment), folder / "env")
        descriptor = os.open(
            folder / "environ.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600
        )
        with os.fdopen(descriptor, "w") as file:
            json.dump(dict(environ), file)
        contents.note(folder, listed)
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
        self, number: int, arguments: Sequence[str], timeout: float, hosts: int = 0
    ) -> dict[str, Any]:
        """Run the data layer of a release: migrate, seed, back up, ingest, reset.

        A word that begins with BACKUPS is a path there. It hears of the `hosts` of the
        environment where they matter.
        """
        folder = str(self.root / "backups")
        arguments = [
            folder + word.removeprefix(BACKUPS) if word.startswith(BACKUPS) else word
            for word in arguments
        ]
        # In the environment: a release that does not know of it passes it over.
        known = {"MLTRADING_HOSTS": str(hosts)} if hosts else {}
        command = ("-m", "mltrading_marketdata", *arguments, "--json")
        result = run(
            Command(
                (str(self._python(number)), *command),
                cwd=self._folder(number),
                env=self._environ(number) | known,
                timeout=timeout,
            ),
            keep_open=self._held(),
        )
        try:
            said = json.loads(result.out or "{}")
        except ValueError:
            said = {}
        if not result.ok:
            # A release that is older than this checkout does not know the word.
            unknown = result.code == 2
            raise StepFailed(
                f"the data layer could not {arguments[0]}",
                where=f"{self._folder(number).name}, exit code {result.code}",
                detail=result.tail(12),
                next=said.get("hint") or ("inv deploy" if unknown else "inv doctor"),
            )
        return said

    def carry(
        self, number: int, arguments: Sequence[str], folder: Path, timeout: float
    ) -> dict[str, Any]:
        """Run the data layer of a release on files that were brought to this host."""
        return self.data(number, [*arguments, str(folder)], timeout)

    def consult(
        self, number: int, arguments: Sequence[str], timeout: float
    ) -> dict[str, Any]:
        """Ask the data layer of a release something that changes nothing.

        Raises:
            Refused: it would change something.
        """
        shows = arguments[0] in ("begin", "migrate") and "--dry-run" in arguments
        if arguments[0] not in CONSULTED and not shows:
            raise Refused(f"{arguments[0]} is not asked without the lease")
        return self.data(number, arguments, timeout)

    def empty(self, number: int, days: float, timeout: float) -> dict[str, Any]:
        """Remove for good what of the database was set aside so many days ago."""
        return self.data(number, ["empty", "--older-than", f"{days:g}"], timeout)

    def migrate(
        self,
        number: int,
        seed: str,
        timeout: float,
        within: str = "",
        hosts: int = 1,
    ) -> dict[str, Any]:
        """Bring the database to a release's schema; back it up first if it changes.

        `within`: the revisions, such as 0001-0099, that other releases work on; the
        data layer looks at the database itself and refuses to leave them. It refuses,
        too, where the connections of two releases on all `hosts` are more than the
        server has left.
        """
        arguments = ["prepare", "--backup-dir", str(self.root / "backups")]
        if seed:
            arguments += ["--seed", seed]
        if within:
            arguments += ["--within", within]
        return self.data(number, arguments, timeout, hosts)

    def boot(self, number: int, timeout: float) -> dict[str, Any]:
        """Start a release on its own socket, beside whatever has traffic.

        Returns when its process says that the application is imported and its
        socket listens.

        Raises:
            StepFailed: it was altered since it was staged, or its dependencies were; or
                it ended or said nothing within `timeout` seconds, the last lines of its
                log are in the detail.
        """
        from ops.targets import installed

        folder = self._folder(number)
        there = self.keeper.running().get(number, ())
        release = self._whole(number)
        # What has traffic is never ended here, whatever it was started with.
        if there and _listens(folder / "app.sock"):
            if number == self._current() or not self._stale(release):
                return {"started": False}
        # Half of a release: one that is still ending, or workers without a master. Or
        # one that stands by with a value that was rotated since.
        if there:
            self.keeper.stop(number, timeout / 2)
        # The process table has just said that no master runs: what a power cut left
        # here is stale, and gunicorn would refuse a pid file whose number lives again.
        for name in ("app.sock", "app.pid"):
            (folder / name).unlink(missing_ok=True)
        for made in (folder / "run", self.root / "run"):
            made.mkdir(exist_ok=True)
        home = self.environments / release.environment
        # Beside the start, as thousands of files are looked at. Nobody is sent to it
        # before it is known what they are.
        altered = installed.beside(home)
        self._warm(number, timeout)
        log = folder / "app.log"
        begun = log.stat().st_size if log.exists() else 0
        environ = {
            **self._environ(number),
            "MLTRADING_RUNTIME_DIR": f"{folder}/run",
            # By these it knows whether it has traffic, and goes on where the one that
            # had it before has stopped.
            "MLTRADING_CURRENT": f"{self.root}/current",
            "MLTRADING_SHARED_DIR": f"{self.root}/run",
        }
        said = {name: value for name, value in environ.items() if value}
        self.sticky.note_start(folder, release)
        problem = self.keeper.start(number, said, timeout)
        if altered():
            self.halt(number, 2.0)
            # So that the next deploy installs them anew.
            installed.distrust(home)
            raise StepFailed(
                f"the dependencies of v{number} were altered on disk: {altered()}",
                where=str(home),
                next="inv deploy --force, which installs them anew",
            )
        if problem:
            # What has traffic and can't start answers nobody: it ends as any other.
            self.halt(number, 2.0)
            raise StepFailed(
                f"v{number} did not boot: {problem}",
                where=str(log),
                detail=processes.tail(log, begun),
                next="mend the code and run inv deploy again; the old version serves",
            )
        return {"started": True}

    def _whole(self, number: int) -> Release:
        """Read the whole of a release before it is started, and return its record.

        Raises:
            StepFailed: something of it is not as it was staged.
        """
        folder = self._folder(number)
        try:
            text = (folder / "release.json").read_text()
            release = Release.parse(text)
        except (OSError, ValueError, TypeError, KeyError) as error:
            problem = f"its record can't be read: {error}"
        else:
            problem = self._altered(release, text, self._records(), whole=True)
        if problem:
            raise StepFailed(
                f"v{number} was altered on disk and is not started: {problem}",
                where=str(folder),
                next="inv deploy, which makes a whole one; or inv rollback",
            )
        return release

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
        """Ask a release on its own socket, past the front door.

        With the key that it has laid into its runtime folder: whoever may read there is
        told what strangers are not, such as its metrics.
        """
        folder = self._folder(number)
        try:
            key = (folder / KEY).read_text().strip()
        except OSError:
            key = ""  # it lays none there, or has not begun
        own = {"Authorization": f"Bearer {key}"} if key else {}
        asked = [replace(each, headers={**each.headers, **own}) for each in requests]
        return wire.ask_all(asked, unix=folder / "app.sock")

    # The switch ------------------------------------------------------------------

    def switch(self, number: int | None) -> dict[str, Any]:
        """Give traffic to a release by one rename, and read it back.

        None takes traffic from all: the front door then answers 503. From here on the
        secrets of a newer release are the newest there are: it has passed its gate.
        """
        current = self.root / "current"
        if number is None:
            current.unlink(missing_ok=True)
        else:
            release = self.record_of(number)
            if release is not None and self.sticky.adopt(release, self.own(number)):
                _sync(self.state)
            # A fresh name each time: a fixed one, left by a crash, would be followed.
            scratch = self.root / f".current-{os.urandom(8).hex()}"
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

    def mark(self, numbers: Sequence[int]) -> dict[str, Any]:
        """Let releases say that they are not ready, so that balancers leave them."""
        for number in numbers:
            path = self._folder(number) / MARK
            # One that never ran has nobody to ask it.
            if path.parent.is_dir():
                path.touch()
        return {}

    def unmark(self) -> dict[str, Any]:
        """Let all releases of this host be ready again."""
        marks = list(self.releases.glob(f"v*/{MARK}"))
        for path in marks:
            path.unlink(missing_ok=True)
        return {"removed": len(marks)}

    def front(self, port: int, timeout: float) -> dict[str, Any]:
        """Open the front door on a port, or find it open."""
        return self.doorway.open(port, timeout, base_python())

    # After the switch ------------------------------------------------------------

    def stop(self, number: int, timeout: float) -> dict[str, Any]:
        """End a release's processes: politely, and after `timeout` seconds for good.

        Raises:
            Refused: it has traffic; only `halt` ends such a one.
        """
        self._refuse_current(number)
        return self.halt(number, timeout)

    def halt(self, number: int, timeout: float) -> dict[str, Any]:
        """End a release's processes, whether or not it has traffic: for `inv down`."""
        there = self.keeper.running().get(number, ())
        killed = self.keeper.stop(number, timeout)
        return {"stopped": len(there), "killed": killed}

    def shut(self, page: str) -> dict[str, Any]:
        """Show people the maintenance page, whatever has traffic."""
        closed.shut(self.root, page)
        return {}

    def reopen(self) -> dict[str, Any]:
        """Let people in again."""
        closed.reopen(self.root)
        return {}

    def retire(self, number: int) -> dict[str, Any]:
        """Ask a release to end by itself, without waiting for it.

        Raises:
            Refused: it has traffic.
        """
        self._refuse_current(number)
        return {"asked": self.keeper.retire(number)}

    def close(self, timeout: float) -> dict[str, Any]:
        """Close the front door."""
        return self.doorway.close(timeout)

    def prune(self, numbers: Sequence[int], keep_backups: int = 5) -> dict[str, Any]:
        """Remove releases, environments that none needs, and half-made leftovers.

        The release that has traffic is never removed, whatever the caller says.
        """
        import shutil

        current = self._current()
        for number in numbers:
            if number != current:
                # One that ends again and again is not to be started again.
                self.keeper.retire(number)
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
            *(path for path in listing(self.releases) if path.name.startswith(".")),
            *(path for path in listing(self.environments) if path.name not in needed),
            *(path for path in listing(self.root) if path.name.startswith(".current-")),
            *(path for path in listing(self.state) if path.name == SCRATCH),
            *_old_backups(listing(self.root / "backups"), but=keep_backups),
            *_oldest(listing(self.root / "wheels"), but=_WHEELS),
            *_oldest(listing(self.root / "agent"), but=_AGENTS),
        ]
        for path in leftovers:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return {"removed": len(leftovers)}

    # Small parts -----------------------------------------------------------------

    def _refuse_current(self, number: int) -> None:
        """Refuse to end what users are sent to, whoever asks for it and why."""
        if number == self._current():
            raise Refused(
                f"v{number} has traffic here and is not ended",
                where=str(self.root / "current"),
                allowed="a release without traffic",
                next="inv down, which ends all of them",
            )

    def _python(self, number: int) -> Path:
        return self._folder(number) / "env" / "bin" / "python"

    def variables(self, number: int) -> dict[str, str]:
        """Return a release's variables: its own, and the newest of sticky secrets."""
        release = self.record_of(number)
        over = self.sticky.over(release) if release is not None else {}
        return {**self.own(number), **over}

    def own(self, number: int) -> dict[str, str]:
        """Return the variables that a release was deployed with."""
        path = self._folder(number) / "environ.json"
        try:
            return dict(json.loads(path.read_text()))
        except (OSError, ValueError) as error:
            raise StepFailed(
                f"v{number} has lost its configuration: {error}",
                where=str(path),
                next="inv deploy",
            ) from None

    def _environ(self, number: int) -> dict[str, str | None]:
        """Return the whole environment of a release's processes, nothing inherited."""
        inherited: dict[str, str | None] = dict.fromkeys(os.environ)
        lib = str(self._folder(number) / "lib")
        said = self.variables(number)
        return {**inherited, **processes.basics(), **said, "PYTHONPATH": lib}

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


# The release's environment is built by us alone: no warm-up, no surprise from outside.
_UV: dict[str, str | None] = {
    "VIRTUAL_ENV": None,
    "UV_PROJECT_ENVIRONMENT": None,
    "UV_PYTHON": None,
    "UV_LINK_MODE": "hardlink",
    "UV_NO_PROGRESS": "1",
}


def full(error: OSError, root: Path) -> Refused:
    """Return the refusal to act where not even the lease can be noted."""
    return Refused(
        f"the state folder cannot be written: {error.strerror}",
        where=str(root),
        allowed="a folder of this user with free space",
        next="free some space; what serves goes on serving",
    )


def base_python() -> str:
    """Return the interpreter below the checkout's environment, which may vanish."""
    return getattr(sys, "_base_executable", None) or sys.executable


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


def _old_backups(paths: Sequence[Path], *, but: int) -> list[Path]:
    """Return all but the newest backups, each with what lies beside it: FILE.json."""
    files = [path for path in paths if path.suffix != ".json"]
    stay = {*files} - {*_oldest(files, but=but)}
    notes = {path.with_name(f"{path.name}.json") for path in stay}
    return [path for path in paths if path not in stay | notes]


def _free(path: Path) -> int:
    """Return the free space of the disk that holds a path, or will, in bytes."""
    disk = os.statvfs(_existing(path))
    return disk.f_bavail * disk.f_frsize


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
