"""The hands on a host: the switch, pruning, processes; real files, no release."""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from ops.command import Command, Request
from ops.errors import Refused, StepFailed
from ops.shell import Result
from ops.targets.agent import Agent
from tests.ops import worlds


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    agent = Agent(tmp_path / "local")
    agent.prepare()
    return agent


def staged(agent: Agent, *numbers: int) -> None:
    for number in numbers:
        agent.stage(worlds.release(number).as_json(), [], {})


def test_the_switch_replaces_the_pointer_and_leaves_nothing_beside(
    agent: Agent,
) -> None:
    staged(agent, 1, 2)
    agent.switch(1)
    agent.switch(2)
    assert os.readlink(agent.root / "current") == "releases/v2"
    assert not list(agent.root.glob(".current-*"))


def test_a_pointer_left_by_a_crash_does_not_mislead_the_next_switch(
    agent: Agent,
) -> None:
    staged(agent, 1, 2)
    os.symlink("releases/v1", agent.root / ".current-crashed")
    agent.switch(2)
    assert agent.observe(0).current == 2
    agent.prune([])
    assert not list(agent.root.glob(".current-*"))


def test_a_release_is_whole_only_when_its_record_is_written(agent: Agent) -> None:
    staged(agent, 1)
    (agent.releases / "v2").mkdir()
    (agent.releases / "v3").mkdir()
    (agent.releases / "v3" / "release.json").write_text('{"number":')
    found = {slot.number: slot.whole for slot in agent.observe(0).slots}
    assert found == {1: True, 2: False, 3: False}


def test_the_configuration_is_readable_by_this_user_only(agent: Agent) -> None:
    agent.stage(worlds.release(1).as_json(), [], {"DATABASE_URL": "secret"})
    mode = (agent.releases / "v1" / "environ.json").stat().st_mode
    assert mode & 0o777 == 0o600


def test_pruning_never_removes_the_release_that_has_traffic(agent: Agent) -> None:
    staged(agent, 1, 2, 3)
    agent.switch(1)
    agent.prune([1, 2])
    assert [slot.number for slot in agent.observe(0).slots] == [1, 3]


def test_pruning_removes_environments_that_no_release_needs(agent: Agent) -> None:
    staged(agent, 1)
    for name in ("env", "old", ".half-1"):
        (agent.environments / name).mkdir()
    agent.prune([])
    assert [path.name for path in agent.environments.iterdir()] == ["env"]


