"""Take in what browsers have measured: bounded, checked, and without who they are.

A report is JSON of at most 4 KiB, times in milliseconds, in any of these forms::

    {"load_time": 812, "page": "charts", "timestamp": …, "user_agent": …}
    {"page": "charts", "load_time": 812, "vitals": [{"name": "LCP", "value": 903.1}, …]}
    {"name": "LCP", "value": 903.1, …}      or a list of these, as web-vitals gives them

All of it is counted or nothing. What else is in it is not looked at, nor kept.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mltrading_health.metrics import Metrics

Answer = tuple[str, str, bytes]  # status line, content type, body

LARGEST_BODY = 4096
MOST_ITEMS = 20
#: Milliseconds; a page that takes longer has been asleep.
LONGEST_MS = 600_000
#: A layout that moves more has no user any more.
LARGEST_SHIFT = 100
TIMES = frozenset({"LCP", "INP", "FCP", "TTFB"})
SHIFT = "CLS"
#: What nobody needs to send but some do; it must look right and is dropped.
DROPPED: Mapping[str, tuple[type, ...]] = {
    "timestamp": (int, float, str),
    "user_agent": (str,),
}
TYPES = frozenset({"application/json", "text/plain"})
#: Seconds. Hold the bounds between good and poor that web-vitals uses.
VITAL_BUCKETS = (
    *(0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.8, 2.5, 3.0, 4.0),
    *(5.0, 10.0, 30.0),
)
SHIFT_BUCKETS = (0.01, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0)
REFUSALS = {
    "invalid": ("400 Bad Request", "not a report of timings"),
    "origin": ("403 Forbidden", "only pages of this site report here"),
    "large": ("413 Content Too Large", f"a report has at most {LARGEST_BODY} bytes"),
    "type": ("415 Unsupported Media Type", "application/json or text/plain, please"),
    "rate": ("429 Too Many Requests", "later, please"),
}


class Refused(Exception):
    """Say by a key of REFUSALS why a report is not counted."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Allow ``burst`` at once and ``per_second`` in the long run."""

    per_second: float
    burst: float


class Limits:
    """Keep a bucket of tokens for each client, and one for this worker.

    Of ``most`` clients: the one that was longest not heard of is forgotten, which the
    worker's own bucket makes harmless.
    """

    def __init__(self, client: Rate, worker: Rate, most: int = 1024) -> None:
        self.client, self.worker, self.most = client, worker, most
        self._worker = (worker.burst, 0.0)
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, client: str, now: float) -> bool:
        """Take a token of the client and one of the worker, if both have one."""
        with self._lock:
            tokens, at = self._clients.get(client, (self.client.burst, now))
            tokens = _filled(self.client, tokens, at, now)
            mine = _filled(self.worker, *self._worker, now)
            allowed = tokens >= 1 and mine >= 1
            if allowed:
                tokens, mine = tokens - 1, mine - 1
            self._clients[client] = (tokens, now)
            self._clients.move_to_end(client)
            if len(self._clients) > self.most:
                self._clients.popitem(last=False)
            self._worker = (mine, now)
        return allowed


def _filled(rate: Rate, tokens: float, at: float, now: float) -> float:
    return min(rate.burst, tokens + (now - at) * rate.per_second)


