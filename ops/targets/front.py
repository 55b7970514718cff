"""Forward one TCP port to whatever release the symlink ``current`` points at.

The small front door of the ``local`` target. It listens on 127.0.0.1 and passes each
connection to the unix socket ``current/app.sock`` below its state folder. A deployer
moves ``current`` with rename(2); the front needs no signal for that. It forwards bytes
as they are and reads HTTP/1.1 only to know when a connection is between two exchanges:
there, and only there, it may dial another upstream. While `closed/on` is there, people
get the maintenance page in place of a release.

Standard library only, one thread, plain selectors: importing asyncio alone costs 10 MB
of memory, which is as much as all the rest of this process.

    python front.py --state DIR --port 8050
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
CHUNK = 65_536
HEAD_LIMIT = 65_536
LINE_LIMIT = 4_096
PORT_IN_USE = 98
# Answered by the release also while people get the maintenance page.
PROBES = frozenset(
    (b"/livez", b"/readyz", b"/startupz", b"/health", b"/version")
    + (b"/metrics", b"/metrics.json")
)
PASS_WORD = re.compile(r"[0-9a-f]{32}")
PAGE_HEADERS = (
    "Retry-After: 60\r\nX-Maintenance: on\r\nCache-Control: no-store\r\n"
    "X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\n"
    "Content-Type: text/html; charset=utf-8\r\n"
)

_FIELDS = rb"((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\r\n\0]*+\r\n)*+)\r\n"
_REQUEST = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-\xff]+) HTTP/1\.1\r\n" + _FIELDS
)
_RESPONSE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n\0]*)?\r\n" + _FIELDS)
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")
_BARE_NEWLINE = re.compile(rb"(?:\A|[^\r])\n")
_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789") | frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)


class Lost(Exception):
    """Say that a message cannot be followed with certainty."""


def _values(fields: bytes, name: bytes) -> list[bytes]:
    """Return the values of one header in a lower-case head, in order."""
    found, key = [], b"\r\n" + name + b":"
    at = fields.find(key)
    while at >= 0:
        start = at + len(key)
        end = fields.find(b"\r\n", start)
        found.append(fields[start:end].strip(b" \t"))
        at = fields.find(key, end)
    return found


def _length(fields: bytes) -> int | None:
    """Return the body length a head announces, None if none, -1 if it is chunked."""
    lengths = _values(fields, b"content-length")
    codings = _values(fields, b"transfer-encoding")
    if codings:
        if lengths or codings != [b"chunked"]:
            raise Lost
        return -1
    if not lengths:
        return None
    if len(lengths) > 1 or len(lengths[0]) > 18 or not lengths[0].isdigit():
        raise Lost
    return int(lengths[0])


def _connection(fields: bytes) -> set[bytes]:
    """Return the tokens of all Connection headers of a lower-case head."""
    values = _values(fields, b"connection")
    return {token.strip(b" \t") for value in values for token in value.split(b",")}


class Body:
    """Find where one message body ends, whatever pieces it comes in."""

    __slots__ = ("left", "state", "line")

    def __init__(self, length: int) -> None:
        self.left = length
        self.state = "size" if length < 0 else "data" if length else "done"
        self.line = b"" if length < 0 else None

    def feed(self, data: bytes, at: int) -> int:
        """Return the offset behind the last byte of ``data`` that is body."""
        end = len(data)
        while at < end and self.state != "done":
            if self.state == "data":
                taken = min(self.left, end - at)
                self.left -= taken
                at += taken
                if not self.left:
                    self.state = "done" if self.line is None else "gap"
                continue
            newline = data.find(b"\n", at) + 1
            self.line += data[at : newline or end]
            if len(self.line) > LINE_LIMIT:
                raise Lost
            at = newline or end
            if newline:
                line, self.line = self.line, b""
                self._take(line)
        return at

    def _take(self, line: bytes) -> None:
        """Act on one complete line of the chunked coding."""
        if self.state == "size":
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise Lost
            self.left = int(match[1], 16)
            self.state = "data" if self.left else "trailer"
        elif not line.endswith(b"\r\n"):
            raise Lost
        elif self.state == "gap":
            if line != b"\r\n":
                raise Lost
            self.state = "size"
        elif line == b"\r\n":
            self.state = "done"


class Exchange:
    """Follow one request and its response; say when both have ended.

    ``opaque`` becomes true when something cannot be followed with certainty, and stays.
    ``headed``: the request head is complete. ``answered``: a response byte was seen.
    ``last``: the connection ends after this exchange. ``until_close``: the response
    body ends where the connection does.
    """

    __slots__ = (
        *("opaque", "headed", "answered", "last", "until_close", "retryable"),
        *("method", "path", "word", "head_size", "expects"),
        *("_head", "_request", "_response"),
    )

    def __init__(self) -> None:
        self.opaque = self.headed = self.answered = self.last = False
        self.until_close = self.retryable = self.expects = False
        self.method = self.path = self.word = b""
        self.head_size = 0
        self._head = b""
        self._request: Body | None = None
        self._response: Body | None = None

    @property
    def requested(self) -> bool:
        """Tell whether the request has been seen to its end."""
        return self._request is not None and self._request.state == "done"

    @property
    def responded(self) -> bool:
        """Tell whether the response has been seen to its end."""
        return self._response is not None and self._response.state == "done"

    @property
    def done(self) -> bool:
        """Tell whether the connection is between two exchanges."""
        return not self.opaque and self.responded and self.requested

    def request(self, data: bytes) -> int:
        """Take bytes of the client; return how many of them belong here.

        Fewer than all only if the response has ended too: what remains is the next
        request. Bytes that follow an unanswered request are pipelined: opaque.
        """
        end = len(data)
        if self.opaque:
            return end
        try:
            at = 0 if self._request else self._request_head(data)
            if self._request is None:
                return end
            at = self._request.feed(data, at)
            if at < end and not self.responded:
                raise Lost
            return at
        except Lost:
            self.opaque = True
            return end

    def response(self, data: bytes) -> None:
        """Take bytes of the upstream."""
        self.answered = True
        if self.opaque:
            return
        try:
            at = 0
            while self._response is None and not self.until_close and at < len(data):
                at = self._response_head(data, at)
            if self._response is not None and self._response.feed(data, at) < len(data):
                raise Lost
            if self.responded and self.expects and not self.requested:
                # After a refusal the client may send the body or skip it: unknowable.
                raise Lost
        except Lost:
            self.opaque = True

    def _request_head(self, data: bytes) -> int:
        """Read the head once it is complete; return the body's offset in ``data``."""
        old = len(self._head)
        head = self._head + data if old else data
        size = head.find(b"\r\n\r\n", max(0, old - 3)) + 4
        if size < 4:
            if head[:1] and head[0] not in _TOKEN:
                raise Lost
            if _BARE_NEWLINE.search(head, max(0, old - 1)):
                raise Lost
            self._head, self.head_size = head, len(head)
            return len(data)
        self.head_size = size
        match = _REQUEST.match(head)
        if match is None or match.end() != size:
            raise Lost
        self.method = match[1]
        self.path = match[2].partition(b"?")[0]
        fields = head[match.start(3) - 2 : size].lower()
        self.word = b"".join(_values(fields, b"x-mltrading-pass"))
        if self.method == b"CONNECT" or b"\r\nupgrade:" in fields:
            raise Lost
        length = _length(fields)
        self.last = b"close" in _connection(fields)
        self.expects = b"\r\nexpect:" in fields
        self.retryable = not length and self.method in (b"GET", b"HEAD")
        self.headed, self._head = True, b""
        self._request = Body(length or 0)
        return size - old

    def _response_head(self, data: bytes, at: int) -> int:
        """Read one response head; return the offset behind it in ``data``."""
        old = len(self._head)
        head = self._head + data[at:] if old or at else data
        size = head.find(b"\r\n\r\n", max(0, old - 3)) + 4
        if size < 4:
            if len(head) > HEAD_LIMIT:
                raise Lost
            self._head = head
            return len(data)
        self._head = b""
        match = _RESPONSE.match(head)
        if match is None or match.end() != size:
            raise Lost
        status = int(match[2])
        if status == 101:
            raise Lost
        if status >= 200:
            fields = head[match.start(3) - 2 : size].lower()
            self._frame(status, match[1] == b"0", fields)
        return at + size - old

    def _frame(self, status: int, old_version: bool, fields: bytes) -> None:
        """Decide from a final response head where the response ends."""
        tokens = _connection(fields)
        length = _length(fields)
        if old_version and (length == -1 or b"keep-alive" in tokens):
            raise Lost
        self.last = self.last or old_version or b"close" in tokens
        if self.method == b"HEAD" or status in (204, 304):
            length = 0
        if length is None:
            self.until_close = self.last = True
        else:
            self._response = Body(length)


