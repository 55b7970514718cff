"""How often one address may ask: so many requests in any minute.

Counted by minute on the clock. The minute before counts for the share of it that lies
within the last 60 seconds, so nobody gets twice as much around a full minute.
"""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from flask import Flask, request
from werkzeug.exceptions import TooManyRequests

from mltrading_marketdata.shared import connect

WINDOW_S = 60
# Of addresses: the one that was longest not heard of is forgotten.
MOST = 4096
# How long a shared cache that did not answer is left in peace.
REST_S = 5.0
# Files that browsers keep, and that cost next to nothing. Probes and metrics are
# answered before the dashboard hears of them.
FREE = ("/assets/", "/_dash-component-suites/")


@dataclass(frozen=True)
class Count:
    """Requests of one address: in the minute before, and in the one that runs."""

    before: int
    now: int


def wait(count: Count, limit: int, elapsed: float) -> float:
    """Return 0 where a request may be answered, else seconds until the next one may.

    `count` has the request in it; `elapsed` seconds of the running minute are over.
    """
    left = 1 - elapsed / WINDOW_S
    if count.before * left + count.now <= limit:
        return 0.0
    if count.now < limit:
        rest = (limit - count.now - 1) / count.before
        return max(0.0, WINDOW_S * (1 - rest) - elapsed)
    # What this minute holds has to leave the view in the next one.
    return WINDOW_S - elapsed + WINDOW_S * (1 - (limit - 1) / count.now)


def who(address: str | None) -> str:
    """Return under what an address is counted, "" for none.

    A visitor of IPv6 has a whole /64 to choose from, so that is what counts.
    """
    if not address:
        return ""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if found.version == 4:
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False).network_address)


class Counts(Protocol):
    """Requests by address and minute."""

    def add(self, name: str, minute: int) -> Count:
        """Count one more request of an address and return how many there are."""


class Own:
    """Counts of this worker alone, of at most `most` addresses."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: OrderedDict[str, tuple[int, Count]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, name: str, minute: int) -> Count:
        with self._lock:
            kept, count = self._kept.get(name, (minute, Count(0, 0)))
            if kept == minute:
                count = Count(count.before, count.now + 1)
            else:
                count = Count(count.now if kept == minute - 1 else 0, 1)
            self._kept[name] = minute, count
            self._kept.move_to_end(name)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return count


class Shared:
    """Counts of all workers and hosts, in a cache; a worker's own where it is away."""

    def __init__(
        self,
        client: Any,
        error: type[Exception],
        environment: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._error, self._clock = client, error, clock
        self._environment = environment
        self._own = Own()
        self._rests_until = 0.0

    def add(self, name: str, minute: int) -> Count:
        if self._clock() < self._rests_until:
            return self._own.add(name, minute)
        pipe = self._client.pipeline(transaction=False)
        pipe.incr(self._key(name, minute))
        pipe.expire(self._key(name, minute), 2 * WINDOW_S)
        pipe.get(self._key(name, minute - 1))
        try:
            now, _, before = pipe.execute()
        except (self._error, OSError):
            self._rests_until = self._clock() + REST_S
            return self._own.add(name, minute)
        return Count(int(before or 0), int(now))

    def _key(self, name: str, minute: int) -> str:
        return f"mltrading:rate:{self._environment}:{name}:{minute}"


def counts(cache_url: str, environment: str) -> Counts:
    """Return where to count: in the cache of that URL, in this worker for ""."""
    if not cache_url:
        return Own()
    return Shared(*connect(cache_url), environment)


def limit(
    server: Flask,
    per_minute: int,
    counts: Counts,
    clock: Callable[[], float] = time.time,
) -> None:
    """Answer 429 with Retry-After to who asks more often.

    Who has no address is not counted: a front door of this machine that tells none, or
    a deploy that asks on the release's own socket. Nobody could be told apart there.
    """

    @server.before_request
    def pace() -> None:
        name = who(request.remote_addr)
        if not name or request.path.startswith(FREE):
            return
        minute, elapsed = divmod(clock(), WINDOW_S)
        seconds = wait(counts.add(name, int(minute)), per_minute, elapsed)
        if seconds:
            raise TooManyRequests(
                f"more than {per_minute} requests in a minute",
                retry_after=math.ceil(seconds),
            )