def test_an_orphan_is_found_without_its_pid_file_and_ended(agent: Agent) -> None:
    staged(agent, 4)
    pid_file = str(agent.releases / "v4" / "app.pid")
    program = "import sys; print('up', flush=True); sys.stdin.read()"
    orphan = subprocess.Popen(
        [sys.executable, "-c", program, "--pid", pid_file],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert orphan.stdout.readline() == b"up\n"
    (slot,) = agent.observe(0).slots
    assert slot.pid == orphan.pid
    agent.stop(4, 5.0)
    assert orphan.wait() == -15
    orphan.communicate()


def test_a_release_that_has_traffic_is_ended_only_by_a_halt(agent: Agent) -> None:
    staged(agent, 4)
    agent.switch(4)
    keeper = Told()
    agent.keeper = keeper
    for end in (lambda: agent.stop(4, 1.0), lambda: agent.retire(4)):
        with pytest.raises(Refused, match="v4 has traffic here and is not ended"):
            end()
    assert keeper.ended == []
    assert agent.halt(4, 1.0) == {"stopped": 1, "killed": 0}
    agent.switch(None)
    assert agent.retire(4) == {"asked": True}
    assert keeper.ended == [4, 4]


class Told:
    """A keeper of one process, who notes whom it is told to end."""

    def __init__(self) -> None:
        self.ended: list[int] = []

    def running(self) -> dict[int, tuple[int, ...]]:
        return {4: (1004,)}

    def stop(self, number: int, timeout: float) -> int:
        self.ended.append(number)
        return 0

    def retire(self, number: int) -> bool:
        self.ended.append(number)
        return True


def test_a_process_that_ignores_the_polite_signal_is_killed(agent: Agent) -> None:
    staged(agent, 4)
    pid_file = str(agent.releases / "v4" / "app.pid")
    program = (
        "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('up', flush=True); sys.stdin.read()"
    )
    stubborn = subprocess.Popen(
        [sys.executable, "-c", program, "--pid", pid_file],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert stubborn.stdout.readline() == b"up\n"
    assert agent.stop(4, 0.2) == {"stopped": 1, "killed": 1}
    assert stubborn.wait() == -9
    stubborn.communicate()


def test_a_port_of_another_program_is_named(agent: Agent) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        holder = agent.observe(taken.getsockname()[1]).port_holder
    assert holder.startswith(f"process {os.getpid()} (")


def test_a_state_folder_on_a_read_only_file_system_is_refused() -> None:
    with pytest.raises(Refused, match="cannot be written") as refused:
        Agent(Path("/proc/mltrading")).prepare()
    assert "MLTRADING_STATE" in refused.value.next


def test_the_key_stays_the_same(agent: Agent) -> None:
    assert agent.key() == agent.key()
    assert (agent.state / "key").stat().st_mode & 0o777 == 0o600


def test_pruning_keeps_the_newest_backups_whatever_their_names(agent: Agent) -> None:
    names = ["9-old", "8-old", "0001-new"]
    for age, name in enumerate(names):
        path = agent.root / "backups" / name
        path.write_text("x")
        os.utime(path, (1000 + age, 1000 + age))
    agent.prune([], keep_backups=2)
    left = {path.name for path in (agent.root / "backups").iterdir()}
    assert left == {"8-old", "0001-new"}


def test_pruning_takes_what_is_known_of_a_backup_with_it(agent: Agent) -> None:
    for age, name in enumerate(["newest", "old", "gone"]):
        for path in (f"{name}.dump", f"{name}.dump.json"):
            (agent.root / "backups" / path).touch()
            os.utime(agent.root / "backups" / path, (1e9 - age, 1e9 - age))
    (agent.root / "backups" / "lost.dump.json").touch()
    agent.prune([], keep_backups=1)
    left = {path.name for path in (agent.root / "backups").iterdir()}
    assert left == {"newest.dump", "newest.dump.json"}


def test_a_program_that_only_names_the_pid_file_is_not_the_release(
    agent: Agent,
) -> None:
    staged(agent, 4)
    pid_file = agent.releases / "v4" / "app.pid"
    pid_file.write_text("1")
    reader = subprocess.Popen(["cat", "-", str(pid_file)], stdin=subprocess.PIPE)
    (slot,) = agent.observe(0).slots
    reader.communicate()
    assert slot.processes == ()


def test_a_damaged_wheel_fails_its_step(agent: Agent, tmp_path: Path) -> None:
    wheel = tmp_path / "x.whl"
    wheel.write_bytes(b"not a zip")
    with pytest.raises(StepFailed, match="damaged"):
        agent.stage(worlds.release(1).as_json(), [wheel], {})
    assert not agent.observe(0).slots[0].whole


def test_looking_at_an_empty_machine_leaves_it_empty(tmp_path: Path) -> None:
    host = Agent(tmp_path / "none" / "local").observe(0)
    assert (host.current, host.slots) == (None, ())
    assert list(tmp_path.iterdir()) == []


def test_a_release_with_a_listener_is_alive(agent: Agent) -> None:
    import socket

    from ops.targets.agent import _listens

    path = agent.root / "app.sock"
    assert not _listens(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        assert _listens(path)
    assert not _listens(path)


def test_the_data_layer_hears_how_many_hosts_share_its_database(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged(agent, 1)
    heard = []

    def run(command: Command, **_: object) -> Result:
        heard.append((command.argv[3], command.env.get("MLTRADING_HOSTS")))
        return Result(0, "{}", "", 0.1)

    monkeypatch.setattr("ops.targets.agent.run", run)
    agent.migrate(1, "", 9.0, hosts=3)
    agent.data(1, ["backup", "x"], 9.0)
    assert heard == [("prepare", "3"), ("backup", None)]


@pytest.mark.parametrize("laid", ["", "s3cret"])
def test_a_release_is_asked_with_the_key_that_it_has_laid_out(
    agent: Agent, laid: str
) -> None:
    staged(agent, 1)
    folder = agent.releases / "v1"
    if laid:
        (folder / "run").mkdir()
        (folder / "run" / "token").write_text(f"{laid}\n")
    with echoing(folder / "app.sock"):
        (answer,) = agent.ask(1, [Request("GET", "/metrics", headers={"Accept": "a"})])
    heard = json.loads(answer.body)
    assert heard["accept"] == "a"
    assert heard.get("authorization") == (f"Bearer {laid}" if laid else None)


@contextmanager
def echoing(path: Path) -> Iterator[None]:
    """Answer one request on a unix socket with the headers that came."""

    class Echo(BaseHTTPRequestHandler):
        def address_string(self) -> str:
            return "unix"

        def do_GET(self) -> None:
            body = json.dumps({k.lower(): v for k, v in self.headers.items()}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with socketserver.UnixStreamServer(str(path), Echo) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        yield
        thread.join()