IDLE, HELD, OPEN, OPAQUE, CLOSING = "idle", "held", "open", "opaque", "closing"


class Connection:
    """Carry the bytes of one client, exchange after exchange."""

    __slots__ = (
        *("front", "client", "upstream", "release", "mode", "exchange", "waiting"),
        *("to_upstream", "to_client", "sent", "retried", "deaf", "since", "rested"),
        *("client_ended", "upstream_ended", "reset", "masks"),
    )

    def __init__(self, front: Front, client: socket.socket) -> None:
        self.front, self.client = front, client
        self.upstream: socket.socket | None = None
        self.release: str | None = None
        self.mode, self.exchange = IDLE, Exchange()
        self.waiting = b""  # what the upstream may have to be told (again)
        self.to_upstream = self.to_client = b""
        self.sent = 0  # bytes of this exchange that an upstream has taken
        self.retried = self.deaf = self.reset = False
        self.client_ended = self.upstream_ended = False
        self.since = front.clock()  # when it last changed
        self.rested = 0.0  # when its last exchange ended
        self.masks: dict[socket.socket, int] = {}

    # -- the client's side ----------------------------------------------------------

    def on_client(self, mask: int) -> None:
        """Act on a client socket that can be read or written."""
        if mask & WRITE:
            self.flush_client()
        if not mask & READ or self.mode == HELD or self not in self.front.connections:
            return
        try:
            data = self.client.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            return self.drop()
        if not data:
            self.end_client()
        elif self.mode == IDLE:
            self.begin(data)
        elif self.mode == OPEN:
            used = self.exchange.request(data)
            if self.exchange.opaque:
                self.mode = OPAQUE
            self.send_upstream(data[:used] if used < len(data) else data)
            if self.mode == OPEN and self.exchange.done:
                self.finish_exchange()
                if used < len(data) and self.mode == IDLE:
                    self.begin(data[used:])
        elif self.mode == OPAQUE:
            self.send_upstream(data)

    def begin(self, data: bytes) -> None:
        """Collect a request head; forward it when it is complete."""
        exchange = self.exchange
        self.waiting = self.waiting + data if self.waiting else data
        exchange.request(data)
        if exchange.head_size > HEAD_LIMIT:
            self.answer(431, "Request Header Fields Too Large", "The head is too long.")
        elif exchange.headed or exchange.opaque:
            if self.front.is_shut(exchange.path, exchange.word):
                return self.show_page()
            self.connect()
        else:
            self.since = self.front.clock()

    def end_client(self) -> None:
        """Pass on that the client sends no more; forget a client between exchanges."""
        self.client_ended = True
        if self.mode in (IDLE, CLOSING) or self.upstream_ended:
            self.drop()
        else:
            self.half_close()
            self.watch()

    def send_client(self, data: bytes) -> None:
        """Send bytes to the client; keep what it does not take yet."""
        if self.to_client:
            self.to_client += data
            return
        try:
            taken = self.client.send(data)
        except BlockingIOError:
            taken = 0
        except OSError:
            return self.drop()
        if taken < len(data):
            self.to_client = data[taken:]
            self.watch()

    def flush_client(self) -> None:
        """Send what was kept for the client."""
        if self.to_client:
            data, self.to_client = self.to_client, b""
            self.send_client(data)
            if self.to_client:
                return
        self.watch()
        if self.mode == CLOSING or self.upstream_ended:
            self.shut_client()

    def shut_client(self) -> None:
        """End our side; the client's side stays readable until it ends too."""
        if self not in self.front.connections:
            return
        if self.reset:
            # The answer ended in an error that only a reset can express.
            no_wait = struct.pack("ii", 1, 0)
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_wait)
            return self.drop()
        self.since = self.front.clock()
        if self.client_ended:
            return self.drop()
        with contextlib.suppress(OSError):
            self.client.shutdown(socket.SHUT_WR)

    # -- the upstream's side --------------------------------------------------------

    def connect(self) -> None:
        """Give the waiting bytes to the upstream that ``current`` names now."""
        front = self.front
        link = front.read_link()
        if self.upstream is not None and not self.reusable(link):
            self.close_upstream()
        if self.upstream is None:
            self.upstream = front.dial()
            if self.upstream is None:
                return front.hold(self)
            self.release = link
        self.mode = OPAQUE if self.exchange.opaque else OPEN
        self.sent, self.deaf = 0, False
        if self.masks.get(self.upstream) != READ or self.masks[self.client] != READ:
            self.watch()
        self.send_upstream(self.waiting)
        if self.client_ended:
            self.half_close()

    def reusable(self, link: str | None) -> bool:
        """Tell whether the upstream of the exchange before may carry the next one.

        Not one that idled for long: a server closes idle connections, and a request
        that crosses with the close is lost.
        """
        if link != self.release or self.rested + self.front.reuse < self.front.clock():
            return False
        try:
            self.upstream.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def on_upstream(self, mask: int) -> None:
        """Act on an upstream socket that can be read or written."""
        upstream = self.upstream
        if mask & WRITE and self.to_upstream:
            data, self.to_upstream = self.to_upstream, b""
            self.send_upstream(data)
            self.watch()
            if self.client_ended:
                self.half_close()
        if not mask & READ or self.upstream is not upstream or self.to_client:
            return
        try:
            data = upstream.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            return self.end_upstream(reset=True)
        if not data:
            self.end_upstream(reset=False)
        elif self.mode == OPEN:
            self.exchange.response(data)
            self.waiting = b""
            if self.exchange.opaque:
                self.mode = OPAQUE
            self.send_client(data)
            if self.mode == OPEN and self.exchange.done:
                self.finish_exchange()
        elif self.mode == OPAQUE:
            self.send_client(data)
        else:
            self.close_upstream()  # nobody asked

    def send_upstream(self, data: bytes) -> None:
        """Send bytes to the upstream; keep what it does not take yet."""
        if self.deaf or not data:
            return
        if self.to_upstream:
            self.to_upstream += data
            return
        try:
            taken = self.upstream.send(data)
        except BlockingIOError:
            taken = 0
        except OSError:
            return self.refuse_bytes()
        self.sent += taken
        if taken < len(data):
            self.to_upstream = data[taken:]
            self.watch()
        if self.sent and not (self.mode == OPEN and self.exchange.retryable):
            self.waiting = b""

    def refuse_bytes(self) -> None:
        """Dial again if the upstream took nothing; else wait for what it has to say."""
        if self.sent or self.retried:
            self.deaf, self.to_upstream = True, b""
            self.watch()
        else:
            self.retried = True
            self.close_upstream()
            self.connect()

    def half_close(self) -> None:
        """Tell the upstream, after the last byte, that the client sends no more."""
        if self.upstream is not None and not self.to_upstream:
            with contextlib.suppress(OSError):
                self.upstream.shutdown(socket.SHUT_WR)

    def end_upstream(self, *, reset: bool) -> None:
        """Decide what the end of the upstream means for the client."""
        exchange = self.exchange
        if self.mode == OPAQUE:
            self.upstream_ended, self.reset = True, reset
            if reset:
                self.deaf = True
                self.close_upstream()
            elif self.client_ended and not self.to_client:
                return self.drop()
            self.flush_client()
            return
        self.close_upstream()
        if self.mode != OPEN:
            return
        if not exchange.answered:
            if exchange.retryable and not self.retried:
                self.retried = True
                self.connect()
            else:
                self.answer(502, "Bad Gateway", "The release closed the connection.")
        else:
            self.reset = reset and exchange.until_close
            self.close_when_flushed()

    def close_upstream(self) -> None:
        """Forget the upstream."""
        upstream, self.upstream = self.upstream, None
        self.to_upstream = b""
        if upstream is not None:
            self.front.unwatch(self, upstream)
            upstream.close()
            self.watch()

    # -- beginnings and ends --------------------------------------------------------

    def finish_exchange(self) -> None:
        """Go back to waiting for a request, or end."""
        if self not in self.front.connections:
            return
        if self.exchange.last or self.client_ended or self.front.stopping:
            return self.close_when_flushed()
        if self.to_upstream or self.deaf:
            self.close_upstream()  # answered early: it never took the whole request
        self.mode, self.exchange, self.retried = IDLE, Exchange(), False
        self.since = self.rested = self.front.clock()

    def close_when_flushed(self) -> None:
        """End the connection once the client has all bytes."""
        self.mode, self.since = CLOSING, self.front.clock()
        self.close_upstream()
        self.flush_client()

    def answer(self, status: int, reason: str, text: str) -> None:
        """Answer in place of a release, then end the connection."""
        retry = "Retry-After: 1\r\n" if status == 503 else ""
        self.speak(f"{status} {reason}", f"{retry}Content-Type: text/plain\r\n", text)

    def show_page(self) -> None:
        """Answer with the maintenance page, then end the connection."""
        self.waiting = b""
        self.speak("503 Service Unavailable", PAGE_HEADERS, self.front.page())

    def speak(self, status: str, headers: str, text: str) -> None:
        """Send one whole answer, then end the connection."""
        body = f"{text}\n".encode()
        self.to_client += (
            f"HTTP/1.1 {status}\r\n{headers}"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        ).encode()
        self.to_client += b"" if self.exchange.method == b"HEAD" else body
        self.close_when_flushed()

    def drop(self) -> None:
        """Close both sides now."""
        if self in self.front.connections:
            self.front.connections.discard(self)
            self.front.held.pop(self, None)
            self.close_upstream()
            self.front.unwatch(self, self.client)
            self.client.close()
            self.front.room()

    def watch(self) -> None:
        """Ask for the events this state can use; a full buffer pauses its source."""
        if self not in self.front.connections:
            return
        full = self.to_upstream or self.mode == HELD or self.client_ended
        mask = (0 if full else READ) | (WRITE if self.to_client else 0)
        self.front.watch(self, self.client, self.on_client, mask)
        if self.upstream is not None:
            mask = 0 if self.to_client or self.upstream_ended else READ
            mask |= WRITE if self.to_upstream else 0
            self.front.watch(self, self.upstream, self.on_upstream, mask)

    def expire(self, now: float) -> None:
        """End a connection that has been silent for too long."""
        front, age = self.front, now - self.since
        if self.mode == IDLE and front.stopping:
            # One that has just come may have its first request on the way.
            if self.rested or age > front.first_request:
                self.close_when_flushed() if self.to_client else self.drop()
        elif self.mode == IDLE or self.upstream_ended:
            if age > front.idle:
                self.drop()
        elif self.mode == CLOSING:
            if age > (front.idle if self.to_client else front.linger):
                self.drop()


