"""Another service answers, or it is said without its name why not."""

import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mltrading_health import Health, Status, http_check
from tests import certificates


class Handler(BaseHTTPRequestHandler):
    """Answer with the status that the path names; note what was asked."""

    def do_GET(self):
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        self.send_response(int(self.path[1:4]))
        self.send_header("Location", "http://127.0.0.1:1/login")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "settings", "status"),
    [
        ("/204", {}, Status.PASS),
        ("/200", {"method": "GET"}, Status.PASS),
        ("/302", {}, Status.FAIL),
        ("/302", {"redirects": True}, Status.PASS),
        ("/404", {}, Status.FAIL),
        ("/404", {"statuses": {404}}, Status.PASS),
        ("/500", {"redirects": True}, Status.FAIL),
        ("/200", {"slow": 0.0}, Status.WARN),
        ("/500", {"slow": 0.0}, Status.FAIL),
    ],
)
def test_the_status_decides(server, path, settings, status):
    result = http_check(server.url + path, 5.0, **settings)()
    assert result.status is status
    assert result.output.startswith(f"HTTP {path[1:]} in ")
    assert result.value > 0 and result.unit == "ms"


def test_a_redirect_is_not_followed(server):
    http_check(server.url + "/302", 5.0, redirects=True)()
    assert len(server.asked) == 1


def test_query_and_headers_are_sent(server):
    http_check(server.url + "/200?a=1", 5.0, method="GET", headers={"X-Key": "k"})()
    method, path, headers = server.asked[0]
    assert (method, path, headers["X-Key"]) == ("GET", "/200?a=1", "k")
    assert headers["User-Agent"] == "mltrading-health"


@pytest.fixture
def listener():
    """Listen and answer nothing, unless a test does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def url(listener):
    return f"http://127.0.0.1:{listener.getsockname()[1]}/"


def test_silence_fails_at_the_timeout(listener):
    result = http_check(url(listener), 0.02)()
    assert (result.status, result.output) == (Status.FAIL, "no answer in time")


def test_nobody_there_fails(listener):
    address = url(listener)
    listener.close()
    result = http_check(address, 5.0)()
    assert (result.status, result.output) == (Status.FAIL, "Connection refused")


def test_what_is_no_http_fails(listener):
    def babble():
        with listener.accept()[0] as door:
            door.recv(1000)
            door.sendall(b"SSH-2.0-OpenSSH\r\n")

    thread = threading.Thread(target=babble)
    thread.start()
    result = http_check(url(listener), 5.0)()
    thread.join()
    assert (result.status, result.output) == (Status.FAIL, "BadStatusLine")


def test_a_name_that_is_not_known_is_not_told(monkeypatch):
    def lookup(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    result = http_check("http://secret.internal/", 1.0)()
    assert result.output == "Name or service not known"


def test_a_certificate_must_be_good_and_the_host_is_not_told(server, tmp_path):
    certificate, key = certificates.make(tmp_path, "127.0.0.1")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate, key)
    server.socket = served.wrap_socket(server.socket, server_side=True)
    address = server.url.replace("http", "https") + "/200"
    stranger = http_check(address, 5.0)()
    assert stranger.status is Status.FAIL
    assert stranger.output == "its certificate is not valid (18)"
    known = ssl.create_default_context(cafile=certificate)
    assert http_check(address, 5.0, context=known)().status is Status.PASS


@pytest.mark.parametrize(
    ("address", "settings"),
    [
        ("ftp://host/", {}),
        ("file:///etc/passwd", {}),
        ("https:///path", {}),
        ("host/path", {}),
        ("https://me:hunter2@host/", {}),
        ("https://host/", {"method": "POST"}),
    ],
)
def test_what_cannot_be_asked_is_refused_when_it_is_set_up(address, settings):
    with pytest.raises(ValueError) as refused:
        http_check(address, **settings)
    assert "hunter2" not in str(refused.value)


def test_strangers_see_no_host(server):
    health = Health("dashboard")
    health.check("external_apis", http_check(server.url + "/500", 5.0), timeout=5.0)
    result = health.report().checks["external_apis"]
    assert "127.0.0.1" not in result.output and result.status is Status.FAIL
