"""The front door follows message boundaries and never loses a request to a switch."""

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ops.targets import closed, front
from ops.targets.front import Exchange

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED_POST = (
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n"
)
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\na\r\n\r\n1\r\nb\r\n0\r\n\r\n"
)

# name: (request, response, whether the connection ends after it)
FOLLOWED = {
    "length": (GET, OK, False),
    "no body": (GET, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", False),
    "no reason": (GET, b"HTTP/1.1 204\r\n\r\n", False),
    "204": (GET, b"HTTP/1.1 204 No Content\r\n\r\n", False),
    "304": (GET, b"HTTP/1.1 304 Not\r\nContent-Length: 9\r\n\r\n", False),
    "head": (
        b"HEAD / HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n",
        False,
    ),
    "head, chunked": (
        b"HEAD / HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        False,
    ),
    "post": (POST, OK, False),
    "chunked both": (CHUNKED_POST, CHUNKED, False),
    "100": (
        b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        False,
    ),
    "103 twice": (GET, b"HTTP/1.1 103 Hints\r\nLink: a\r\n\r\n" * 2 + OK, False),
    "close asked": (b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", OK, True),
    "close said": (
        GET,
        b"HTTP/1.1 200 OK\r\nconnection: x, close\r\nContent-Length: 0\r\n\r\n",
        True,
    ),
    "old server": (GET, b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", True),
}
UNFOLLOWED_REQUESTS = {
    "upgrade": b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    "connect": b"CONNECT x:1 HTTP/1.1\r\n\r\n",
    "old client": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00",
    "no version": b"GET /\r\n\r\n",
    "bare newlines": b"GET / HTTP/1.1\nHost: x\n\n",
    "folded": b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
    "space before colon": b"GET / HTTP/1.1\r\nContent-Length : 3\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nContent-Length 3\r\n\r\n",
    "blank line first": b"\r\n" + GET,
    "two lengths": b"POST / HTTP/1.1\r\nContent-Length: 1\r\n"
    b"Content-Length: 1\r\n\r\nx",
    "list of lengths": b"POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\nx",
    "signed length": b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\nx",
    "length and chunked": b"POST / HTTP/1.1\r\nContent-Length: 1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n",
    "gzip, chunked": b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "bad chunk": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n",
    "long chunk line": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;"
    + b"x" * 5000,
    "chunk overrun": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1\r\nabc\r\n",
    "bare chunk newline": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\na",
    "pipelined": GET + GET,
}
UNFOLLOWED_RESPONSES = {
    "101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nraw",
    "surplus": OK + b"x",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "length and chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n",
    "old, kept alive": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n"
    b"Content-Length: 1\r\n\r\nx",
    "nonsense": b"hello there\r\n\r\n",
    "endless head": b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000,
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_an_exchange_is_done_exactly_at_its_end_at_every_split(name):
    request, response, last = FOLLOWED[name]
    for cut in range(1, len(request)):
        exchange = Exchange()
        assert exchange.request(request[:cut]) == cut
        assert exchange.request(request[cut:]) == len(request) - cut
        assert exchange.requested and not exchange.opaque
    for cut in range(1, len(response)):
        exchange = Exchange()
        exchange.request(request)
        exchange.response(response[:cut])
        assert not exchange.done
        exchange.response(response[cut:])
        assert (exchange.done, exchange.last) == (True, last)


@pytest.mark.parametrize("name", FOLLOWED)
def test_an_exchange_is_followed_byte_by_byte(name):
    request, response, _ = FOLLOWED[name]
    exchange = Exchange()
    for at in range(len(request)):
        assert not exchange.requested
        exchange.request(request[at : at + 1])
    for at in range(len(response)):
        assert not exchange.done
        exchange.response(response[at : at + 1])
    assert exchange.done


@pytest.mark.parametrize("name", UNFOLLOWED_REQUESTS)
def test_a_request_that_cannot_be_followed_is_opaque_at_every_split(name):
    request = UNFOLLOWED_REQUESTS[name]
    for cut in range(len(request) if len(request) < 500 else 0, -1, -1):
        exchange = Exchange()
        exchange.request(request[:cut])
        exchange.request(request[cut:])
        assert exchange.opaque


@pytest.mark.parametrize("name", UNFOLLOWED_RESPONSES)
def test_a_response_that_cannot_be_followed_is_opaque(name):
    exchange = Exchange()
    exchange.request(GET)
    exchange.response(UNFOLLOWED_RESPONSES[name])
    assert exchange.opaque and not exchange.done


def test_a_response_without_length_lasts_until_close():
    exchange = Exchange()
    exchange.request(GET)
    exchange.response(b"HTTP/1.1 200 OK\r\n\r\nbody")
    exchange.response(b"more")
    assert exchange.until_close and exchange.last and not exchange.done


def test_a_refused_expectation_is_opaque():
    exchange = Exchange()
    exchange.request(POST.replace(b"Host", b"Expect: 100-continue\r\nHost")[:-5])
    exchange.response(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
    assert exchange.opaque


def test_bytes_behind_an_answered_request_are_the_next_request():
    exchange = Exchange()
    exchange.request(POST[:-5])
    exchange.response(b"HTTP/1.1 413 Big\r\nContent-Length: 0\r\n\r\n")
    assert not exchange.done
    assert exchange.request(b"hello" + GET) == 5
    assert exchange.done


@pytest.mark.parametrize(
    ("request_", "retryable"),
    [(GET, True), (b"HEAD / HTTP/1.1\r\n\r\n", True), (POST, False)],
)
def test_only_a_get_or_head_without_body_may_be_sent_twice(request_, retryable):
    exchange = Exchange()
    exchange.request(request_)
    assert exchange.retryable is retryable


# -- real sockets ------------------------------------------------------------------


def wait_for(fact, seconds=3.0):
    """Poll a fact until it is true; fail after some seconds."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not fact():
        assert time.monotonic() < deadline, "the fact did not come true in time"
        pause.wait(0.002)


class Upstream:
    """Serve a unix socket with one script per connection, taken in order."""

    def __init__(self, folder, *scripts):
        folder.mkdir(exist_ok=True)
        self.path = folder / "app.sock"
        self.path.unlink(missing_ok=True)
        self.scripts = list(scripts)
        self.opened, self.seen, self.faults = 0, queue.Queue(), []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen(64)
        self.threads = [threading.Thread(target=self.serve)]
        self.threads[0].start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            script = self.scripts[min(self.opened, len(self.scripts) - 1)]
            self.opened += 1
            thread = threading.Thread(target=self.run, args=(script, connection))
            self.threads.append(thread)
            thread.start()

    def run(self, script, connection):
        connection.settimeout(5)
        with connection:
            try:
                script(connection, self)
            except OSError as error:
                self.faults.append(error)

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.path.unlink(missing_ok=True)
        for thread in self.threads:
            thread.join(5)


def read_head(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return data
        data += piece
    return data


def says(name, count=1_000_000):
    """Answer ``count`` requests of one connection with a name, then close it."""

    def script(connection, upstream):
        for _ in range(count):
            head = read_head(connection)
            if not head:
                return
            upstream.seen.put(head)
            body = name.encode()
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
            )

    return script


def hangs_up(connection, upstream):
    upstream.seen.put(read_head(connection))


def sends(response, *, size=0):
    """Read a head and ``size`` bytes of body, then send these bytes and close."""

    def script(connection, upstream):
        data = read_head(connection)
        while len(data.partition(b"\r\n\r\n")[2]) < size:
            data += connection.recv(65536)
        upstream.seen.put(data)
        connection.sendall(response)

    return script


class Door:
    """A front in a thread, with the upstreams and clients of one test."""

    def __init__(self, folder, **settings):
        self.folder, self.upstreams, self.clients = folder, [], []
        listener = front.listen(0)
        self.port = listener.getsockname()[1]
        self.front = front.Front(listener, **settings)
        self.thread = threading.Thread(target=self.front.serve)
        self.thread.start()

    def release(self, name, *scripts):
        upstream = Upstream(self.folder / name, *(scripts or [says(name)]))
        self.upstreams.append(upstream)
        return upstream

    def switch(self, name):
        draft = self.folder / "draft"
        draft.symlink_to(name)
        os.replace(draft, self.folder / "current")

    def client(self):
        client = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        self.clients.append(client)
        return client

    def ask(self, client, request=GET):
        client.sendall(request)
        return self.read(client)

    def read(self, client):
        """Return status and body of one answer that has a length."""
        head, _, body = read_head(client).partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        pieces = bytearray(body)
        while len(pieces) < length:
            pieces += client.recv(65536)
        return int(head.split()[1]), bytes(pieces)

    def close(self):
        for client in self.clients:
            client.close()
        if self.thread.is_alive():
            self.front.stop()
        self.thread.join(5)
        for upstream in self.upstreams:
            upstream.close()


@pytest.fixture
def make_door(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    doors = []

    def make(**settings):
        doors.append(Door(tmp_path, **settings))
        return doors[-1]

    yield make
    for door in doors:
        door.close()


@pytest.fixture
def door(make_door):
    return make_door()


def test_a_keep_alive_client_moves_on_its_next_request(door):
    old, new = door.release("one"), door.release("two")
    door.switch("one")
    client = door.client()
    assert door.ask(client) == (200, b"one")
    assert door.ask(client) == (200, b"one")
    door.switch("two")
    assert door.ask(client) == (200, b"two")
    assert (old.opened, new.opened) == (1, 1)


def test_the_bytes_arrive_as_they_were_sent(door):
    upstream = door.release("one")
    door.switch("one")
    odd = b"GET /%20?a=b HTTP/1.1\r\nhOST:x\r\nX-Many:   spaces  \r\n\r\n"
    door.ask(door.client(), odd)
    assert upstream.seen.get(timeout=3) == odd


def test_a_head_in_pieces_is_forwarded_whole(door):
    door.release("one")
    door.switch("one")
    client = door.client()
    client.sendall(GET[:10])
    wait_for(lambda: any(c.waiting for c in tuple(door.front.connections)))
    assert door.ask(client, GET[10:]) == (200, b"one")


def test_an_idle_client_survives_its_upstream(door):
    upstream = door.release("one", says("one", count=1))
    door.switch("one")
    client = door.client()
    for _ in range(3):
        assert door.ask(client) == (200, b"one")
    assert upstream.opened == 3


def test_an_upstream_that_idled_for_long_is_not_reused(make_door):
    door = make_door(reuse=-1.0)
    upstream = door.release("one")
    door.switch("one")
    client = door.client()
    door.ask(client)
    door.ask(client, POST[:-5].replace(b"5", b"0"))
    assert upstream.opened == 2


def test_a_get_is_sent_again_when_the_upstream_hangs_up(door):
    upstream = door.release("one", hangs_up, says("one"))
    door.switch("one")
    assert door.ask(door.client()) == (200, b"one")
    assert upstream.opened == 2


def test_a_get_is_sent_again_only_once(door):
    upstream = door.release("one", hangs_up)
    door.switch("one")
    assert door.ask(door.client())[0] == 502
    assert upstream.opened == 2


def test_a_post_is_never_sent_twice(door):
    upstream = door.release("one", hangs_up)
    door.switch("one")
    client = door.client()
    assert door.ask(client, POST)[0] == 502
    assert client.recv(1) == b""
    assert upstream.opened == 1


def test_a_request_waits_until_a_release_listens(door):
    client = door.client()
    client.sendall(GET)
    wait_for(lambda: door.front.held)
    door.switch("late")
    door.release("late")
    assert door.read(client) == (200, b"late")


def test_a_request_follows_the_switch_while_it_waits(door):
    door.switch("dead")
    client = door.client()
    client.sendall(POST[:-5].replace(b"5", b"0"))
    wait_for(lambda: door.front.held)
    door.release("good")
    door.switch("good")
    assert door.read(client) == (200, b"good")


def test_nobody_answers_for_too_long(make_door):
    client = make_door(hold=0.05).client()
    client.sendall(GET)
    head = read_head(client)
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n")
    assert client.recv(1) == b""


def test_too_many_waiting_requests_are_refused(make_door):
    door = make_door(most_held=1)
    first, second = door.client(), door.client()
    first.sendall(GET)
    wait_for(lambda: door.front.held)
    assert door.ask(second)[0] == 503
    door.release("late")
    door.switch("late")
    assert door.read(first) == (200, b"late")


def test_a_refusal_of_a_head_request_has_no_body(make_door):
    client = make_door(hold=0.0).client()
    client.sendall(b"HEAD / HTTP/1.1\r\n\r\n")
    answer = read_head(client)
    assert answer.endswith(b"\r\n\r\n") and b" 503 " in answer


def test_a_shut_door_shows_its_page_and_lets_probes_and_the_pass_through(
    door, tmp_path
):
    door.release("good", *[says("good")] * 7)
    door.switch("good")
    closed.shut(tmp_path, "<p>sch\u00f6n")
    status, body = door.ask(door.client(), POST)
    assert (status, body.decode()) == (503, "<p>sch\u00f6n\n")
    word = next((tmp_path / "closed").glob("pass-*")).name[5:].encode()
    for head, wanted in (
        (b"GET /livez?x=1 HTTP/1.1\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 200),
        (b"GET /livezz HTTP/1.1\r\n\r\n", 503),
        (b"GET / HTTP/1.1\r\nX-MLTrading-Pass: " + word + b"\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nX-MLTrading-Pass: ../on\r\n\r\n", 503),
        (b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", 503),
    ):
        assert door.ask(door.client(), head)[0] == wanted
    closed.reopen(tmp_path)
    assert door.ask(door.client()) == (200, b"good")


def test_a_head_that_is_too_long_is_refused(door):
    client = door.client()
    client.sendall(b"GET / HTTP/1.1\r\nA: " + b"x" * 66_000)
    assert door.read(client)[0] == 431


def test_big_bodies_pass_both_ways(door):
    size = 3_000_000
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
    upstream = door.release("one", sends(head + b"d" * size, size=size))
    door.switch("one")
    post = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size + b"u" * size
    assert door.ask(door.client(), post) == (200, b"d" * size)
    assert upstream.seen.get(timeout=3) == post


def test_a_slow_reader_pauses_the_upstream(door):
    size = 20_000_000
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
    door.release("one", sends(head + b"d" * size))
    door.switch("one")
    client = door.client()
    client.sendall(GET)
    wait_for(lambda: any(c.to_client for c in tuple(door.front.connections)))
    (held,) = door.front.connections
    assert len(held.to_client) <= front.CHUNK
    status, body = door.read(client)
    assert (status, len(body)) == (200, size)


def test_chunked_bodies_are_followed_to_the_switch(door):
    def script(connection, upstream):
        data = b""
        while not data.endswith(b"0\r\nTrailer: 1\r\n\r\n"):
            data += connection.recv(65536)
        connection.sendall(CHUNKED)
        connection.recv(1)

    door.release("one", script)
    door.release("two")
    door.switch("one")
    client = door.client()
    client.sendall(CHUNKED_POST)
    answer = b""
    while not answer.endswith(b"0\r\n\r\n"):
        answer += client.recv(65536)
    door.switch("two")
    assert door.ask(client) == (200, b"two")


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
        (GET, b"HTTP/1.1 204 No Content\r\n\r\n"),
        (
            b"HEAD / HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
        ),
    ],
)
def test_an_answer_without_body_ends_at_its_head(door, request_, answer):
    door.release("one", sends(answer))
    door.release("two")
    door.switch("one")
    client = door.client()
    client.sendall(request_)
    assert read_head(client) == answer
    door.switch("two")
    assert door.ask(client) == (200, b"two")


def test_a_client_may_wait_for_100_continue(door):
    def script(connection, upstream):
        read_head(connection)
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        upstream.seen.put(connection.recv(5))
        connection.sendall(OK)
        connection.recv(1)

    upstream = door.release("one", script)
    door.release("two")
    door.switch("one")
    client = door.client()
    client.sendall(POST[:-5].replace(b"Host", b"Expect: 100-continue\r\nHost"))
    assert read_head(client) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert door.ask(client, b"hello") == (200, b"ok")
    assert upstream.seen.get(timeout=3) == b"hello"
    door.switch("two")
    assert door.ask(client) == (200, b"two")


def test_an_upgraded_connection_stays_with_its_release(door):
    def echo(connection, upstream):
        read_head(connection)
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        while data := connection.recv(65536):
            connection.sendall(data)

    door.release("one", echo)
    door.release("two")
    door.switch("one")
    client = door.client()
    client.sendall(UNFOLLOWED_REQUESTS["upgrade"])
    read_head(client)
    door.switch("two")
    client.sendall(GET)
    assert read_head(client) == GET
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""


def test_pipelined_requests_stay_with_their_release(door):
    def two_answers(connection, upstream):
        data = b""
        while data.count(b"\r\n\r\n") < 3:
            data += connection.recv(65536)
            if data.count(b"\r\n\r\n") == 2:
                connection.sendall(OK + OK)
        connection.sendall(OK)

    door.release("one", two_answers)
    door.release("two")
    door.switch("one")
    client = door.client()
    client.sendall(GET + GET)
    answers = b""
    while answers != OK + OK:
        answers += client.recv(65536)
    door.switch("two")
    assert door.ask(client) == (200, b"ok")


def test_an_answer_until_close_is_passed_to_its_end(door):
    door.release("one", sends(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000))
    door.switch("one")
    client = door.client()
    client.sendall(GET)
    answer = b""
    while data := client.recv(65536):
        answer += data
    assert answer.count(b"x") == 100_000


def test_an_early_refusal_reaches_a_client_that_still_sends(door):
    door.release("one", sends(b"HTTP/1.1 413 Big\r\nContent-Length: 0\r\n\r\n"))
    door.switch("one")
    client = door.client()
    client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 300000\r\n\r\n")
    client.sendall(b"x" * 100_000)
    assert door.read(client)[0] == 413


def test_a_truncated_answer_ends_the_connection(door):
    door.release("one", sends(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour"))
    door.switch("one")
    client = door.client()
    client.sendall(GET)
    answer = b""
    while data := client.recv(65536):
        answer += data
    assert answer.endswith(b"four")


def test_a_half_closed_client_still_gets_its_answer(door):
    def waits_for_the_end(connection, upstream):
        while connection.recv(65536):
            pass
        connection.sendall(OK)

    door.release("one", waits_for_the_end)
    door.switch("one")
    client = door.client()
    client.sendall(POST)
    client.shutdown(socket.SHUT_WR)
    assert door.read(client) == (200, b"ok")
    assert client.recv(1) == b""


def test_an_answer_that_says_close_ends_the_connection(door):
    door.release("one", sends(OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")))
    door.switch("one")
    client = door.client()
    assert door.ask(client) == (200, b"ok")
    assert client.recv(1) == b""


def test_idle_connections_are_closed(make_door):
    client = make_door(idle=0.02).client()
    assert client.recv(1) == b""


def test_accepting_pauses_at_the_limit(make_door):
    door = make_door(most_connections=1)
    door.release("one")
    door.switch("one")
    first, second = door.client(), door.client()
    assert door.ask(first) == (200, b"one")
    second.sendall(GET)
    assert len(door.front.connections) == 1
    first.close()
    assert door.read(second) == (200, b"one")


def test_stopping_finishes_open_exchanges_and_closes_idle_clients(door):
    go = threading.Event()

    def slow(connection, upstream):
        upstream.seen.put(read_head(connection))
        go.wait(3)
        connection.sendall(OK)

    upstream = door.release("one", slow)
    door.switch("one")
    idle, busy = door.client(), door.client()
    busy.sendall(GET)
    upstream.seen.get(timeout=3)
    door.front.stop()
    assert idle.recv(1) == b""
    go.set()
    assert door.read(busy) == (200, b"ok")
    busy.close()
    door.thread.join(3)
    assert not door.thread.is_alive()


def test_stopping_gives_up_after_the_grace(make_door):
    door = make_door(grace=0.05)
    client = door.client()
    client.sendall(GET)
    wait_for(lambda: door.front.held)
    door.front.stop()
    door.thread.join(3)
    assert not door.thread.is_alive()


def test_a_fault_ends_its_own_connection_only(door, monkeypatch, capsys):
    door.release("one")
    door.switch("one")
    good, bad = door.client(), door.client()
    assert door.ask(good) == (200, b"one")
    with monkeypatch.context() as patch:
        patch.setattr(front.Connection, "begin", lambda self, data: 1 / 0)
        bad.sendall(GET)
        assert bad.recv(1) == b""
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert door.ask(good) == (200, b"one")


SCRIPT = Path(front.__file__)


@pytest.fixture
def start(tmp_path):
    processes = []

    def run(port, **environ):
        command = [sys.executable, SCRIPT, "--state", tmp_path, "--port", str(port)]
        process = subprocess.Popen(
            list(map(str, command)),
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environ},
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.integration
def test_the_program_writes_and_removes_its_record(start, tmp_path):
    record = tmp_path / "front.json"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        process = start(0, NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert manager.recv(100) == b"READY=1"
    said = json.loads(record.read_text())
    assert said["pid"] == process.pid and said["started_at"].endswith("Z")
    other = start(said["port"])
    assert other.wait(5) == 98
    refusal = json.loads(other.stderr.read())
    assert refusal == {"error": "port_in_use", "port": said["port"]}
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0
    assert not record.exists()


def test_only_its_own_record_is_removed(tmp_path):
    record = tmp_path / "front.json"
    record.write_text(json.dumps({"pid": -1}))
    front.remove_record(str(record))
    assert record.exists()


@pytest.mark.integration
def test_the_front_imports_nothing_heavy(start):
    code = "import sys; from ops.targets import front; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"asyncio", "ssl", "http", "argparse"} & set(run.stdout.split())
