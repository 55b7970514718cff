"""Answer probes outside the framework, and measure what the framework answers.

No session, redirect, rate limit or database connection of the app stands between a
prober and the answer.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mltrading_health.checks import Health, Status

if TYPE_CHECKING:
    from mltrading_health.metrics import Metrics

log = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]
Answer = tuple[str, str, bytes]  # status line, content type, body

OK = "200 OK"
UNAVAILABLE = "503 Service Unavailable"
OTHER = "<other>"
_CLASSES = {str(digit): f"{digit}xx" for digit in range(1, 6)}


def _json(status: str, content: Mapping[str, Any]) -> Answer:
    body = json.dumps(content, ensure_ascii=False).encode()
    return status, "application/json", body + b"\n"


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def health_answer(health: Health) -> Answer:
    """Say how the service is: 200 healthy, 503 degraded, 500 unhealthy.

    Names and booleans only. A warning is still healthy; what went wrong is in the log,
    under the error id if the question itself failed.
    """
    content = {"timestamp": _time(health.now()), "version": health.version}
    try:
        report = health.report()
    except Exception:
        # The last line of defence: a prober gets an answer whatever is broken.
        error_id = secrets.token_hex(6)
        log.exception("the health report failed, error id %s", error_id)
        content.update(status="unhealthy", error="internal", error_id=error_id)
        return _json("500 Internal Server Error", content)
    good = report.status is not Status.FAIL
    checks = {n: r.status is not Status.FAIL for n, r in report.checks.items()}
    content.update(status="healthy" if good else "degraded", checks=checks)
    return _json(OK if good else UNAVAILABLE, content)


def live_answer() -> Answer:
    """Say that this worker can answer; it asks nothing else."""
    return OK, "text/plain; charset=utf-8", b"ok\n"


def ready_answer(health: Health) -> Answer:
    """Say whether this service should get traffic: the critical checks, and drain."""
    if health.draining:
        return _json(UNAVAILABLE, {"status": "draining"})
    report = health.report("ready", critical=True)
    failed = sorted(n for n, r in report.checks.items() if r.status is Status.FAIL)
    if failed:
        return _json(UNAVAILABLE, {"status": "not ready", "failed": failed})
    return _json(OK, {"status": "ready"})


def version_answer(health: Health) -> Answer:
    """Say what runs here and since when."""
    return _json(
        OK,
        {
            "service": health.service,
            "version": health.version,
            "release": health.release,
            "artefact": health.artefact,
            "commit": health.commit,
            "started_at": _time(health.started_at),
        },
    )


def metrics_answer(health: Health, metrics: Metrics, accept: str) -> Answer:
    """Give all metrics: Prometheus text, or OpenMetrics to those who accept it."""
    body, content_type = metrics.render(health, accept)
    return OK, content_type, body


def wsgi(
    app: WSGIApp,
    health: Health,
    metrics: Metrics,
    *,
    route: Callable[[Environ], str | None] = lambda environ: None,
) -> WSGIApp:
    """Return ``app`` with the probes before it and a measurement around it.

    ``route`` gives the label of a request. It is asked after the app has returned, so
    the app may leave the label in the environ; None becomes "<other>".
    """
    probes: dict[str, Callable[[Environ], Answer]] = {
        "/health": lambda environ: health_answer(health),
        "/livez": lambda environ: live_answer(),
        "/readyz": lambda environ: ready_answer(health),
        "/version": lambda environ: version_answer(health),
        "/metrics": lambda environ: metrics_answer(
            health, metrics, environ.get("HTTP_ACCEPT", "")
        ),
    }
    signature = [("X-Release", health.release)] if health.release else []
    clock, in_progress = time.perf_counter, metrics.in_progress

    def probe(
        answer: Callable[[Environ], Answer], environ: Environ, start: StartResponse
    ) -> list[bytes]:
        method = environ["REQUEST_METHOD"]
        extra = [("Cache-Control", "no-store"), *signature]
        if method in ("GET", "HEAD"):
            status, content_type, body = answer(environ)
        else:
            status, content_type = "405 Method Not Allowed", "text/plain"
            body = b"GET or HEAD, please.\n"
            extra.append(("Allow", "GET, HEAD"))
        length = str(len(body))
        start(
            status,
            [("Content-Type", content_type), ("Content-Length", length), *extra],
        )
        return [] if method == "HEAD" else [body]

    def measured(environ: Environ, start: StartResponse) -> Iterable[bytes]:
        answer = probes.get(environ.get("PATH_INFO", ""))
        if answer is not None:
            return probe(answer, environ, start)
        line = "500"

        def sign(
            status: str, headers: list[tuple[str, str]], *problem: Any
        ) -> Callable[[bytes], Any]:
            nonlocal line
            line = status
            return start(status, [*headers, *signature], *problem)

        def end() -> None:
            in_progress.dec()
            metrics.answered(
                environ["REQUEST_METHOD"],
                route(environ) or OTHER,
                _CLASSES.get(line[:1], "other"),
                clock() - began,
            )

        began = clock()
        in_progress.inc()
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
