"""Send an open-loop load to a server on this machine and keep account of each answer.

Open loop: requests are sent on a schedule and not when the answer before has come, so
a server that stalls is seen as late answers and not as a lower rate. Nothing is sent
twice: a keep-alive connection that is closed under a request is a failure ("reuse").
One that is found closed before a request goes out is not, but it is counted too.

    python -m bench.load --url http://127.0.0.1:8050/ --seconds 5 --json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import json
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from urllib.parse import urlsplit

HEAD_LIMIT = 65_536
KINDS = (
    "connect",  # no connection
    "reset",  # the connection broke under the request
    "closed",  # a new connection was closed before the answer had ended
    "reuse",  # a keep-alive connection was closed under the request
    "timeout",  # no complete answer in time
    "5xx",
    "4xx",
    "content",  # the answer was not what the request expects, or not HTTP
)


@dataclass(frozen=True, slots=True)
class Request:
    """Say what to send; ``expect`` is a piece that the answer's body must contain."""

    method: str = "GET"
    path: str = "/"
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    expect: bytes = b""

    def encode(self, host: str, *, keep_alive: bool) -> bytes:
        """Return the bytes of the request."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {text}" for name, text in self.headers.items()]
        if self.body or self.method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(self.body)}")
        if not keep_alive:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass(frozen=True, slots=True)
class Answer:
    """Record one request: monotonic seconds, who answered, what went wrong."""

    sent: float
    ended: float
    release: str = ""
    status: int = 0
    failure: str = ""
    keep_alive: bool = False
    # When its connection was last known to work: before `sent` where it is kept.
    well: float = 0.0


@dataclass(frozen=True, slots=True)
class Summary:
    """Hold the figures of a run; latencies in seconds, of answers without failure."""

    total: int
    failed: int
    failures: dict[str, int]
    releases: dict[str, int]
    idle_closed: int
    p50: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Result:
    """Hold all answers of a run in the order in which they ended.

    ``idle_closed``: kept connections that the server closed between two requests
    without having announced it.
    """

    answers: tuple[Answer, ...]
    idle_closed: int = 0

    @property
    def failures(self) -> dict[str, int]:
        """Return how many requests failed, by kind."""
        return dict(Counter(a.failure for a in self.answers if a.failure))

    @property
    def failed(self) -> int:
        """Return how many requests failed."""
        return sum(self.failures.values())

    def latency(self, share: float, since: float = 0.0) -> float:
        """Return the latency that this share of the good answers does not exceed.

        Only of requests sent at or after ``since``; 0.0 if there are none.
        """
        good = [a for a in self.answers if not a.failure and a.sent >= since]
        times = sorted(answer.ended - answer.sent for answer in good)
        if not times:
            return 0.0
        return times[min(len(times) - 1, int(share * len(times)))]

    def first_from(self, release: str, after: float) -> Answer | None:
        """Return the first answer of a release that ended after a moment."""
        found = (a for a in self.answers if a.release == release and a.ended > after)
        return next(found, None)

    def last_from(self, release: str, sent_after: float) -> Answer | None:
        """Return a release's last answer to a request sent after a moment."""
        found = [
            a for a in self.answers if a.release == release and a.sent > sent_after
        ]
        return found[-1] if found else None

    def summary(self) -> Summary:
        """Return the figures."""
        releases = Counter(a.release for a in self.answers if not a.failure)
        return Summary(
            total=len(self.answers),
            failed=self.failed,
            failures=self.failures,
            releases=dict(releases),
            idle_closed=self.idle_closed,
            p50=self.latency(0.50),
            p99=self.latency(0.99),
            max=self.latency(1.0),
        )


class Problem(Exception):
    """Say why an answer is a failure: one of KINDS."""


