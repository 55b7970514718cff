"""Maintenance: what people read, who is let through, all hosts or none."""

from __future__ import annotations

import getpass
import http.server
import re
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops import maintenance, wire
from ops.alerts import outbox
from ops.alerts.notice import Notice
from ops.alerts.outbox import Outbox
from ops.command import Answer, Request
from ops.environment import Environment
from ops.errors import Refused, StepFailed, Usage
from ops.history import Closure, fold
from ops.hosts import plan as hosts_plan
from ops.targets import closed
from ops.world import Front, Host, World
from tests.ops import worlds

CLOSURE = Closure("Back <b>soon</b>", "ann@laptop", 1_800_000_000.0)
PAGE = maintenance.page(CLOSURE)


# What people read, and who is let through ---------------------------------------------


def test_the_page_says_when_and_shows_the_message_as_text() -> None:
    page = maintenance.page(replace(CLOSURE, until=1_800_001_800.0))
    assert "Back &lt;b&gt;soon&lt;/b&gt;" in page
    assert "Expected back at about 08:30 UTC on 2027-01-15" in page
    assert "Expected" not in PAGE


def test_only_a_request_without_a_pass_gets_one(tmp_path: Path) -> None:
    asked = [Request("GET", "/"), Request("GET", "/", headers={closed.PASS: "none"})]
    assert closed.passing(tmp_path, asked) == asked
    closed.shut(tmp_path, PAGE)
    first, second = closed.passing(tmp_path, asked)
    assert (tmp_path / "closed" / f"pass-{first.headers[closed.PASS]}").exists()
    assert second.headers == {closed.PASS: "none"}


def test_opening_takes_the_pass_away_and_leaves_the_page_for_late_readers(
    tmp_path: Path,
) -> None:
    closed.shut(tmp_path, PAGE)
    assert closed.is_shut(tmp_path)
    closed.reopen(tmp_path)
    assert not closed.is_shut(tmp_path)
    assert [path.name for path in (tmp_path / "closed").iterdir()] == ["page.html"]


class _Release(http.server.BaseHTTPRequestHandler):
    def answer(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.send_header("X-Release", "v7")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"ok")

    do_GET = do_POST = do_HEAD = answer

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[int]:
    """Run nginx with the site of a host whose home is the test's folder."""
    root = tmp_path / "mltrading" / "prod"
    (root / "current").mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    wish = hosts_plan.Wish("prod", "key", "mltrading/prod", port=port)
    site = hosts_plan.site(wish, hosts_plan.Facts(home=str(tmp_path)))
    site = site.replace(f"listen {port}", f"listen 127.0.0.1:{port}")
    site = site.replace("/var/log/nginx", str(tmp_path))
    temporary = "\n".join(
        f"{kind}_temp_path {tmp_path}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        # As root its workers would be nobody, who can't look into a test's folder.
        f"user {getpass.getuser()}; pid {tmp_path}/pid; events {{}}\n"
        f"http {{ access_log off;\n{temporary}\n{site} }}\n"
    )
    words = ("-p", str(tmp_path), "-e", str(tmp_path / "error.log"))
    argv = ("nginx", *words, "-c", str(tmp_path / "nginx.conf"), "-g", "daemon off;")
    with (
        socketserver.ThreadingUnixStreamServer(
            str(root / "current" / "app.sock"), _Release
        ) as release,
        subprocess.Popen(argv) as server,
    ):
        threading.Thread(target=release.serve_forever, daemon=True).start()
        until = time.monotonic() + 10
        while not wire.ask(Request("GET", "/"), port=port).status:
            assert server.poll() is None and time.monotonic() < until
        yield port
        release.shutdown()
        server.terminate()


@pytest.mark.integration
def test_the_site_shows_the_page_without_a_reload_and_lets_our_questions_through(
    nginx: int, tmp_path: Path
) -> None:
    root = tmp_path / "mltrading" / "prod"

    def status(path: str, method: str = "GET", word: str = "none") -> int:
        request = Request(method, path, headers={closed.PASS: word})
        return wire.ask(request, port=nginx).status

    closed.shut(root, PAGE)
    person = wire.ask(Request("GET", "/charts/AAPL?x=1"), port=nginx)
    assert (person.status, person.body.decode()) == (503, PAGE)
    assert person.headers["retry-after"] == "60"
    assert person.headers["x-maintenance"] == "on"
    assert person.headers["content-type"] == "text/html; charset=utf-8"
    assert status("/", "POST") == status("/", "HEAD") == 503
    for path in ("/livez", "/readyz", "/startupz", "/health", "/version", "/metrics"):
        assert status(path) == 200
    assert (status("/metrics.json"), status("/metricsxjson")) == (200, 503)
    (ours,) = closed.passing(root, [Request("GET", "/")])
    assert wire.ask(ours, port=nginx).body == b"ok"
    for word in ("", "on", "../on", "0" * 32, "g" * 32):
        assert status("/", word=word) == 503
    assert status("/-/closed") == 404
    closed.reopen(root)
    assert status("/", "POST") == 200
    log, until = tmp_path / "mltrading-prod.access.log", time.monotonic() + 10
    while not (written := log.read_text()).endswith(" v7 POST / 127.0.0.1\n"):
        # nginx notes an answer after it is given.
        assert time.monotonic() < until, written
    assert re.search(r"^\S+ 503 \S+ - GET /charts/AAPL 127", written, re.MULTILINE)
    assert "livez" not in written


