"""The load client sends on schedule, never retries, and accounts for every request."""

import asyncio
import itertools
import json
import socket
import threading

import pytest

from bench import load
from bench.load import Answer, Load, Request, Result

OK = b"HTTP/1.1 200 OK\r\nX-Release: r1\r\nContent-Length: 5\r\n\r\nhello"


class Server:
    """Answer each request of each connection with the same bytes, or close."""

    def __init__(self, answer=OK, *, most=1_000_000):
        self.answer, self.most, self.seen, self.connections = answer, most, [], 0
        self.threads, self.open, self.asked = [], [], threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/base/"
        self.threads.append(threading.Thread(target=self.accept))
        self.threads[0].start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.open.append(connection)
            thread = threading.Thread(target=self.serve, args=(connection,))
            self.threads.append(thread)
            thread.start()

    def serve(self, connection):
        with connection:
            for number in itertools.count():
                try:
                    data = connection.recv(65536)
                except OSError:
                    return
                if not data or number >= self.most:
                    return
                self.seen.append(data)
                self.asked.set()
                connection.sendall(self.answer)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(5)


@pytest.fixture
def serve():
    servers = []

    def serve(*given, **named):
        servers.append(Server(*given, **named))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def drive(url, **settings):
    return asyncio.run(load.run(url, **{"seconds": 0.05, **settings}))


def test_the_schedule_mixes_both_rates():
    moments = list(itertools.islice(load.schedule(2, 1), 6))
    assert moments[:3] == [(0.0, False), (0.0, True), (0.5, True)]
    assert [kept for _, kept in moments].count(True) == 4
    assert next(load.schedule(0, 0), None) is None


def test_every_request_is_accounted_for(serve):
    result = drive(serve().url)
    assert (len(result.answers), result.failures) == (15, {})
    assert result.summary().releases == {"r1": 15}
    assert 0 < result.latency(0.5) <= result.latency(0.99) <= result.latency(1.0)


def test_kept_connections_are_kept_and_new_ones_are_new(serve):
    server = serve()
    drive(server.url, keepalive_connections=2, keepalive_rps=40, new_rps=60)
    assert server.connections == 2 + 3


def test_requests_are_sent_by_turns_below_the_path_of_the_url(serve):
    server = serve()
    turns = [Request("POST", "/a", b"body", {"X-A": "1"}), Request(path="/b")]
    drive(server.url, requests=turns, keepalive_rps=0, new_rps=40)
    first, second = sorted(server.seen, reverse=True)
    assert first.startswith(b"POST /base/a HTTP/1.1\r\n")
    assert b"\r\nX-A: 1\r\nContent-Length: 4\r\n" in first and first.endswith(b"body")
    assert second.startswith(b"GET /base/b HTTP/1.1\r\n")


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "failures"),
    [
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\n\r\n", {}),
        (b"HTTP/1.1 103 Hints\r\n\r\n" + OK, {}),
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", {"5xx": 1}),
        (b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", {"4xx": 1}),
        (HEAD + b"Content-Length: 3\r\n\r\nbye", {"content": 1}),
        (b"hello\r\n\r\n", {"content": 1}),
    ],
)
def test_what_an_answer_is_counted_as(serve, answer, failures):
    request = Request(expect=b"hello")
    result = drive(serve(answer).url, keepalive_rps=0, new_rps=20, requests=[request])
    assert result.failures == failures


def test_a_new_connection_that_is_closed_is_closed(serve):
    result = drive(serve(most=0).url, keepalive_rps=0, new_rps=20)
    assert set(result.failures) <= {"closed", "reset"} and result.failed == 1


def test_a_kept_connection_that_is_closed_under_a_request_is_reuse(serve):
    server = serve(most=1)
    result = drive(
        server.url, seconds=0.04, keepalive_connections=1, keepalive_rps=50, new_rps=0
    )
    assert result.failures == {"reuse": 1}
    assert server.connections == 1
    (failed,) = (answer for answer in result.answers if answer.failure)
    assert 0 < failed.well < failed.sent


def test_a_server_that_says_close_is_not_a_failure(serve):
    answer = OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")
    result = drive(serve(answer, most=1).url, new_rps=0)
    assert (len(result.answers), result.failures) == (10, {})


def test_a_connection_that_is_closed_while_idle_is_counted_but_no_failure(serve):
    server = serve()

    async def use_twice():
        client = load.Client(load.Place.parse(server.url), 5.0, lambda: 0.0)
        await client.again(Request())
        server.open[0].shutdown(socket.SHUT_RDWR)
        while not client.idle[0].ended:
            await asyncio.sleep(0)
        await client.again(Request())
        client.close()
        return client

    client = asyncio.run(use_twice())
    assert [answer.failure for answer in client.answers] == ["", ""]
    assert (client.idle_closed, server.connections) == (1, 2)


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    result = drive(f"http://127.0.0.1:{port}/", keepalive_rps=20, new_rps=20)
    assert result.failures == {"connect": 2}


def test_an_answer_that_does_not_come_is_a_timeout(serve):
    result = drive(serve(b"HTTP/1.1 ").url, keepalive_rps=0, new_rps=20, timeout=0.02)
    assert result.failures == {"timeout": 1}


def test_the_load_runs_beside_its_caller(serve):
    server = serve()
    running = Load(server.url, keepalive_rps=500, new_rps=0).start()
    assert server.asked.wait(5)
    result = running.stop()
    assert result.answers and not result.failures


def test_a_load_that_breaks_says_so(serve):
    running = Load(serve().url, nonsense=1).start()
    with pytest.raises(RuntimeError, match="the load broke"):
        running.stop()


@pytest.mark.parametrize(
    "url",
    ["http://example.org/", "http://10.0.0.1/", "https://127.0.0.1/", "http:///x"],
)
def test_only_this_machine_may_be_loaded(url):
    with pytest.raises(ValueError, match="loopback"):
        Load(url)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "[::1]"])
def test_all_names_of_this_machine_are_accepted(host):
    place = load.Place.parse(f"http://{host}:81")
    assert place.name == f"{host}:81"


def test_a_run_needs_an_end():
    with pytest.raises(ValueError, match="seconds"):
        drive("http://127.0.0.1/", seconds=None)


SWITCH = Result(
    (
        Answer(1.0, 1.1, "old"),
        Answer(1.9, 2.1, "old"),
        Answer(2.0, 2.2, "new"),
        Answer(2.1, 2.3, "old"),
        Answer(2.2, 2.4, "new"),
    )
)


def test_a_switch_is_seen_in_the_answers():
    assert SWITCH.first_from("new", after=1.95).ended == 2.2
    assert SWITCH.last_from("old", sent_after=1.95).ended == 2.3
    assert SWITCH.last_from("old", sent_after=2.2) is None
    assert SWITCH.first_from("none", after=0) is None
    assert SWITCH.latency(1.0, since=1.95) == pytest.approx(0.2)


def test_a_run_without_answers_has_figures():
    assert Result(()).summary().p99 == 0.0


def test_the_command_line_prints_figures(serve, capsys):
    assert load.main(["--url", serve().url, "--seconds", "0.05", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["total"], figures["failed"]) == (15, 0)
    assert load.main(["--url", serve(most=0).url, "--seconds", "0.01"]) == 1
    assert "failures" in capsys.readouterr().out


def test_the_command_line_refuses_other_machines(capsys):
    with pytest.raises(SystemExit, match="2"):
        load.main(["--url", "http://example.org/"])
    assert "loopback" in capsys.readouterr().err
