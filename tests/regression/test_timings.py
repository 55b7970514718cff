"""A real browser measures a page and reports it, under a strict policy."""

import threading
from importlib.resources import files
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest

from mltrading_health import Metrics
from mltrading_health.client import ClientTimings

pytestmark = pytest.mark.regression

SCRIPT = files("mltrading_health") / "static/timings.js"
PAGE = """<!DOCTYPE html><html lang="en"><head><title>Desk</title>
<script defer src="/timings.js"{name}></script></head>
<body><h1>A heading that is painted</h1><button>Buy</button></body></html>"""
POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'"


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass


class Site:
    """Serve one page, its script and the endpoint that it reports to."""

    def __init__(self):
        self.metrics = Metrics(environ={})
        self.timings = ClientTimings(self.metrics, ("charts", "home"))
        self.answers, self.came = [], threading.Event()
        self.server = make_server("127.0.0.1", 0, self, Server, Quiet)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __call__(self, environ, start):
        path = environ["PATH_INFO"]
        if path == "/metrics/client":
            status, kind, body = self.timings.receive(environ)
            self.answers.append((status, environ["CONTENT_TYPE"]))
            self.came.set()
        elif path == "/timings.js":
            status, kind, body = "200 OK", "text/javascript", SCRIPT.read_bytes()
        elif path == "/favicon.ico":
            status, kind, body = "204 No Content", "image/png", b""
        else:
            name = ' data-page="charts"' if path == "/named" else ""
            status, kind = "200 OK", "text/html"
            body = PAGE.format(name=name).encode()
        headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
        start(status, [*headers, ("Content-Security-Policy", POLICY)])
        return [body]


@pytest.fixture
def site():
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


@pytest.mark.parametrize(
    "path, page", [("/named", "charts"), ("/charts/AAPL", "charts"), ("/", "home")]
)
def test_a_visit_is_reported_once_when_it_ends(browser, site, path, page):
    tab = browser.new_page()
    said = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(site.address + path, wait_until="load")
    tab.get_by_role("button").click()
    # Two frames later what was painted, and the answer to the click, are measured.
    frames = "() => new Promise(f => requestAnimationFrame(() => setTimeout(f, 50)))"
    tab.evaluate(frames)
    hide = "() => dispatchEvent(new Event('pagehide'))"
    tab.evaluate(hide)
    tab.evaluate(hide)
    assert site.came.wait(10)
    tab.goto("about:blank")
    tab.close()
    assert site.answers == [("204 No Content", "text/plain;charset=UTF-8")]
    assert said == []
    found = site.metrics.snapshot()
    loads = "browser_page_load_seconds"
    assert found.total(f"{loads}_count", page=page) == 1
    assert 0 < found.total(f"{loads}_sum") < 60
    for vital in ("FCP", "LCP", "TTFB", "INP"):
        name = "browser_web_vital_seconds"
        assert found.total(f"{name}_count", vital=vital, page=page) == 1, vital
        assert 0 <= found.total(f"{name}_sum", vital=vital) < 60
    assert found.total("browser_layout_shift_count", page=page) == 1


def test_a_visit_is_reported_when_the_tab_moves_on(browser, site):
    tab = browser.new_page()
    tab.goto(site.address + "/named", wait_until="load")
    tab.goto("about:blank")
    assert site.came.wait(10)
    tab.close()
    assert site.answers == [("204 No Content", "text/plain;charset=UTF-8")]
