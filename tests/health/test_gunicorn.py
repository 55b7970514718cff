"""Under gunicorn nothing is lost: restarts, crashes, reloads."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from mltrading_health import gunicorn, slot, tokens


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv(gunicorn.RUNTIME, str(tmp_path))
    monkeypatch.setenv(gunicorn.METRICS, str(tmp_path / "metrics" / str(os.getpid())))
    monkeypatch.setenv(gunicorn.OWNER, "")
    return tmp_path


def test_install_gives_all_hooks(runtime):
    conf = {}
    gunicorn.install(conf)
    assert set(conf) == {
        *("on_starting", "pre_fork", "post_fork", "child_exit", "on_exit"),
    }


def test_hooks_that_exist_are_called_first(runtime):
    calls = []
    conf = {"pre_fork": lambda server, worker: calls.append(worker)}
    gunicorn.install(conf)
    gunicorn.install(conf)
    worker = SimpleNamespace()
    conf["pre_fork"](SimpleNamespace(WORKERS={}), worker)
    assert calls == [worker]
    assert worker.health_slot == "0"


def test_hooks_of_the_server_are_chained_too(runtime):
    calls = []
    conf = {"on_starting": calls.append}
    gunicorn.install(conf)
    conf["on_starting"]("server")
    assert calls == ["server"]


def test_a_worker_gets_the_slot_that_its_siblings_leave():
    siblings = {1: SimpleNamespace(health_slot="0"), 2: SimpleNamespace()}
    worker = SimpleNamespace()
    gunicorn.pre_fork(SimpleNamespace(WORKERS=siblings), worker)
    assert worker.health_slot == "1"


def test_a_start_removes_what_dead_masters_left(tmp_path):
    dead = tmp_path / "metrics" / "999999999"
    mine = tmp_path / "metrics" / str(os.getpid())
    parent = tmp_path / "metrics" / str(os.getppid())
    for folder in (dead, mine, parent):
        folder.mkdir(parents=True)
        (folder / "counter_0.db").touch()
    environ = {gunicorn.RUNTIME: str(tmp_path)}
    gunicorn.prepare(environ)
    assert not dead.exists() and parent.exists()
    assert list(mine.iterdir()) == []
    assert environ[gunicorn.METRICS] == str(mine)


def test_a_reload_keeps_the_files(tmp_path):
    environ = {gunicorn.RUNTIME: str(tmp_path)}
    gunicorn.prepare(environ)
    kept = tmp_path / "metrics" / str(os.getpid()) / "counter_0.db"
    kept.touch()
    gunicorn.prepare(environ)
    assert kept.exists()


def test_a_master_leaves_a_token_and_a_reload_keeps_it(tmp_path):
    environ = {gunicorn.RUNTIME: str(tmp_path)}
    gunicorn.prepare(environ)
    first = tokens.read(tmp_path)
    assert oct((tmp_path / "token").stat().st_mode & 0o777) == "0o600"
    gunicorn.prepare(environ)
    assert tokens.read(tmp_path) == first
    # Another master, of USR2 or a restart, begins with what this one has left.
    environ[gunicorn.OWNER] = "999999999 "
    gunicorn.prepare(environ)
    assert tokens.read(tmp_path) not in ("", first)
    assert first not in environ.values()


def test_a_folder_that_was_made_stays_while_another_master_uses_it(monkeypatch):
    environ = {}
    gunicorn.prepare(environ)
    for name, text in environ.items():
        monkeypatch.setenv(name, text)
    folder = Path(environ[gunicorn.RUNTIME])
    other = folder / "metrics" / str(os.getppid())
    other.mkdir()
    gunicorn.on_exit(None)
    assert other.exists() and not gunicorn.metrics_folder().exists()
    other.rmdir()
    # The master of an USR2 inherits that the folder is one to remove.
    again = {**environ, gunicorn.OWNER: f"999999999 {folder}"}
    gunicorn.prepare(again)
    assert again[gunicorn.OWNER] == environ[gunicorn.OWNER]
    gunicorn.on_exit(None)
    assert not folder.exists()


def test_a_runtime_folder_is_made_and_removed_if_none_is_given(monkeypatch):
    environ = {}
    gunicorn.prepare(environ)
    for name, text in environ.items():
        monkeypatch.setenv(name, text)
    folder = environ[gunicorn.RUNTIME]
    assert os.path.isdir(environ[gunicorn.METRICS])
    gunicorn.on_exit(None)
    assert not os.path.exists(folder)


def test_a_given_runtime_folder_stays(runtime):
    gunicorn.install({})
    gunicorn.on_exit(None)
    assert runtime.exists() and not gunicorn.metrics_folder().exists()


def test_a_start_ends_a_drain(runtime):
    (runtime / "drain").touch()
    gunicorn.on_starting(None)
    assert not (runtime / "drain").exists()


def test_a_full_disk_does_not_keep_a_worker_from_serving(runtime, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(slot, "take", lambda name: None)
    monkeypatch.setattr(gunicorn.Path, "write_text", full)
    worker = SimpleNamespace(health_slot="3")
    gunicorn.post_fork(None, worker)


def test_a_worker_says_where_it_is_and_is_forgotten(runtime, monkeypatch):
    gunicorn.install({})
    monkeypatch.setattr(slot, "_current", slot.MASTER)
    worker = SimpleNamespace(health_slot="3")
    gunicorn.post_fork(None, worker)
    path = gunicorn.metrics_folder() / "worker_3.pid"
    live = gunicorn.metrics_folder() / "gauge_livesum_3.db"
    counts = gunicorn.metrics_folder() / "counter_3.db"
    live.touch()
    counts.touch()
    assert slot.current() == "3" and path.read_text() == f"{os.getpid()}\n"
    gunicorn.child_exit(None, worker)
    assert not path.exists() and not live.exists() and counts.exists()


# -- a real gunicorn ----------------------------------------------------------------

CONF = """
bind = "unix:app.sock"
workers = 2
threads = 4
worker_class = "gthread"
preload_app = True
control_socket_disable = True
def post_worker_init(worker):
    # Only now a SIGTERM is its own: before, it is lost in what the master would do.
    open(f"ready_{worker.pid}", "w").close()
