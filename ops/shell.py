"""Run local Commands: the one door to other programs of this machine."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ops import folders
from ops.command import Command, Secret
from ops.errors import Refused

if TYPE_CHECKING:
    import subprocess


@dataclass(frozen=True, slots=True)
class Result:
    """How a Command ended: exit code, what it printed (text), seconds it took."""

    code: int
    out: str
    err: str
    seconds: float
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        return self.code == 0

    def tail(self, lines: int = 20) -> str:
        """Return the last lines that the program printed, errors last."""
        text = "\n".join(part.rstrip() for part in (self.out, self.err) if part.strip())
        return "\n".join(text.splitlines()[-lines:])


# The programs that run, and the seconds that each may take to put its things away.
_under_way: dict[subprocess.Popen[str], float] = {}
_guard = threading.Lock()

# What is read by us must hold no colours, whatever the user forces for terminals.
_PLAIN: dict[str, str | Secret | None] = {
    "NO_COLOR": "1",
    "FORCE_COLOR": None,
    "CLICOLOR_FORCE": None,
}


def environ(changes: dict[str, str | Secret | None]) -> dict[str, str]:
    """Return this process's environment with the changes applied.

    Where byte-code is not to be written beside the sources it goes to our cache
    folder instead: compiling every tool anew costs seconds on each run.
    """
    merged = dict(os.environ)
    name = "PYTHONDONTWRITEBYTECODE"
    if merged.get(name) and name not in changes:
        del merged[name]
        merged.setdefault("PYTHONPYCACHEPREFIX", str(folders.bytecode()))
    for name, value in changes.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = value.value if isinstance(value, Secret) else value
    return merged


def leave(command: Command, log: Path | None = None) -> int:
    """Start a Command that goes on when we end; return its pid.

    What it prints goes to the end of `log`, or nowhere.

    Raises:
        OSError: it can't be started, or the log can't be written.
    """
    import subprocess

    with open(log or os.devnull, "ab") as out:
        process = subprocess.Popen(
            command.argv,
            cwd=command.cwd,
            env=environ({**_PLAIN, **command.env}),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    # Nobody waits for it, which is meant: Popen must not warn of a child forgotten.
    process.returncode = 0
    return process.pid


def run(
    command: Command,
    *,
    keep_open: Iterable[int] = (),
    stream: bool = False,
    talk: bool = False,
) -> Result:
    """Run a Command to its end and return how it ended.

    The program gets a process group of its own, which is ended as a whole on a
    time-out or an interrupt. `keep_open` are descriptors it inherits (a lock that
    must outlive a killed deployer); `stream` lets it print for itself, `talk` only its
    errors and progress.

    Raises:
        Refused: the program is not installed.
    """
    # Not on top: an agent that only looks starts without it.
    import subprocess

    begun = time.monotonic()
    pipe = subprocess.PIPE
    own = stream or talk
    try:
        process = subprocess.Popen(
            command.argv,
            cwd=command.cwd,
            env=environ({**({} if own else _PLAIN), **command.env}),
            stdin=subprocess.DEVNULL,
            stdout=None if stream else pipe,
            stderr=None if own else pipe,
            text=True,
            errors="replace",
            start_new_session=True,
            pass_fds=tuple(keep_open),
        )
    except FileNotFoundError as error:
        raise Refused(
            f"{command.argv[0]} is not installed or not where it should be",
            where=str(error.filename),
            next="inv doctor",
        ) from None
    timed_out = False
    with _guard:
        _under_way[process] = command.grace
    try:
        out, err = process.communicate(timeout=command.timeout)
    except subprocess.TimeoutExpired:
        timed_out = True
        _end_group(process, command.grace)
        out, err = process.communicate()
    except BaseException:
        _end_group(process, command.grace)
        process.communicate()
        raise
    finally:
        with _guard:
            _under_way.pop(process, None)
    seconds = time.monotonic() - begun
    if timed_out:
        err = f"{err or ''}\ntimed out after {command.timeout:g} s"
    return Result(process.returncode, out or "", err or "", seconds, timed_out)


def end_all() -> None:
    """End every program that a thread of this process waits for, group by group."""
    with _guard:
        processes = tuple(_under_way.items())
    for process, grace in processes:
        _end_group(process, grace)


def _end_group(process: subprocess.Popen[str], grace: float) -> None:
    """End a program and everything it started."""
    import subprocess

    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(timeout=grace)
        except subprocess.TimeoutExpired:
            continue