@dataclass(frozen=True, slots=True)
class Place:
    """Hold where to send to."""

    host: str
    port: int
    base: str

    @classmethod
    def parse(cls, url: str, ours: Collection[str] = ()) -> Place:
        """Return the place of a URL; ValueError unless it is on this machine.

        ``ours`` are addresses of throw-away hosts, which are on it too.
        """
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme != "http" or not (loopback(host) or host in ours):
            raise ValueError(f"{url}: only http:// to a loopback host is allowed")
        return cls(host, parts.port or 80, parts.path.rstrip("/"))

    @property
    def name(self) -> str:
        """Return the value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


# Addresses of throw-away hosts, which are this machine too.
OURS: set[str] = set()


def loopback(host: str) -> bool:
    """Tell whether a host can only be this machine."""
    if host == "localhost" or host in OURS:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Link:
    """Hold one connection; it tells whether it has carried an exchange already."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer
        self.used = False
        self.well = 0.0

    @classmethod
    async def open(cls, place: Place) -> Link:
        """Connect; Problem "connect" if nobody listens."""
        try:
            pair = await asyncio.open_connection(
                place.host, place.port, limit=HEAD_LIMIT
            )
        except OSError as error:
            raise Problem("connect") from error
        return cls(*pair)

    @property
    def ended(self) -> bool:
        """Tell whether the server has closed this connection while it was idle."""
        return self.reader.at_eof() or self.reader.exception() is not None

    async def exchange(self, data: bytes, method: str) -> tuple[int, str, bytes, bool]:
        """Send a request; return status, release, body, and whether it stays open."""
        try:
            self.writer.write(data)
            found = await self._answer(method)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            # One word for a keep-alive connection that went away under a request.
            kind = "reset" if isinstance(error, ConnectionError) else "closed"
            raise Problem("reuse" if self.used else kind) from error
        except (ValueError, IndexError, asyncio.LimitOverrunError) as error:
            raise Problem("content") from error
        self.used = True
        return found

    async def _answer(self, method: str) -> tuple[int, str, bytes, bool]:
        status = 100
        while 100 <= status < 200:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.split("\r\n")[:-2]
            status = int(first.split(" ")[1])
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): text.strip() for name, _, text in pairs}
        stays = "close" not in headers.get("connection", "").lower()
        if method == "HEAD" or status in (204, 304):
            body = b""
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            body = await self._chunks()
        elif "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        else:
            body, stays = await self.reader.read(), False
        return status, headers.get("x-release", ""), body, stays

    async def _chunks(self) -> bytes:
        body = b""
        while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        while await self.reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return body

    def close(self) -> None:
        """Close the connection without waiting for the other side."""
        self.writer.transport.abort()


class Client:
    """Send requests and record each; one connection each, or idle ones by turns."""

    def __init__(
        self,
        place: Place,
        timeout: float,
        clock: Callable[[], float],
        tell: Callable[[Answer], None] = lambda _: None,
    ) -> None:
        self.place, self.timeout, self.clock = place, timeout, clock
        self.tell = tell
        self.answers: list[Answer] = []
        self.idle_closed = 0
        self.idle: deque[Link] = deque()

    async def new(self, request: Request) -> None:
        """Send a request on a connection of its own."""
        await self._record(request, keep_alive=False)

    async def again(self, request: Request) -> None:
        """Send a request on the connection that has been idle for longest.

        If all are busy another one is opened: the schedule does not wait.
        """
        await self._record(request, keep_alive=True)

    async def _record(self, request: Request, *, keep_alive: bool) -> None:
        sent, status, release, failure = self.clock(), 0, "", ""
        link = self._idle_link() if keep_alive else None
        well = link.well if link else sent
        try:
            async with asyncio.timeout(self.timeout):
                status, release, body = await self._send(request, link, keep_alive)
            failure = f"{status // 100}xx" if status >= 400 else ""
            if not failure and request.expect not in body:
                failure = "content"
        except TimeoutError:
            failure = "timeout"
        except Problem as problem:
            failure = str(problem)
        ended = self.clock()
        answer = Answer(sent, ended, release, status, failure, keep_alive, well)
        self.answers.append(answer)
        self.tell(answer)

    async def _send(
        self, request: Request, link: Link | None, keep_alive: bool
    ) -> tuple[int, str, bytes]:
        if link is None:
            link = await Link.open(self.place)
        stays = False
        try:
            data = request.encode(self.place.name, keep_alive=keep_alive)
            status, release, body, stays = await link.exchange(data, request.method)
        finally:
            if stays and keep_alive:
                link.well = self.clock()
                self.idle.append(link)
            else:
                link.close()
        return status, release, body

    def _idle_link(self) -> Link | None:
        """Return an open idle connection; forget those the server closed in peace."""
        while self.idle:
            link = self.idle.popleft()
            if not link.ended:
                return link
            self.idle_closed += 1
            link.close()
        return None

    async def warm(self, connections: int) -> None:
        """Open the keep-alive connections."""
        for _ in range(connections):
            with contextlib.suppress(Problem):
                self.idle.append(await Link.open(self.place))

    def close(self) -> None:
        """Close the idle connections."""
        while self.idle:
            self.idle.popleft().close()