from mltrading_health.gunicorn import install
install(globals())
"""
APP = """
import os
from mltrading_health import Health, Metrics, wsgi
health = Health("test", release="r1", runtime_dir=os.environ["MLTRADING_RUNTIME_DIR"])
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "6"), ("X-Pid", str(os.getpid()))])
    return [b"hello\\n"]
app = wsgi(app, health, Metrics(), route=lambda environ: environ["PATH_INFO"])
"""


def wait_for(fact, seconds=20.0):
    """Poll a fact until it is true; fail after some seconds."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (found := fact()):
        assert time.monotonic() < deadline, "the fact did not come true in time"
        pause.wait(0.01)
    return found


class Server:
    """A gunicorn that listens on a unix socket in a folder."""

    def __init__(self, folder):
        self.folder, self.sent = folder, 0
        (folder / "conf.py").write_text(CONF)
        (folder / "served.py").write_text(APP)
        self.log = (folder / "log").open("w")
        self.process = subprocess.Popen(
            # Its own program: as a module it can't start itself again on USR2.
            [Path(sys.executable).with_name("gunicorn"), "-c", "conf.py", "served:app"],
            cwd=folder,
            env={**os.environ, "MLTRADING_RUNTIME_DIR": str(folder / "run")},
            stderr=self.log,
        )
        self.metrics = folder / "run" / "metrics" / str(self.process.pid)

    @property
    def token(self):
        return tokens.read(self.folder / "run")

    def get(self, path, token=""):
        connection = http.client.HTTPConnection("localhost", timeout=10)
        try:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(10)
            connection.sock.connect(str(self.folder / "app.sock"))
            headers = {"Connection": "close", "Authorization": f"Bearer {token}"}
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    def serves(self):
        try:
            return self.get("/livez")[0] == 200
        except OSError:
            return False

    def drive(self, requests=100):
        for _ in range(requests):
            status, headers, _ = self.get("/work")
            assert (status, headers["X-Release"]) == (200, "r1")
            self.sent += 1
        # An answer is counted when it has ended, a moment after its client has it.
        wait_for(lambda: self.counted() == self.sent)

    def counted(self):
        text = self.get("/metrics")[2]
        found = re.search(r'requests_total{.*"/work".*"2xx"} (\S+)', text)
        return int(float(found[1]))

    def pids(self):
        found = {int(p.read_text() or 0) for p in self.metrics.glob("worker_*.pid")}
        return {pid for pid in found if (self.folder / f"ready_{pid}").exists()}

    def files(self):
        return sorted(path.name for path in self.metrics.glob("*.db"))

    def reload(self):
        before = self.pids()
        self.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(self.pids()) == 2 and not self.pids() & before)

    def kill_a_worker(self):
        before = self.pids()
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: len(self.pids()) == 2 and victim not in self.pids())

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    try:
        wait_for(lambda: server.serves() and len(server.pids()) == 2)
        yield server
    finally:
        server.stop()


@pytest.mark.integration
def test_no_count_is_lost_and_files_stay_flat(server):
    server.drive()
    server.reload()
    server.drive()
    server.kill_a_worker()
    server.drive()
    assert server.counted() == server.sent == 300
    most = server.files()
    for _ in range(2):
        server.reload()
        server.kill_a_worker()
        server.drive()
    assert server.counted() == server.sent == 500
    slots = {name.rpartition("_")[2] for name in server.files()}
    assert slots <= {"0.db", "1.db", "2.db", "3.db", "master.db"}
    assert len(server.files()) <= 3 * len(slots)
    assert len(server.files()) <= len(most) + 3
    assert 'worker_memory_bytes{worker="' in server.get("/metrics")[2]


@pytest.mark.integration
def test_draining_is_seen_by_all_workers_and_ends_with_a_start(server):
    (server.folder / "run" / "drain").touch()
    assert server.get("/readyz")[0] == 503
    server.stop()
    assert not server.metrics.exists()
    again = Server(server.folder)
    try:
        wait_for(lambda: again.serves() and len(again.pids()) == 2)
        assert again.get("/readyz")[0] == 200
    finally:
        again.stop()


@pytest.mark.integration
def test_the_token_of_the_folder_opens_details_through_hup_and_usr2(server):
    """Who reads the folder needs no other secret, whichever worker answers."""

    def opens(token):
        said = [json.loads(server.get("/health", token)[2]) for _ in range(6)]
        assert {"details" in each for each in said} in ({True}, {False})
        return "details" in said[0]

    first = server.token
    assert opens(first) and not opens("wrong" * 5) and not opens("")
    server.reload()
    assert server.token == first and opens(first)
    server.process.send_signal(signal.SIGUSR2)
    masters = server.metrics.parent
    wait_for(lambda: len(list(masters.iterdir())) == 2)
    (new,) = {int(path.name) for path in masters.iterdir()} - {server.process.pid}
    try:
        wait_for(lambda: len(list((masters / str(new)).glob("*.pid"))) == 2)
        # Workers of both masters answer now, and take what the newer one has left.
        assert server.token not in ("", first)
        assert opens(server.token) and not opens(first)
        server.process.terminate()
        server.process.wait(20)
        assert opens(server.token)
    finally:
        os.kill(new, signal.SIGTERM)
        wait_for(lambda: not (masters / str(new)).exists())
