"""Requests that are sent side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ops import wire
from ops.command import Request


class Together(BaseHTTPRequestHandler):
    """Answers with its path, but only once four are asking."""

    four = threading.Barrier(4, timeout=10)

    def do_GET(self) -> None:
        self.four.wait()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Together) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_four_are_asked_at_once_and_answered_in_order(port: int) -> None:
    requests = [Request("GET", f"/{number}") for number in range(8)]
    answers = wire.ask_all(requests, port=port)
    assert [answer.body for answer in answers] == [b"/%d" % n for n in range(8)]


def test_nothing_asked_is_nothing_answered() -> None:
    assert wire.ask_all([], port=1) == []