class Front:
    """Accept clients and give each a :class:`Connection`.

    Times in seconds. ``link`` and ``address`` are relative to the working folder, as
    the path of a unix socket is limited to about 100 bytes.
    """

    link = "current"
    address = "current/app.sock"
    closed = "closed"

    def __init__(
        self,
        listener: socket.socket,
        *,
        idle: float = 75.0,
        hold: float = 10.0,
        retry: float = 0.02,
        reuse: float = 1.0,
        linger: float = 2.0,
        grace: float = 5.0,
        first_request: float = 0.25,
        most_connections: int = 1024,
        most_held: int = 512,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.listener, self.clock = listener, clock
        self.idle, self.hold_for, self.retry, self.reuse = idle, hold, retry, reuse
        self.linger, self.grace, self.first_request = linger, grace, first_request
        self.most_connections, self.most_held = most_connections, most_held
        self.selector = selectors.DefaultSelector()
        self.connections: set[Connection] = set()
        self.held: dict[Connection, float] = {}
        self.stopping = False
        self.accepting = False
        self.bell, self.ear = socket.socketpair()
        for end in (self.bell, self.ear, listener):
            end.setblocking(False)
        self.selector.register(self.ear, READ, self.on_bell)
        self.room()

    def serve(self) -> None:
        """Serve until :meth:`stop`, then until the open exchanges have ended."""
        swept, deadline = self.clock(), 0.0
        while not self.stopping or self.connections:
            for key, mask in self.selector.select(self.patience()):
                # A handler before this one may have closed the socket.
                if key.fileobj.fileno() >= 0:
                    self.handle(key.data, mask)
            now = self.clock()
            if self.held:
                self.try_held(now)
            if self.stopping and not deadline:
                deadline = now + self.grace
                self.close_listener()
            if self.stopping or now - swept >= self.tick():
                swept = now
                for connection in tuple(self.connections):
                    connection.expire(now)
            if deadline and now >= deadline:
                break
        self.close()

    def handle(self, handler: Callable[[int], None], mask: int) -> None:
        """Run one handler; its fault ends its own connection, not the others."""
        try:
            handler(mask)
        except Exception as error:
            owner = handler.__self__
            if owner is self:
                raise
            sys.excepthook(type(error), error, error.__traceback__)
            owner.drop()

    def tick(self) -> float:
        """Return the seconds between two looks for silent connections."""
        return min(self.idle, self.linger, 10.0) / 2

    def patience(self) -> float | None:
        """Return how long nothing needs to be done unless something happens."""
        if self.held:
            return self.retry
        if self.stopping:
            return 0.05
        return self.tick() if self.connections else None

    def stop(self) -> None:
        """Ask the loop to end; may be called from another thread."""
        self.bell.send(b"\0")

    def on_bell(self, mask: int) -> None:
        """Note that somebody asked us to stop."""
        self.ear.recv(64)
        self.stopping = True

    def on_listener(self, mask: int) -> bool:
        """Accept one client; tell whether there was one."""
        try:
            client, _ = self.listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS):
                self.pause_listener()
            return False
        client.setblocking(False)
        with contextlib.suppress(OSError):  # macOS refuses it on a reset connection
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(self, client)
        self.connections.add(connection)
        connection.watch()
        if len(self.connections) >= self.most_connections:
            self.pause_listener()
        return True

    def pause_listener(self) -> None:
        """Leave further clients in the queue of the listening socket."""
        if self.accepting and self.connections:
            self.accepting = False
            self.selector.unregister(self.listener)

    def room(self) -> None:
        """Accept again, as there is room for one more connection."""
        if not self.accepting and not self.stopping:
            if len(self.connections) < self.most_connections:
                self.accepting = True
                self.selector.register(self.listener, READ, self.on_listener)

    def read_link(self) -> str | None:
        """Return where ``current`` points, None if nowhere."""
        try:
            return os.readlink(self.link)
        except OSError:
            return None

    def is_shut(self, path: bytes, word: bytes) -> bool:
        """Say whether whoever asks for this gets the maintenance page."""
        if not os.path.exists(f"{self.closed}/on") or path in PROBES:
            return False
        known = PASS_WORD.fullmatch(word.decode("latin-1"))
        return not (known and os.path.exists(f"{self.closed}/pass-{known[0]}"))

    def page(self) -> str:
        """Return the maintenance page, a plain sentence where it can't be read."""
        try:
            with open(f"{self.closed}/page.html", encoding="utf-8") as file:
                return file.read()
        except (OSError, ValueError):
            return "<p>Down for maintenance; try again soon.</p>"

    def dial(self) -> socket.socket | None:
        """Connect to the current release; None if nobody takes the call."""
        try:
            upstream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError:
            return None
        upstream.setblocking(False)
        try:
            upstream.connect(self.address)
        except OSError:
            upstream.close()
            return None
        return upstream

    def hold(self, connection: Connection) -> None:
        """Keep a request until a release takes it; refuse when too many wait."""
        if len(self.held) >= self.most_held and connection not in self.held:
            return self.give_up(connection)
        connection.mode = HELD
        self.held.setdefault(connection, self.clock() + self.hold_for)
        connection.watch()

    def try_held(self, now: float) -> None:
        """Dial again, first come first served; stop at the first that fails."""
        for connection, deadline in tuple(self.held.items()):
            if connection.mode != HELD:
                continue
            if now >= deadline:
                self.give_up(connection)
                continue
            connection.connect()
            if connection.mode == HELD:
                break
            self.held.pop(connection, None)

    def give_up(self, connection: Connection) -> None:
        """Say that no release answers."""
        self.held.pop(connection, None)
        connection.answer(503, "Service Unavailable", "No release answers; try again.")

    def watch(
        self,
        owner: Connection,
        end: socket.socket,
        handler: Callable[[int], None],
        mask: int,
    ) -> None:
        """Register, change or end the interest in one socket."""
        before = owner.masks.get(end, 0)
        if mask == before:
            return
        owner.masks[end] = mask
        if not before:
            self.selector.register(end, mask, handler)
        elif mask:
            self.selector.modify(end, mask, handler)
        else:
            self.selector.unregister(end)

    def unwatch(self, owner: Connection, end: socket.socket) -> None:
        """End the interest in a socket that is about to be closed."""
        if owner.masks.pop(end, 0):
            self.selector.unregister(end)

    def close_listener(self) -> None:
        """Take the clients that are already in the queue, then no more."""
        while self.accepting and self.on_listener(READ):
            pass
        if self.accepting:
            self.accepting = False
            self.selector.unregister(self.listener)
        self.listener.close()

    def close(self) -> None:
        """Close everything that is still open."""
        self.close_listener()
        for connection in tuple(self.connections):
            connection.drop()
        self.selector.close()
        self.bell.close()
        self.ear.close()


