"""Slack's incoming webhooks, as far as they are documented, on a loopback port.

A payload that Slack would refuse is refused here too. `misbehave` says what happens to
the next requests: a status, "silent" (no answer until the double ends), "cut" (the
connection ends in the middle of an answer).
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

PATH = "/services/T0/B0/secret-token"


@dataclass
class Slack:
    """What arrived, and what is to go wrong."""

    port: int = 0
    messages: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0
    misbehave: list[int | str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{PATH}"

    def judge(self, path: str, kind: str, body: bytes) -> tuple[int, str]:
        """Return the status and the words with which Slack answers a post."""
        if path != PATH:
            return 404, "no_service"
        if kind != "application/json":
            return 400, "invalid_payload"
        try:
            said = json.loads(body)
        except ValueError:
            return 400, "invalid_payload"
        if not isinstance(said, dict):
            return 400, "invalid_payload"
        if not said.get("text") and not said.get("attachments"):
            return 400, "no_text"
        self.messages.append(said)
        return 200, "ok"


@contextmanager
def serving() -> Iterator[Slack]:
    """Serve webhooks while the block runs."""
    slack = Slack()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            slack.asked += 1
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = slack.misbehave.pop(0) if slack.misbehave else None
            if fault == "silent":
                slack.ended.wait()
                return
            status, said = (
                (fault, "server_error")
                if isinstance(fault, int)
                else slack.judge(self.path, self.headers["Content-Type"], body)
            )
            if fault == "cut":
                slack.messages.clear()
            self.send_response(status)
            if status in (301, 302, 307, 308):
                self.send_header("Location", slack.url)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            if fault == "cut":
                self.close_connection = True
                return
            self.wfile.write(said.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    slack.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield slack
    finally:
        slack.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
