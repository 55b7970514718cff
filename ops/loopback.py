"""Answer on 127.0.0.1 what the safety client asks its vendor before any command.

The client (3.8.1) fetches its login service's OpenID configuration and keys at every
start, also for `check --db`, and ends with a traceback where it gets no answer. It is
told the address through SAFETY_AUTH_SERVER_URL; no login and no key is involved.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        host, port = self.server.server_address[:2]
        base = f"http://{host}:{port}"
        if self.path == "/.well-known/openid-configuration":
            document: dict[str, object] = {
                "issuer": base,
                "jwks_uri": f"{base}/keys",
                "authorization_endpoint": f"{base}/none",
                "token_endpoint": f"{base}/none",
                "userinfo_endpoint": f"{base}/none",
            }
        elif self.path == "/keys":
            document = {"keys": []}
        else:
            self.send_error(404)
            return
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the client's own result is what counts."""


@contextlib.contextmanager
def login_service() -> Iterator[str]:
    """Serve the start-up answers while the block runs; yield their address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