def listen(port: int) -> socket.socket:
    """Return a socket that listens on 127.0.0.1; port 0 picks a free one."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


def write_record(path: str, port: int) -> None:
    """Say atomically in a file which process listens on which port."""
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    record = {"pid": os.getpid(), "port": port, "started_at": started}
    draft = f"{path}.{os.getpid()}"
    with open(draft, "w", encoding="utf-8") as file:
        json.dump(record, file)
    os.replace(draft, path)


def remove_record(path: str) -> None:
    """Remove the file again, unless another front has written it since."""
    with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
        if json.load(file).get("pid") == os.getpid():
            os.unlink(path)


def notify(environ: Mapping[str, str]) -> None:
    """Tell a service manager that asked for it that we listen."""
    address = environ.get("NOTIFY_SOCKET", "")
    if address:
        if address[0] == "@":
            address = "\0" + address[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            with contextlib.suppress(OSError):
                manager.sendto(b"READY=1", address)


def allow_files(wanted: int) -> None:
    """Raise the limit of open files: each client costs two."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted:
        limit = wanted if hard == unlimited else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the front until SIGTERM; return the exit code."""
    import argparse

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--state", required=True, help="folder that holds `current`")
    parser.add_argument("--port", type=int, required=True, help="0 picks a free one")
    options = parser.parse_args(arguments)
    os.chdir(options.state)
    allow_files(4096)
    try:
        listener = listen(options.port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        print(
            json.dumps({"error": "port_in_use", "port": options.port}), file=sys.stderr
        )
        return PORT_IN_USE
    front = Front(listener)
    signal.set_wakeup_fd(front.bell.fileno())
    # Without a handler of our own Python would not write to the wake-up socket.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    write_record("front.json", listener.getsockname()[1])
    try:
        notify(environ)
        front.serve()
    finally:
        signal.set_wakeup_fd(-1)
        remove_record("front.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
