"""Keep notices until a channel took them; never change the verdict of a command.

A notice is a file before it is a message. A thread sends what waits while the command
goes on; `flush` gives it a few seconds at the end. What was not taken by then stays and
goes out with the next command, for a day. A command that is killed between a channel's
yes and the removal of the file makes a notice come twice, which is better than never.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ops import environment as environments
from ops import report
from ops.alerts.notice import Happening, Notice, compose, webhook
from ops.command import Command, Secret
from ops.environment import Environment
from ops.errors import OpsError, RevertFailed, aimed
from ops.plan import Plan
from ops.release import Release
from ops.shell import leave

# At the end of a command its person waits for no longer than this; what a channel has
# not taken by then, a process goes on sending that nobody waits for.
PATIENT = 0.3
# CI may end what a step leaves behind, so there the command itself waits.
SECONDS = 5.0
# When that process tries, in seconds after the try before.
_ROUNDS = (0.0, 2.0, 8.0, 20.0)
# One channel that is silent must leave time for the other.
_EACH = 2.0
# Yesterday's news about a deploy misleads.
_KEPT = 86_400.0
_MOST = 200

# Returns "" once somebody else has the notice, else why not, in one sentence.
Send = Callable[[Notice, Secret, float], str]


def _slack(notice: Notice, where: Secret, timeout: float) -> str:
    from ops.alerts import slack

    return slack.send(notice, where, timeout)


def _mail(notice: Notice, where: Secret, timeout: float) -> str:
    from ops.alerts import mail

    return mail.send(notice, where, timeout)


# Imported when used, which is in the sending thread: TLS costs a command 40 ms.
CHANNELS: dict[str, Send] = {"slack": _slack, "mail": _mail}


def address(channel: str, notice: Notice, environ: Mapping[str, str]) -> Secret | None:
    """Return where a channel sends a notice to, None where it is not configured."""
    if channel == "slack":
        return webhook(notice.environment, environ)
    url = environ.get("SMTP_URL")
    return Secret(url) if url and notice.recipients and notice.sender else None


class Outbox:
    """A folder of notices that wait, one file for each channel; no address in it."""

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str] = os.environ,
        *,
        channels: Mapping[str, Send] = CHANNELS,
        clock: Callable[[], float] = time.time,
        each: float = _EACH,
    ) -> None:
        self.folder = folder
        self.environ = environ
        self.channels = channels
        self.clock = clock
        self.each = each
        self.problems: list[str] = []
        self._tried: set[str] = set()
        self._thread: threading.Thread | None = None

    def post(self, notice: Notice) -> None:
        """Put a notice in for each channel that is configured, and begin to send.

        Raises:
            OSError: the folder cannot be written.
        """
        for channel in self.channels:
            if address(channel, notice, self.environ) is not None:
                self._write(f"{time.time_ns()}-{secrets.token_hex(4)}", channel, notice)
        self.kick()

    @property
    def busy(self) -> bool:
        """Say whether something is being sent at this moment."""
        return self._thread is not None and self._thread.is_alive()

    def waiting(self) -> list[Path]:
        """Return the notices that no channel took yet, oldest first."""
        try:
            return sorted(self.folder.glob("[0-9]*.json"))
        except OSError:
            return []

    def kick(self) -> None:
        """Send beside the command, unless that goes on already."""
        if self._untried() and not (self._thread and self._thread.is_alive()):
            self._thread = threading.Thread(target=self.send, daemon=True)
            self._thread.start()

    def flush(self, seconds: float = SECONDS) -> list[str]:
        """Wait at most `seconds` for what is being sent; return what went wrong."""
        until = time.monotonic() + seconds
        while True:
            self.kick()
            left = until - time.monotonic()
            if self._thread is None or left <= 0:
                break
            self._thread.join(left)
            if self._thread.is_alive() or not self._untried():
                break
        found, self.problems = self.problems, []
        if self._thread is not None and self._thread.is_alive():
            found = [*found, f"no answer within {seconds:g} s"]
        return list(dict.fromkeys(found))

    def send(self) -> None:
        """Try once each notice that this command has not tried."""
        for path in self.waiting()[:-_MOST]:
            path.unlink(missing_ok=True)
        while paths := self._untried():
            self._tried.add(paths[0].name)
            try:
                self._send(paths[0])
            except OSError as error:
                self.problems.append(error.strerror or str(error))

    def _send(self, path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        with os.fdopen(descriptor, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Another command sends this one at this moment.
                return
            if not os.fstat(file.fileno()).st_nlink:
                return
            found = _parsed(file.read())
            if found is None or found[1].at + _KEPT < self.clock():
                path.unlink(missing_ok=True)
                return
            channel, notice = found
            where = address(channel, notice, self.environ)
            if where is None or channel not in self.channels:
                # Not configured here; another shell may be.
                return
            problem = self.channels[channel](notice, where, self.each)
            if problem:
                self.problems.append(f"{channel}: {problem}")
            else:
                path.unlink(missing_ok=True)

    def _untried(self) -> list[Path]:
        return [path for path in self.waiting() if path.name not in self._tried]

    def _write(self, name: str, channel: str, notice: Notice) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        text = json.dumps({"channel": channel, "notice": asdict(notice)})
        scratch = self.folder / f".{name}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(scratch, flags, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(scratch, self.folder / f"{name}.json")


def _parsed(text: bytes) -> tuple[str, Notice] | None:
    try:
        said: dict[str, Any] = json.loads(text)
        fields = dict(said["notice"])
        fields["fields"] = tuple((str(k), str(v)) for k, v in fields["fields"])
        fields["recipients"] = tuple(fields["recipients"])
        return str(said["channel"]), Notice(**fields)
    except (ValueError, TypeError, KeyError):
        # A disk that was full, or a version that wrote it otherwise.
        return None


# What a command says to it ------------------------------------------------------------

_boxes: list[Outbox] = []


def opened() -> Outbox:
    """Return this command's outbox."""
    if not _boxes:
        _boxes.append(Outbox(environments.state_home() / "outbox"))
    return _boxes[0]


