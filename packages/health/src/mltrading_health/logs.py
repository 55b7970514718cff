"""Write one line of JSON for each thing worth logging; plain text on a terminal.

Each line carries the release and the id of the request that it is about, and no secret.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any, TextIO

from mltrading_health.redact import STARS, names_secret, redactor

#: The id of the request that this thread answers; "" between requests.
request_id: ContextVar[str] = ContextVar("request_id", default="")

# What every record has; the rest was given as `extra`.
_USUAL = frozenset(
    vars(logging.LogRecord("", 0, "", 0, "", None, None)).keys()
    | {"message", "asctime", "taskName"}
)


def configure(
    level: str = "info",
    release: str = "",
    *,
    service: str = "",
    stream: TextIO | None = None,
    as_json: bool | None = None,
    secrets: Iterable[str] = (),
    also: Iterable[str] = ("gunicorn.error",),
) -> None:
    """Send every log of this process to a stream, by default stderr.

    Lines are JSON unless the stream is a terminal or ``as_json`` says otherwise.
    ``secrets`` are values that must never be seen. ``also`` names loggers that have
    handlers of their own, which ours replaces. Calling it again replaces what it did.

    Raises ValueError for a level that is none.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"{level!r} is no level; allowed: debug, info, warning, error")
    stream = sys.stderr if stream is None else stream
    if as_json is None:
        as_json = not stream.isatty()
    handler = Handler(stream)
    kind = Json if as_json else Text
    handler.setFormatter(kind(release, service, secrets))
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each, Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number)
    for name in also:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True


class Handler(logging.StreamHandler):
    """Mark the handler as ours, so that `configure` finds it again."""


class Json(logging.Formatter):
    """Write a record as one line of JSON."""

    def __init__(
        self, release: str = "", service: str = "", secrets: Iterable[str] = ()
    ) -> None:
        super().__init__()
        self.fixed = {"service": service, "release": release}
        self.covered = redactor(secrets)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line: time, level, logger, message, ids, extras, error, trace."""
        at = datetime.fromtimestamp(record.created, timezone.utc)
        said: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message(record),
            "request_id": request_id.get(),
            **self.fixed,
            "pid": record.process,
        }
        for name, value in extras(record).items():
            said.setdefault(name, value)
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            said["error"] = f"{type(error).__name__}: {error}"
            said["trace"] = self.formatException(record.exc_info)
        if record.stack_info:
            said["stack"] = record.stack_info
        there = {n: v for n, v in said.items() if v is not None and v != ""}
        return json.dumps(self._clean(there), ensure_ascii=False)

    def _clean(self, value: Any) -> Any:
        """Return a value as JSON can have it, its texts covered, however deep."""
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            # JSON has no such numbers as NaN, and readers refuse the line.
            return value if abs(value) < float("inf") else str(value)
        if isinstance(value, dict):
            return {
                self.covered(str(name)): (
                    STARS if names_secret(str(name)) else self._clean(each)
                )
                for name, each in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [self._clean(each) for each in value]
        return self.covered(str(value))


class Text(logging.Formatter):
    """Write a record as a line for people, its traceback below it."""

    converter = time.gmtime

    def __init__(
        self, release: str = "", service: str = "", secrets: Iterable[str] = ()
    ) -> None:
        super().__init__(
            "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s",
            "%Y-%m-%dT%H:%M:%S",
        )
        self.covered = redactor(secrets)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; extras and the request's id stand behind the message."""
        return self.covered(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the first line."""
        said = {**extras(record)}
        if request_id.get():
            said["request_id"] = request_id.get()
        behind = "".join(
            f" {name}={STARS if names_secret(name) else value}"
            for name, value in said.items()
        )
        return super().formatMessage(record) + behind


def message(record: logging.LogRecord) -> str:
    """Return a record's message; arguments that do not fit it are shown, not raised."""
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        return f"{record.msg} {record.args}"


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """Return what was given as `extra`, without what is private."""
    return {
        name: value
        for name, value in vars(record).items()
        if name not in _USUAL and not name.startswith("_")
    }
