"""Values that say what to do; they cannot do it.

A Command is built by whoever decides and run by `ops.shell`; a Secret travels in it
without ever becoming text on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that prints as stars; only a door may reveal it."""

    value: str = field(repr=False)

    def __str__(self) -> str:
        return "***"

    def __repr__(self) -> str:
        return "Secret(***)"


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run: argument list, folder, environment, time-out in seconds.

    `env` is added to the caller's environment, a None value removes the name. A
    program that is ended may take `grace` seconds to put its things away.
    """

    argv: tuple[str, ...]
    cwd: Path | None = None
    env: Mapping[str, str | Secret | None] = field(default_factory=dict)
    timeout: float = 600.0
    grace: float = 2.0

    def __str__(self) -> str:
        return " ".join(self.argv)


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request: method, path, headers, body; the door adds the address."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status (0 when nothing did), headers in lower case, body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    seconds: float = 0.0
    error: str = ""
