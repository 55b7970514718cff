"""A dashboard small enough to boot in a tenth of a second; its faults are planted.

It answers what the engine asks of a release: health, version, pages with their
headers, the description of its callbacks and the one that draws a page.
"""

import json
import os
import socket
import time
from urllib.parse import urlsplit

# Replaced when a checkout is made: which version this is, and what is wrong with it.
MARK = "a"
FAULT = ""

RELEASE = os.environ["MLTRADING_RELEASE"]
ARTEFACT = os.environ["MLTRADING_ARTEFACT"]
DATABASE = urlsplit(os.environ["DATABASE_URL"])
BEGUN = time.monotonic()
_DRAWS = {
    "output": "page.children",
    "inputs": [{"id": "url", "property": "pathname"}],
    "state": [],
}
_SAFE = [("X-Content-Type-Options", "nosniff"), ("X-Frame-Options", "DENY")]

if FAULT == "raises":
    raise RuntimeError("planted: the application can't be imported")
if FAULT == "slow":
    time.sleep(1.5)
if FAULT == "hangs":
    time.sleep(600)


def ready() -> bool:
    """Say whether the database takes connections, and what is planted."""
    if FAULT == "flapping" and (time.monotonic() - BEGUN) % 6 > 0.4:
        return False
    if FAULT == "slow":
        time.sleep(0.1)
    if DATABASE.scheme == "sqlite":
        return True
    try:
        place = (DATABASE.hostname or "", DATABASE.port or 5432)
        socket.create_connection(place, timeout=0.5).close()
    except OSError:
        return False
    return True


def server(environ, start_response):
    """Answer one request."""
    path = environ["PATH_INFO"]
    kind, status, body = "application/json", "200 OK", b"{}"
    if FAULT == "dies" and time.monotonic() - BEGUN > 0.6:
        os._exit(1)
    if path == "/readyz":
        if not ready():
            status, body = "503 Service Unavailable", b'{"status": "not ready"}'
    elif path == "/version":
        body = json.dumps(
            {"release": RELEASE, "artefact": ARTEFACT, "mark": MARK}
        ).encode()
    elif path == "/metrics":
        kind, body = "text/plain", b""
    elif path == "/_dash-dependencies":
        body = json.dumps([_DRAWS]).encode()
    elif path == "/_dash-update-component":
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        body = b'{"response": {"page": {"children": "drawn"}}, "multi": true}'
    elif path != "/livez":
        kind, body = "text/html; charset=utf-8", f"<p>{MARK} {RELEASE}</p>".encode()
        public = FAULT == "public" and os.path.samefile("../../current", ".")
        if public and path.startswith("/charts"):
            status = "500 Internal Server Error"
    headers = [
        ("Content-Type", kind),
        ("Content-Length", str(len(body))),
        ("X-Release", RELEASE),
        *_SAFE,
    ]
    start_response(status, headers)
    return [body]
