"""Answer /health, /livez, /readyz, /startupz, /version, /metrics, /metrics/client.

An answer is (status line, content type, body, further headers). Nothing here raises:
what is broken is a 500 with an error id, and the log says under it what was raised.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from mltrading_health import answers
from mltrading_health.accept import choose, naming
from mltrading_health.answers import (
    BROKEN,
    CONTENT_TYPES,
    DRAFT,
    JSON,
    OK,
    TEXT,
    UNAVAILABLE,
)
from mltrading_health.checks import Health, Report, Status

if TYPE_CHECKING:
    from mltrading_health.client import ClientTimings
    from mltrading_health.metrics import Metrics

log = logging.getLogger(__name__)

Environ = dict[str, Any]
Headers = tuple[tuple[str, str], ...]
Answer = tuple[str, str, bytes, Headers]
Query = Mapping[str, list[str]]
#: The methods that it takes, and what answers.
Probe = tuple[tuple[str, ...], Callable[[Environ], Answer]]

PLAIN = CONTENT_TYPES[TEXT]
OPENMETRICS = "application/openmetrics-text"
# What there is to choose from, by the name in ?format=; the first one is for those who
# do not say what they want.
Offers = Mapping[str, str]
_HEALTH: Offers = {"json": JSON, "health+json": DRAFT, "text": TEXT}
_READY: Offers = {"json": JSON, "text": TEXT}
_METRICS: Offers = {"text": TEXT, "openmetrics": OPENMETRICS, "json": JSON}
_READ, _POST = ("GET", "HEAD"), ("POST",)
_VARY = (("Vary", "Accept"),)
_LIVE: Answer = (OK, PLAIN, b"ok\n", ())
_STARTING: Answer = (UNAVAILABLE, PLAIN, b"starting\n", ())
_CLOSED: Answer = (
    "401 Unauthorized",
    PLAIN,
    b"This needs a bearer token.\n",
    (("WWW-Authenticate", 'Bearer realm="metrics"'),),
)


class _Refused(Exception):
    """A query asks for what there is not; says what there is."""


class Probes:
    """Know which probe is at which path.

    `at` holds them; a slash at the end of a path makes no difference. It is no redirect
    either, as probers take one for a yes.
    """

    def __init__(
        self, health: Health, metrics: Metrics, client: ClientTimings | None = None
    ) -> None:
        self.known, self.metrics = health, metrics
        # The last body in each form, with the report that it was written from.
        self._bodies: dict[tuple[str, str, bool], tuple[Report, tuple[str, Any]]] = {}
        named: dict[str, Callable[[Environ], Answer]] = {
            "/health": self.health,
            "/livez": self.live,
            "/readyz": self.ready,
            "/startupz": self.startup,
            "/version": self.version,
            "/metrics": self.counted,
            "/metrics.json": self.figures,
        }
        self.at: dict[str, Probe] = {
            path + end: (_READ, probe)
            for path, probe in named.items()
            for end in ("", "/")
        }
        if client is not None:
            self.at["/metrics/client"] = (_POST, lambda e: (*client.receive(e), ()))

    def answer(self, probe: Probe, environ: Environ) -> Answer:
        """Return what a probe answers, whatever is broken."""
        methods, asked = probe
        if environ["REQUEST_METHOD"] not in methods:
            allowed = ", ".join(methods)
            body = f"{allowed}, please.\n".encode()
            return "405 Method Not Allowed", PLAIN, body, (("Allow", allowed),)
        try:
            return asked(environ)
        except _Refused as error:
            return "400 Bad Request", PLAIN, f"{error}\n".encode(), ()
        except Exception:
            error_id = secrets.token_hex(6)
            log.exception("a probe failed, error id %s", error_id)
            return self._broken(environ, error_id)

    def _broken(self, environ: Environ, error_id: str) -> Answer:
        said = f"internal error, error id {error_id}"
        if environ.get("PATH_INFO", "").rstrip("/") != "/health":
            return BROKEN, PLAIN, f"{said}\n".encode(), ()
        form = _form(environ, _HEALTH, _query(environ))
        if form == TEXT:
            body = f"[-]{said}\nhealth check failed\n".encode()
        elif form == DRAFT:
            body = answers.as_json({"status": "fail", "output": said})
        else:
            body = answers.as_json(
                {
                    "status": "unhealthy",
                    "timestamp": answers.moment(self.known.now()),
                    "version": self.known.version,
                    "error": "internal",
                    "error_id": error_id,
                }
            )
        return BROKEN, CONTENT_TYPES[form], body, _VARY

    def live(self, environ: Environ) -> Answer:
        """Say that this worker can answer; it asks nothing else."""
        return _LIVE

    def startup(self, environ: Environ) -> Answer:
        """Say whether the start is over."""
        return _STARTING if self.known.starting else _LIVE

    def health(self, environ: Environ) -> Answer:
        """Say how the service is: 200 healthy, 503 degraded; a warning is healthy."""
        query = environ.get("QUERY_STRING") and _query(environ)
        form = _form(environ, _HEALTH, query)
        detailed = self._detailed(environ)
        report = self.known.report()
        status, body = self._body("health", form, detailed, report)
        if form == JSON:
            now = answers.moment(self.known.now()).encode()
            body = body[0] + now + body[1]
        return status, CONTENT_TYPES[form], body, _VARY

    def ready(self, environ: Environ) -> Answer:
        """Say whether this service should get traffic: start, drain, critical checks.

        `?exclude=NAME` leaves a check out.
        """
        query = environ.get("QUERY_STRING") and _query(environ)
        form = _form(environ, _READY, query)
        away = (
            "starting"
            if self.known.starting
            else "draining" if self.known.draining else ""
        )
        if away:
            text = f"[-]{away}\nready check failed\n".encode()
            body = text if form == TEXT else answers.as_json({"status": away})
            return UNAVAILABLE, CONTENT_TYPES[form], body, _VARY
        left_out = frozenset(query.get("exclude", ())) if query else frozenset()
        report = self.known.report("ready", critical=True, exclude=left_out)
        status, body = self._body("ready", form, self._detailed(environ), report)
        return status, CONTENT_TYPES[form], body, _VARY

    def version(self, environ: Environ) -> Answer:
        """Say what runs here and since when."""
        said = {
            "service": self.known.service,
            "version": self.known.version,
            "release": self.known.release,
            "artefact": self.known.artefact,
            "commit": self.known.commit,
            "started_at": answers.moment(self.known.started_at),
        }
        return OK, JSON, answers.as_json(said), ()

    def counted(self, environ: Environ) -> Answer:
        """Give all metrics: text, or OpenMetrics or JSON to those who accept it."""
        if not self.known.opens_to(environ.get("HTTP_AUTHORIZATION", "")):
            return _CLOSED
        query = environ.get("QUERY_STRING") and _query(environ)
        form = _form(environ, _METRICS, query)
        if form == JSON:
            return self.figures(environ)
        # The library would look at the header without its q; it sees what was chosen.
        wanted = naming(environ.get("HTTP_ACCEPT", ""), form)
        if form == OPENMETRICS and not wanted:
            wanted = OPENMETRICS
        body, content_type = self.metrics.render(self.known, wanted)
        return OK, content_type, body, _VARY

    def figures(self, environ: Environ) -> Answer:
        """Give the figures that people ask for, as JSON."""
        if not self.known.opens_to(environ.get("HTTP_AUTHORIZATION", "")):
            return _CLOSED
        said = self.metrics.snapshot(self.known).to_json()
        return OK, JSON, answers.as_json(said), _VARY

    def _detailed(self, environ: Environ) -> bool:
        authorization = environ.get("HTTP_AUTHORIZATION")
        return bool(authorization) and self.known.knows(authorization)

    def _body(
        self, name: str, form: str, detailed: bool, report: Report
    ) -> tuple[str, Any]:
        """Return status line and body, written out once for each report."""
        kept = self._bodies.get((name, form, detailed))
        if kept is None or kept[0] is not report:
            body = self._written(name, form, detailed, report)
            kept = report, (answers.code(report), body)
            self._bodies[name, form, detailed] = kept
        return kept[1]

    def _written(self, name: str, form: str, detailed: bool, report: Report) -> Any:
        if form == TEXT:
            return answers.lines(report, name, detailed)
        if form == DRAFT:
            return answers.draft(self.known, report, detailed)
        if name == "health":
            return answers.seed(self.known, report, detailed)
        failed = sorted(n for n, r in report.checks.items() if r.status is Status.FAIL)
        if failed:
            return answers.as_json({"status": "not ready", "failed": failed})
        return answers.as_json({"status": "ready"})


def _query(environ: Environ) -> Query:
    text = environ.get("QUERY_STRING", "")
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise _Refused("At most 20 fields in a query, please.") from None


def _form(environ: Environ, offers: Offers, query: Query | str | None) -> str:
    """Return which of the offers is wanted: ?format=, ?verbose, Accept, in this order.

    Raises _Refused for a format that is not on offer.
    """
    if query:
        if "format" in query:
            # A plus in a query is a blank.
            name = query["format"][-1].replace(" ", "+")
            if name not in offers:
                raise _Refused(f"format is one of: {', '.join(offers)}.")
            return offers[name]
        if "verbose" in query and "text" in offers:
            return TEXT
    return choose(environ.get("HTTP_ACCEPT", ""), tuple(offers.values()))
