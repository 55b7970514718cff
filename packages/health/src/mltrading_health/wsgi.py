"""Answer probes outside the framework, and measure what the framework answers.

No session, redirect, rate limit or database connection of the app stands between a
prober and the answer.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator
from random import getrandbits
from typing import TYPE_CHECKING, Any

from mltrading_health.checks import Health
from mltrading_health.logs import request_id
from mltrading_health.probes import Environ, Probe, Probes

if TYPE_CHECKING:
    from mltrading_health.client import ClientTimings
    from mltrading_health.metrics import Metrics

StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

log = logging.getLogger(__name__)

OTHER = "<other>"
#: Seconds. A request that took longer is a line of the log, with its id: what people
#: look for first when SlowResponses calls them.
SLOW_S = 3.0
NO_CONTENT = "204 No Content"
#: Where the id of a request is in the environ.
REQUEST_ID = "mltrading.request_id"
_CLASSES = {str(digit): f"{digit}xx" for digit in range(1, 6)}
# Whatever else comes as an id is not written into a log.
_SANE_ID = re.compile(r"[\w.:+/=-]{1,128}", re.ASCII)


def wsgi(
    app: WSGIApp,
    health: Health,
    metrics: Metrics,
    *,
    route: Callable[[Environ], str | None] = lambda environ: None,
    client: ClientTimings | None = None,
) -> WSGIApp:
    """Return ``app`` with the probes before it and a measurement around it.

    ``route`` gives the label of a request. It is asked when the answer begins, so the
    app may leave the label in the environ; None is asked again when the answer has
    ended, and becomes "<other>". ``client`` takes
    what browsers post to /metrics/client. Each request has an id, its own X-Request-Id
    if that is sane: it is sent back, and is in each line of the log.
    """
    probes = Probes(health, metrics, client)
    metrics.follow(health)
    signature = [("X-Release", health.release)] if health.release else []
    common = [
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        *signature,
    ]
    clock, begin, count = time.perf_counter, metrics.begin, metrics.end
    # An id is no secret; this costs a fifth of what the kernel's random bytes do.
    find, sane, random = probes.at.get, _SANE_ID.fullmatch, getrandbits
    classes, name_it = _CLASSES, request_id.set

    def answered(probe: Probe, environ: Environ, start: StartResponse) -> list[bytes]:
        status, content_type, body, further = probes.answer(probe, environ)
        headers = [*further, *common]
        if status != NO_CONTENT:
            headers.append(("Content-Type", content_type))
            headers.append(("Content-Length", str(len(body))))
        start(status, headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def measured(environ: Environ, start: StartResponse) -> Iterable[bytes]:
        probe = find(environ.get("PATH_INFO", ""))
        if probe is not None:
            return answered(probe, environ, start)
        line, label = "500", None
        name = environ.get("HTTP_X_REQUEST_ID")
        if name is None or not sane(name):
            name = f"{random(64):016x}"
        environ[REQUEST_ID] = name
        name_it(name)

        def sign(
            status: str, headers: list[tuple[str, str]], *problem: Any
        ) -> Callable[[bytes], Any]:
            nonlocal line, label
            line = status
            if label is None:
                label = route(environ)
            headers += signature  # a server may change the list, says PEP 3333
            headers.append(("X-Request-Id", name))
            return start(status, headers, *problem)

        def end() -> None:
            method, named = environ["REQUEST_METHOD"], label or route(environ) or OTHER
            took = clock() - began
            count(method, named, classes.get(line[:1], "other"), took)
            if took > SLOW_S:
                words = "slow request: %s %s took %.3f s (%s)"
                log.warning(words, method, named, took, line[:3])
            # The next request in this thread has another one.
            name_it("")

        began = clock()
        begin()
        try:
            parts = app(environ, sign)
        except BaseException:
            line = "500"
            end()
            raise
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(parts, wrapper):
            end()  # a server sends such a file by itself only if it is not wrapped
            return parts
        return Measured(parts, end)

    return measured


class Measured:
    """Pass the parts of an answer on; call ``end`` once, when the server closes it."""

    __slots__ = ("parts", "end")

    def __init__(self, parts: Iterable[bytes], end: Callable[[], None]) -> None:
        self.parts = parts
        self.end: Callable[[], None] | None = end

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.parts)

    def close(self) -> None:
        """Let the app clean up, then take the time."""
        try:
            close = getattr(self.parts, "close", None)
            if close is not None:
                close()
        finally:
            end, self.end = self.end, None
            if end is not None:
                end()