def kick() -> None:
    """Begin to send what an earlier command could not."""
    _guarded(opened().kick)


def flush(environ: Mapping[str, str] = os.environ) -> None:
    """Give what waits a moment at the end of a command, then leave it to a process."""
    if not _boxes:
        return
    box = opened()
    seconds = SECONDS if environ.get("CI") else PATIENT
    try:
        problems = _guarded(lambda: box.flush(seconds)) or ()
        if box.busy and not environ.get("CI"):
            problems = ()
            _guarded(_hand_over)
    except KeyboardInterrupt:
        # The command itself is over; only its message was still on the way.
        problems = ["interrupted"]
    for problem in problems:
        report.say(f"  not told: {problem}; the next command tries again", "yellow")


@contextmanager
def around(
    environment: Environment,
    plan: Plan,
    by: str,
    release: Release | None = None,
    *,
    notes: tuple[tuple[str, str], ...] = (),
    box: Outbox | None = None,
) -> Iterator[None]:
    """Tell that a plan begins and, whichever way it ends, how it ended."""
    if plan.empty:
        yield
        return
    about = Happening(
        event="rollback" if plan.op == "rollback" else "success",
        op=plan.op,
        by=by,
        at=0.0,
        release=plan.release,
        previous=plan.previous,
        commit=release.commit if release else "",
        artefact=release.artefact if release else "",
        notes=notes,
    )
    with ending(environment, about, begins=True, box=box):
        yield


@contextmanager
def ending(
    environment: Environment,
    about: Happening,
    *,
    begins: bool = False,
    box: Outbox | None = None,
) -> Iterator[None]:
    """Tell how an act ended: `about` where it went well, else that it failed.

    With `begins` also that it begins. What ends it passes through unchanged.
    """
    told = opened() if box is None else box
    begun = time.monotonic()

    def tell(event: str, **more: Any) -> None:
        def put() -> None:
            at = round(told.clock(), 3)
            happening = replace(about, event=event, at=at, **more)
            values = environment.resolved(told.environ).values()
            hidden = [value for value in values if isinstance(value, Secret)]
            notice = compose(environment.name, happening, told.environ, hidden)
            if notice is not None:
                told.post(notice)

        _guarded(put)

    if begins:
        tell("start")
    try:
        yield
    except BaseException as error:
        took = time.monotonic() - begun
        critical = isinstance(error, RevertFailed)
        said = error.next if isinstance(error, OpsError) else ""
        next = aimed(said, environment.name)
        tell(
            "failure",
            reason=_reason(error),
            next=next,
            seconds=took,
            critical=critical,
        )
        raise
    tell(about.event, seconds=time.monotonic() - begun)


def _hand_over() -> None:
    """Go on sending in a process of its own; addresses go by its environment."""
    leave(Command((sys.executable, "-m", "ops.alerts.outbox"), cwd=environments.ROOT))


def main() -> None:
    """Send what waits, for half a minute, when the command that wrote it has ended."""
    for pause in _ROUNDS:
        time.sleep(pause)
        box = Outbox(environments.state_home() / "outbox", each=10.0)
        box.flush(30.0)
        if not box.waiting():
            return


def _reason(error: BaseException) -> str:
    if isinstance(error, OpsError):
        return error.what
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return f"a defect of the engine: {type(error).__name__}"


def _guarded(act: Callable[[], Any]) -> Any:
    """Do something about notices; whatever goes wrong is said and forgotten.

    Broad on purpose: a deploy that went well must not end as failed because a message
    about it could not be made.
    """
    try:
        return act()
    except Exception as error:
        said = error.strerror if isinstance(error, OSError) else ""
        report.say(f"  not told: {said or type(error).__name__}", "yellow")
        return None


if __name__ == "__main__":
    main()
