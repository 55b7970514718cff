"""What several processes and hosts read once together: an optional cache beside them.

It is never needed. Where it does not answer, the database is asked, and it is left in
peace for a while. A key holds the version of its series, so nothing in it is ever
wrong, only old enough to leave.
"""

from __future__ import annotations

import hashlib
import json
import struct
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol
from urllib.parse import urlsplit

from .adjustment import Action
from .chunks import Stored
from .errors import StoreError

SCHEMES = ("valkey", "valkeys", "redis", "rediss", "unix")
# A cache that is slower than the database is of no use.
TIMEOUT_S = 0.1
REST_S = 5.0
_HEAD = struct.Struct("<II")
_ROW = struct.Struct("<IHI")


class Shared(Protocol):
    """Bytes by key. Neither method raises: no answer is nothing found."""

    def get(self, key: str) -> bytes | None:
        """Return what is held under a key, None where nothing is or nobody answers."""

    def put(self, key: str, value: bytes) -> None:
        """Hold a value for as long as the cache wishes."""


def open_shared(url: str, ttl_s: float) -> Shared:
    """Return the cache at a URL as `connect` takes it, and with its errors."""
    return _Valkey(*connect(url), ttl_s)


def connect(url: str) -> tuple[Any, type[Exception]]:
    """Return a client of the cache at a URL and what its methods raise beside OSError.

    valkey://host:port/0, the same as redis://; TLS: valkeys://. Nothing is connected to
    yet. Raises StoreError for a URL that can't be read, and where the client is not
    installed.
    """
    allowed = ", ".join(f"{scheme}://" for scheme in SCHEMES)
    try:
        parts = urlsplit(url)
        scheme, _ = parts.scheme, parts.port
    except ValueError:
        # The parser's own words quote the part it stumbled over.
        scheme = "?"
    if scheme not in SCHEMES:
        raise StoreError(f"CACHE_URL: unknown scheme {scheme!r}", f"use {allowed}")
    try:
        import valkey
    except ImportError as error:
        raise StoreError(
            "CACHE_URL is set, and the client of the cache is not installed",
            'pip install "mltrading-marketdata[valkey]", or unset CACHE_URL',
        ) from error
    client = valkey.Valkey.from_url(
        # The client knows the same protocol by its newer name only.
        f"{scheme.replace('redis', 'valkey')}{url[len(scheme) :]}",
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=None,
    )
    return client, valkey.ValkeyError


class _Valkey:
    def __init__(
        self,
        client: object,
        error: type[Exception],
        ttl_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._error = error
        self._ttl = max(1, round(ttl_s))
        self._clock = clock
        self._rests_until = 0.0

    def get(self, key: str) -> bytes | None:
        return self._ask(lambda: self._client.get(key))

    def put(self, key: str, value: bytes) -> None:
        self._ask(lambda: self._client.set(key, value, ex=self._ttl))

    def _ask(self, question: Callable[[], bytes | None]) -> bytes | None:
        if self._clock() < self._rests_until:
            return None
        try:
            return question()
        except (self._error, OSError):
            self._rests_until = self._clock() + REST_S
            return None


def key(where: str, series_id: int, interval: str, version: int) -> str:
    """Return the key of one series; several databases may share a cache."""
    database = hashlib.sha256(where.encode()).hexdigest()[:12]
    return f"mltrading:1:{database}:{series_id}:{interval}:{version}"


def packed(rows: list[Stored], actions: list[Action]) -> bytes:
    """Return the chunks and actions of a series as one value."""
    told = json.dumps([asdict(action) for action in actions]).encode()
    parts = [_HEAD.pack(len(told), len(rows)), told]
    for n, codec, payload in rows:
        parts += [_ROW.pack(n, codec, len(payload)), payload]
    return b"".join(parts)


def unpacked(value: bytes) -> tuple[list[Stored], list[Action]] | None:
    """Return what `packed` took, None for bytes that it did not make."""
    try:
        told, count = _HEAD.unpack_from(value)
        at = _HEAD.size + told
        actions = [Action(**one) for one in json.loads(value[_HEAD.size : at])]
        rows = []
        for _ in range(count):
            n, codec, size = _ROW.unpack_from(value, at)
            at += _ROW.size + size
            rows.append((n, codec, value[at - size : at]))
        return (rows, actions) if at == len(value) else None
    except (struct.error, ValueError, TypeError):
        return None
