"""Send Requests: the one door to HTTP servers, over TCP or a unix socket."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ops.command import Answer, Request

if TYPE_CHECKING:
    import http.client

# struct sockaddr_un holds 108 bytes on Linux, 104 on macOS, with the closing zero.
_LONGEST_UNIX_PATH = 103
# The code of PostgreSQL's SSLRequest: 1234 and 5679.
_ASKS_FOR_TLS = 80_877_103
_LARGEST_BODY = 4 * 1024 * 1024
_SIDE_BY_SIDE = 4


def dial(sock: socket.socket, path: Path) -> None:
    """Connect a unix socket to a path that may be longer than the kernel takes."""
    if len(os.fsencode(path)) <= _LONGEST_UNIX_PATH:
        sock.connect(str(path))
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sock.connect(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def _called(path: Path, timeout: float) -> socket.socket:
    """Return a connection to a unix socket, however long the socket's path is."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        dial(sock, path)
    except OSError:
        sock.close()
        raise
    return sock


def ask(
    request: Request,
    *,
    port: int = 0,
    unix: Path | None = None,
    url: str = "",
    largest: int = _LARGEST_BODY,
) -> Answer:
    """Send one Request to a loopback port, a unix socket or below an http(s) URL.

    Of the body at most `largest` bytes are read.

    Redirects are answers. Whoever answers for https must prove the name by a
    certificate of an authority that this machine trusts.

    What cannot be asked is an Answer with status 0 and an error, since to a gate
    silence is an answer too.
    """
    # Not on top: an agent starts without it.
    import http.client

    begun = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, request.timeout)
    path = request.path
    if url:
        connection, path = _below(url, request)
    elif unix is not None:
        connection = http.client.HTTPConnection("localhost", timeout=request.timeout)
    try:
        if unix is not None:
            connection.sock = _called(unix, request.timeout)
        headers = {"Connection": "close", **request.headers}
        connection.request(request.method, path, request.body or None, headers)
        answer = connection.getresponse()
        body = answer.read(largest)
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, body, time.monotonic() - begun)
    except (OSError, http.client.HTTPException) as error:
        said = str(error) or type(error).__name__
        return Answer(0, seconds=time.monotonic() - begun, error=said)
    finally:
        connection.close()


def ask_all(
    requests: Sequence[Request], *, port: int = 0, unix: Path | None = None
) -> list[Answer]:
    """Send Requests, four at a time, and return their answers in the same order."""
    found: dict[int, Answer] = {}
    left = iter(list(enumerate(requests)))
    taking = threading.Lock()

    def work() -> None:
        while True:
            with taking:
                number, request = next(left, (-1, None))
            if request is None:
                return
            found[number] = ask(request, port=port, unix=unix)

    threads = [
        threading.Thread(target=work, daemon=True)
        for _ in range(min(_SIDE_BY_SIDE, len(requests)) - 1)
    ]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    return [found[number] for number in range(len(requests))]


def _below(url: str, request: Request) -> tuple[http.client.HTTPConnection, str]:
    """Return a connection to the server of a URL, and the path to ask it for."""
    import http.client
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    kind = http.client.HTTPConnection
    if parts.scheme == "https":
        kind = http.client.HTTPSConnection
    connection = kind(parts.hostname or "", parts.port, timeout=request.timeout)
    return connection, parts.path.rstrip("/") + request.path


def postgres(host: str, port: int, timeout: float = 3.0) -> str:
    """Return why no PostgreSQL server answers at an address, "" where one does.

    It is asked whether it speaks TLS, which needs no name and no password.
    """
    try:
        with socket.create_connection((host, port), timeout=timeout) as sock:
            sock.settimeout(timeout)
            sock.sendall(struct.pack("!ii", 8, _ASKS_FOR_TLS))
            said = sock.recv(1)
    except socket.gaierror:
        return "its name is not known there"
    except TimeoutError:
        return f"nothing came within {timeout:g} s"
    except OSError as error:
        return error.strerror or str(error)
    return "" if said in (b"S", b"N") else "what answers is no PostgreSQL server"


def address_of(name: str) -> str:
    """Return the IPv4 address of a name, or the address itself.

    Raises:
        OSError: it has none.
    """
    found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    return str(found[0][4][0])


def port_is_free(port: int) -> bool:
    """Say whether a loopback TCP port can be listened on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a loopback TCP port that nobody listens on at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