def schedule(keep_alive_rps: float, new_rps: float) -> Iterator[tuple[float, bool]]:
    """Yield without end when to send what: (seconds, on a kept connection?)."""
    rates = {True: keep_alive_rps, False: new_rps}
    sent = {kept: 0 for kept, rate in rates.items() if rate > 0}
    while sent:
        moment, kept = min((count / rates[kept], kept) for kept, count in sent.items())
        yield moment, kept
        sent[kept] += 1


async def run(
    url: str,
    *,
    seconds: float | None = None,
    stop: asyncio.Event | None = None,
    keepalive_rps: float = 200,
    keepalive_connections: int = 20,
    new_rps: float = 100,
    requests: Sequence[Request] = (Request(),),
    timeout: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
    started: Callable[[], None] = lambda: None,
    tell: Callable[[Answer], None] = lambda _: None,
    ours: Collection[str] = (),
) -> Result:
    """Send requests by turns until ``seconds`` are over or ``stop`` is set.

    Then wait for the answers that are still due. ``tell`` hears of each answer as it
    ends. ValueError unless ``url`` is on this machine and there is an end.
    """
    if seconds is None and stop is None:
        raise ValueError("say how many seconds, or give an event that ends the run")
    stop = stop or asyncio.Event()
    client = Client(Place.parse(url, ours), timeout, clock, tell)
    base = client.place.base
    turns = [
        Request(r.method, base + r.path, r.body, r.headers, r.expect) for r in requests
    ]
    await client.warm(keepalive_connections if keepalive_rps > 0 else 0)
    tasks: set[asyncio.Task[None]] = set()
    start = clock()
    started()
    for number, (moment, kept) in enumerate(schedule(keepalive_rps, new_rps)):
        if seconds is not None and moment >= seconds:
            break
        if (delay := start + moment - clock()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await stop.wait()
        elif number % 20 == 0:
            await asyncio.sleep(0)  # behind the schedule: let answers come in
        if stop.is_set():
            break
        send = client.again if kept else client.new
        task = asyncio.create_task(send(turns[number % len(turns)]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    while tasks:
        await asyncio.gather(*tasks)
    client.close()
    return Result(tuple(client.answers), client.idle_closed)


class Load:
    """Run a load in a thread of its own between start() and stop()."""

    def __init__(
        self, url: str, *, ours: Collection[str] = (), **settings: object
    ) -> None:
        Place.parse(url, ours)
        settings["ours"] = ours
        self.url, self.settings = url, settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._begun = threading.Event()
        self._outcome: Result | BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="load", daemon=True)

    def start(self) -> Load:
        """Begin; return once requests are being sent."""
        self._thread.start()
        self._begun.wait()
        return self

    def stop(self) -> Result:
        """Send no more, wait for the answers that are due, return all of them."""
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if isinstance(self._outcome, Result):
            return self._outcome
        raise RuntimeError("the load broke") from self._outcome

    def _main(self) -> None:
        try:
            self._outcome = asyncio.run(self._run())
        except BaseException as error:
            # It is raised again in stop(), in the thread that asked.
            self._outcome = error
        finally:
            self._begun.set()

    async def _run(self) -> Result:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        return await run(
            self.url, stop=self._stop, started=self._begun.set, **self.settings
        )


def main(arguments: Sequence[str]) -> int:
    """Run a load from the command line; 0 if no request failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", required=True, help="on a loopback host")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--keepalive-rps", type=float, default=200)
    parser.add_argument("--keepalive-connections", type=int, default=20)
    parser.add_argument("--new-rps", type=float, default=100)
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    options = vars(parser.parse_args(arguments))
    as_json, url = options.pop("json"), options.pop("url")
    try:
        Place.parse(url)
    except ValueError as error:
        parser.error(str(error))
    figures = asdict(asyncio.run(run(url, **options)).summary())
    if as_json:
        print(json.dumps(figures))
    else:
        for name, figure in figures.items():
            print(f"{name:10} {figure}")
    return 1 if figures["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
