"""A provider of bars on a loopback port: gives recorded answers, and can misbehave.

`answers` maps a path to a status and a body. `misbehave` says what happens to the next
requests: a status such as 500, a pair of status and headers (429 with Retry-After), or

    "silent"   no answer until the double ends
    "trickle"  an answer that comes a byte at a time and never ends
    "cut"      the connection ends in the middle of the answer
    "html"     200 with a page, as from a proxy or a wall of consent
    "empty"    200 with nothing
"""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

PAGE = b"<!DOCTYPE html><html><body>Will be right back</body></html>"


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]


@dataclass
class Provider:
    """What is answered, what was asked, what is to go wrong."""

    port: int = 0
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    misbehave: list[int | str | tuple[int, dict[str, str]]] = field(
        default_factory=list
    )
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serving() -> Iterator[Provider]:
    """Serve answers while the block runs."""
    provider = Provider()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query))
            provider.asked.append(Asked(parts.path, query, dict(self.headers)))
            fault = provider.misbehave.pop(0) if provider.misbehave else None
            status, body = provider.answers.get(parts.path, (404, b"{}"))
            headers: dict[str, str] = {}
            if fault == "silent":
                provider.ended.wait()
                return
            if fault == "html":
                status, body = 200, PAGE
            elif fault == "empty":
                status, body = 200, b""
            elif isinstance(fault, tuple):
                (status, headers), body = fault, b""
            elif isinstance(fault, int):
                status, body = fault, b"something went wrong"
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if fault == "trickle":
                self.end_headers()
                self.close_connection = True
                while not provider.ended.wait(0.01):
                    try:
                        self.wfile.write(b" ")
                    except OSError:
                        return
                return
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if fault == "cut":
                body = body[: len(body) // 2]
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        provider.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