class ClientTimings:
    """Count what browsers report about the pages of a service.

    ``pages`` are the names that are told apart. ``proxies`` is how many proxies of ours
    add a client's address to X-Forwarded-For; 0 believes the connection only.
    """

    def __init__(
        self,
        metrics: Metrics,
        pages: Collection[str],
        *,
        proxies: int = 0,
        client: Rate = Rate(1.0, 60),
        worker: Rate = Rate(50.0, 200),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.proxies, self.clock = proxies, clock
        self.limits = Limits(client, worker)
        self.load = metrics.histogram(
            "browser_page_load_seconds",
            "From the start of a visit to the end of its load event",
            {"page": pages},
        )
        self.vitals = metrics.histogram(
            "browser_web_vital_seconds",
            "LCP, INP, FCP and TTFB as browsers measure them",
            {"vital": TIMES, "page": pages},
            buckets=VITAL_BUCKETS,
        )
        self.shift = metrics.histogram(
            "browser_layout_shift",
            "Cumulative layout shift (CLS), a score without a unit",
            {"page": pages},
            buckets=SHIFT_BUCKETS,
        )
        self.refused = metrics.counter(
            "browser_reports_refused",
            "Reports that were not counted",
            {"reason": REFUSALS},
        )

    def receive(self, environ: Mapping[str, Any]) -> Answer:
        """Count the report in a POST request; the answer holds nothing of it.

        204, or why it is not counted: 400, 403, 413, 415, 429.
        """
        try:
            body = self._admitted(environ)
            for histogram, value in list(self._values(body)):
                histogram.observe(value)
        except Refused as refused:
            reason = str(refused)
            self.refused.labels(reason).inc()
            status, text = REFUSALS[reason]
            return status, "text/plain; charset=utf-8", text.encode() + b"\n"
        return "204 No Content", "", b""

    def _admitted(self, environ: Mapping[str, Any]) -> bytes:
        """Return the body of a request that we want to read."""
        if not same_origin(environ):
            raise Refused("origin")
        kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        if kind not in TYPES:
            raise Refused("type")
        length = environ.get("CONTENT_LENGTH") or ""
        if length.isdecimal() and len(length) <= 18:
            size = int(length)
        elif not length and environ.get("wsgi.input_terminated"):
            size = LARGEST_BODY + 1  # sent in chunks
        else:
            raise Refused("large" if length.isdecimal() else "invalid")
        if size > LARGEST_BODY and length:
            raise Refused("large")
        if not self.limits.take(self._client(environ), self.clock()):
            raise Refused("rate")
        body = environ["wsgi.input"].read(size)
        if len(body) > LARGEST_BODY:
            raise Refused("large")
        return body

    def _client(self, environ: Mapping[str, Any]) -> str:
        """Return the address that our outermost proxy saw, or the connection's."""
        if self.proxies:
            told = environ.get("HTTP_X_FORWARDED_FOR", "").split(",")
            return told[max(-self.proxies, -len(told))].strip()[:64]
        return environ.get("REMOTE_ADDR", "")

    def _values(self, body: bytes) -> Iterator[tuple[Any, float]]:
        """Yield histograms and what to add to each, at least one.

        Raises:
            Refused: it is not a report, or a number is not possible.
        """
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            raise Refused("invalid") from None
        page, items = "", said
        if isinstance(said, dict):
            page = _page(said)
            for name, kinds in DROPPED.items():
                if name in said and not isinstance(said[name], kinds):
                    raise Refused("invalid")
            items = said.get("vitals", [])
            if "name" in said:
                items = [said]
        if not isinstance(items, list) or len(items) > MOST_ITEMS:
            raise Refused("invalid")
        loaded = items is not said and "load_time" in said
        if not items and not loaded:
            raise Refused("invalid")
        if loaded:
            seconds = _number(said["load_time"], LONGEST_MS) / 1000
            yield self.load.labels(page), seconds
        for item in items:
            if not isinstance(item, dict):
                raise Refused("invalid")
            name, of = item.get("name"), _page(item) or page
            if name == SHIFT:
                yield self.shift.labels(of), _number(item.get("value"), LARGEST_SHIFT)
            elif isinstance(name, str) and name in TIMES:
                seconds = _number(item.get("value"), LONGEST_MS) / 1000
                yield self.vitals.labels(name, of), seconds
            else:
                raise Refused("invalid")


def same_origin(environ: Mapping[str, Any]) -> bool:
    """Tell whether a browser says that a page of this host has sent a request.

    What is not a browser says nothing, and has no visitor whom it could abuse.
    """
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None:
        return site == "same-origin"
    origin = environ.get("HTTP_ORIGIN")
    if origin is None:
        return True
    host = environ.get("HTTP_HOST", "")
    return origin.partition("://")[2].lower() == host.lower() != ""


def _page(said: Mapping[str, Any]) -> str:
    page = said.get("page", "")
    if not isinstance(page, str):
        raise Refused("invalid")
    return page


def _number(value: Any, most: float) -> float:
    """Return a number from 0 to ``most``; NaN is none."""
    if type(value) not in (int, float) or not 0 <= value <= most:
        raise Refused("invalid")
    return value