# All hosts or none --------------------------------------------------------------------


class Doors:
    """Hosts whose front doors obey, but for those that are named."""

    def __init__(self, deaf: Sequence[str] = ()) -> None:
        self.deaf = deaf
        self.shut: set[str] = set()
        self.events: list[dict[str, Any]] = []

    def act(self, host: str, verb: str, **_: Any) -> dict[str, Any]:
        (self.shut.add if verb == "shut" else self.shut.discard)(host)
        return {}

    def ask_door(self, host: str, requests: Sequence[Request]) -> list[Answer]:
        shut = host in self.shut and host not in self.deaf
        marks = {closed.MARK: "on"} if shut else {}
        return [Answer(503 if shut else 200, marks)]

    def record(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def observe(self) -> World:
        hosts = [
            Host(name, front=Front(1, 80), shut=name in self.shut)
            for name in ("one", "two")
        ]
        return World("staging", tuple(hosts), fold(self.events))


STAGING: Environment = replace(worlds.ENVIRONMENT, name="staging", target="ssh")


def carry_out(doors: Doors, wanted: Closure | None) -> None:
    world = doors.observe()
    asked = wanted or replace(CLOSURE, reason="all is moved")
    maintenance._carry_out(doors, STAGING, world, world.hosts, asked, wanted)


def test_what_is_on_is_in_the_history_until_it_is_off() -> None:
    doors = Doors()
    carry_out(doors, CLOSURE)
    assert doors.shut == {"one", "two"}
    assert doors.observe().history.closure == CLOSURE
    carry_out(doors, None)
    assert doors.shut == set()
    assert doors.observe().history.closure is None
    on, off = doors.observe().history.runs
    assert (on.op, on.by, off.reason) == (
        "maintenance",
        "ann@laptop",
        "off: all is moved",
    )


def test_one_door_that_does_not_obey_leaves_all_as_they_were() -> None:
    doors = Doors(deaf=["two"])
    with pytest.raises(StepFailed, match="two does not look") as failed:
        carry_out(doors, CLOSURE)
    assert "inv host-setup --env staging --hosts root@two" in failed.value.next
    assert doors.shut == set()
    assert doors.observe().history.closure is None
    assert doors.observe().history.open is None


def test_the_team_is_told_when_it_begins_and_for_how_long_it_was() -> None:
    asked = replace(CLOSURE, until=CLOSURE.since + 1800, reason="a new database")
    doors = Doors()
    on = maintenance.happening(asked, asked, doors.observe())
    carry_out(doors, asked)
    later = replace(CLOSURE, since=CLOSURE.since + 150)
    off = maintenance.happening(later, None, doors.observe())
    assert (on.op, on.next) == (
        "maintenance on",
        "inv maintenance off --env staging",
    )
    assert dict(on.notes) == {
        "message": "Back <b>soon</b>",
        "until": "08:30 UTC on 2027-01-15",
        "because": "a new database",
    }
    assert (off.op, dict(off.notes)["lasted"]) == ("maintenance off", "2 min 30 s")


def test_a_fleets_maintenance_is_told_a_laptops_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Notice] = []

    def take(notice: Notice, *_: Any) -> str:
        sent.append(notice)
        return ""

    environ = {"SLACK_WEBHOOK_URL": "http://127.0.0.1:1"}
    box = Outbox(tmp_path, environ, channels={"slack": take})
    monkeypatch.setattr(outbox, "_boxes", [box])
    about = maintenance.happening(CLOSURE, None, Doors().observe())
    with maintenance._told(replace(STAGING, name="prod", target="local"), about):
        pass
    assert sent == []
    with maintenance._told(STAGING, about):
        assert box.waiting() == []
    with pytest.raises(StepFailed), maintenance._told(STAGING, about):
        raise StepFailed("two does not look", next="inv host-setup")
    box.flush(2.0)
    assert [notice.title for notice in sent] == [
        "staging: maintenance is over: people are let in",
        "staging: maintenance off failed",
    ]


def test_a_host_that_was_away_is_brought_in_line() -> None:
    doors = Doors()
    carry_out(doors, CLOSURE)
    doors.shut = {"one"}
    after = maintenance.settle(doors, doors.observe())
    assert [host.shut for host in after.hosts] == [True, True]
    carry_out(doors, None)
    doors.shut = {"two"}
    after = maintenance.settle(doors, doors.observe())
    assert [host.shut for host in after.hosts] == [False, False]


def test_a_host_out_of_reach_stops_it_unless_the_environment_allows_one() -> None:
    hosts = (Host("one", unreachable="no connection"), Host("two"))
    world = World("staging", hosts)
    with pytest.raises(Refused, match="one can't be reached"):
        maintenance.fit(world, STAGING)
    relaxed = replace(STAGING, max_unavailable=1)
    assert maintenance.fit(world, relaxed) == hosts[1:]


@pytest.mark.parametrize("message", ["", "  ", "x" * 501, "a\x1b[31mb"])
def test_a_message_that_cannot_be_shown_is_refused(message: str) -> None:
    with pytest.raises(Usage, match="can't be shown"):
        maintenance.switch("on", "local", message=message)


def test_a_state_or_a_span_that_is_none_is_refused() -> None:
    with pytest.raises(Usage, match="no state of maintenance"):
        maintenance.switch("maybe", "local")
    with pytest.raises(Usage, match="no span of time"):
        maintenance.switch("on", "local", lasts="soon")
