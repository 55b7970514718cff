"""The ssh target without a host: messages, files, units, connections."""

from __future__ import annotations

import hashlib
import io
import os
import py_compile
import shlex
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from paramiko import SSHException

from ops.command import Answer, Command, Request
from ops.environment import ROOT, Address
from ops.errors import GateFailed, Refused, StepFailed
from ops.shell import Result
from ops.targets import keepers, link, protocol, trees
from ops.targets.agent import Agent
from ops.targets.keepers import Units, environment_file
from ops.targets.session import Stream
from ops.targets.store import Store
from ops.world import Front, Host, Slot
from tests.ops import worlds

# Messages -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        Host("a", 3, (Slot(3, worlds.release(3), 7, (7, 8), True),), frozenset({"e"})),
        Host("a", front=Front(1, 80), python="cpython-3.11-x86_64-glibc_2.36"),
        [Request("POST", "/x", b"\0\xff", {"A": "b"}), Answer(200, {}, b"ok", 0.1)],
        {"made": True, "path": "/x", "numbers": [1, None]},
    ],
)
def test_values_keep_their_type_on_the_way(value: Any) -> None:
    assert protocol.parse(protocol.line({"ok": value})) == {"ok": value}


def test_an_error_arrives_as_what_was_raised() -> None:
    said = protocol.error(GateFailed("no", where="x", next="y", detail="z"))
    raised = protocol.raised(said, "host1")
    assert isinstance(raised, GateFailed)
    assert (raised.where, raised.next, raised.detail) == ("host1: x", "y", "z")
    full = protocol.raised(protocol.error(OSError(28, "No space", "/x")), "host1")
    assert isinstance(full, OSError) and full.errno == 28


def test_a_defect_of_the_agent_is_a_failed_step() -> None:
    raised = protocol.raised(protocol.error(ZeroDivisionError("by 0")), "host1")
    assert isinstance(raised, StepFailed) and "ZeroDivisionError" in raised.what


# Files --------------------------------------------------------------------------------


def manifest(files: dict[str, bytes]) -> str:
    lines = (
        f"{hashlib.sha256(text).hexdigest()} {len(text)} - {name}\n"
        for name, text in files.items()
    )
    return "".join(lines)


def tar(*texts: bytes, names: tuple[str, ...] = ()) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w|") as archive:
        for number, text in enumerate(texts):
            sha = hashlib.sha256(text).hexdigest()
            member = tarfile.TarInfo(names[number] if names else sha)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return io.BytesIO(out.getvalue())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "envs").mkdir()
    return Store(tmp_path)


def test_only_what_a_host_lacks_is_sent(store: Store) -> None:
    first = {"a/x.py": b"same", "a/y.py": b"old", "b.py": b"same"}
    assert len(store.lacking_files("one", manifest(first))) == 2
    store.make("one", tar(b"same", b"old"))
    second = {"a/x.py": b"same", "a/y.py": b"new"}
    lacking = store.lacking_files("two", manifest(second))
    assert lacking == [hashlib.sha256(b"new").hexdigest()]
    assert store.make("two", tar(b"new"))["sent"] == 1
    (site,) = store.environments.glob("two/lib/python3*/site-packages")
    assert (site / "a/x.py").read_bytes() + (site / "a/y.py").read_bytes() == b"samenew"
    assert (store.environments / "two" / "READY").exists()


def test_byte_code_comes_along_with_the_source_that_it_is_of(store: Store) -> None:
    store.lacking_files("one", manifest({"a/x.py": b"x = 1"}))
    store.make("one", tar(b"x = 1"))
    (first,) = store.environments.glob("one/lib/python3*/site-packages/a/x.py")
    compiled = first.parent / "__pycache__" / f"x.{sys.implementation.cache_tag}.pyc"
    py_compile.compile(str(first), str(compiled), doraise=True)
    store.lacking_files("two", manifest({"a/x.py": b"x = 1", "a/y.py": b"y"}))
    store.make("two", tar(b"y"))
    (second,) = store.environments.glob("two/lib/python3*/site-packages/a/x.py")
    assert second.stat().st_mtime == first.stat().st_mtime
    linked = second.parent / "__pycache__" / compiled.name
    assert linked.read_bytes() == compiled.read_bytes()


def test_a_file_that_was_changed_on_the_way_is_refused(store: Store) -> None:
    wanted = hashlib.sha256(b"right").hexdigest()
    store.lacking_files("one", manifest({"x": b"right"}))
    with pytest.raises(StepFailed, match="other contents"):
        store.make("one", tar(b"wrong", names=(wanted,)))
    assert not (store.environments / "one").exists()


def test_a_file_that_was_changed_on_the_host_is_not_used(store: Store) -> None:
    store.lacking_files("one", manifest({"x": b"right"}))
    store.make("one", tar(b"right"))
    next(store.environments.glob("one/lib/*/*/x")).write_bytes(b"wrong")
    store.lacking_files("two", manifest({"x": b"right"}))
    with pytest.raises(StepFailed, match="was changed"):
        store.make("two", tar())


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x"])
def test_a_path_that_leads_out_of_the_tree_is_refused(store: Store, path: str) -> None:
    with pytest.raises(StepFailed, match="can't be"):
        store.lacking_files("one", manifest({path: b"x"}))


def test_a_damaged_wheel_is_sent_again(store: Store) -> None:
    sha = hashlib.sha256(b"wheel").hexdigest()
    assert store.lacking_wheels([sha]) == [sha]
    store.take_wheels([sha], tar(b"wheel"))
    assert store.lacking_wheels([sha]) == []
    store.wheel(sha).write_bytes(b"torn")
    assert store.lacking_wheels([sha]) == [sha]


def test_a_stream_hands_on_what_comes_and_drops_the_rest() -> None:
    stream = Stream()
    for chunk in (b"abc", b"def", b"more", b""):
        stream.chunks.put(chunk)
    stream.begin()
    assert (stream.read(4), stream.read(1)) == (b"abcd", b"e")
    stream.drain()
    assert stream.read() == b""


@pytest.mark.parametrize(
    ("python", "wanted"),
    [
        ("cpython-3.11-x86_64-glibc_2.36", ("3.11", "x86_64-manylinux_2_36")),
        ("cpython-3.13-aarch64-glibc_2.28", ("3.13", "aarch64-manylinux_2_28")),
        ("cpython-3.12-x86_64-glibc_2.44", ("3.12", "x86_64-manylinux_2_40")),
        ("cpython-3.12-x86_64-glibc_2.30", ("3.12", "x86_64-manylinux_2_28")),
    ],
)
def test_wheels_are_chosen_for_the_hosts_python(python: str, wanted: tuple) -> None:
    assert trees.platform(python) == wanted


@pytest.mark.parametrize(
    "python", ["cpython-3.11-x86_64-_", "cpython-3.11-riscv64-glibc_2.36", ""]
)
def test_a_host_without_wheels_is_refused(python: str) -> None:
    with pytest.raises(Refused, match="nothing can be installed"):
        trees.platform(python)


# Units --------------------------------------------------------------------------------


def test_what_a_killed_agent_left_of_a_secret_goes_with_the_next_boot(
    tmp_path: Path,
) -> None:
    left = tmp_path / ".environ.unit-356"
    left.write_text("PASSWORD=canary")
    keepers._write(tmp_path / "environ.unit", "PASSWORD=canary", mode=0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["environ.unit"]


def test_a_tree_that_another_deployer_has_made_first_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "trees" / "abc"

    def install(command: Command) -> Result:
        site = Path(command.argv[command.argv.index("--target") + 1])
        site.mkdir(parents=True)
        (site / "gunicorn.py").write_text("")
        home.mkdir()
        (home / trees.MANIFEST).write_text("of the other\n")
        return Result(0, "", "", 0.1)

    monkeypatch.setattr(trees, "run", install)
    monkeypatch.setenv("MLTRADING_CACHE", str(tmp_path))
    tree = trees.build("abc", tmp_path, "cpython-3.13-x86_64-glibc_2.36", "uv", 9)
    assert tree.manifest == "of the other\n"
    assert [path.name for path in home.parent.iterdir()] == ["abc"]


def test_the_unit_runs_one_release_within_its_limits() -> None:
    unit = Units(Path("/home/d/m/staging/releases"), "staging", 512).template()
    for line in (
        "Type=notify",
        "WorkingDirectory=/home/d/m/staging/releases/%i",
        "EnvironmentFile=/home/d/m/staging/releases/%i/environ.unit",
        "Restart=on-failure",
        "MemoryMax=512M",
        "KillMode=mixed",
        "NoNewPrivileges=yes",
    ):
        assert f"\n{line}\n" in unit
    assert "\nExecStart=/home/d/m/staging/releases/%i/env/bin/python -m " in unit


def test_what_starts_with_the_host_is_what_current_names(tmp_path: Path) -> None:
    (tmp_path / "releases" / "v7").mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/v7")
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "systemctl"
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)
    unit = Units(tmp_path / "releases", "staging", 512).starter()
    (command,) = [
        line.removeprefix("ExecStart=")
        for line in unit.splitlines()
        if line.startswith("ExecStart=")
    ]
    said = subprocess.run(
        shlex.split(command.replace("$$", "$")),
        env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split()[-1] == "mltrading-staging@v7.service"


def test_variables_reach_the_unit_whatever_they_hold() -> None:
    text = environment_file({"A": 'a "b" \\ $c `d` é', "B": "x\ny"})
    assert text == 'A="a \\"b\\" \\\\ \\$c \\`d\\` é"\nB="x\ny"\n'


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ("Result=exit-code\nExecMainStatus=3\n", "it ended with exit code 3"),
        ("Result=signal\nExecMainStatus=9\n", "signal 9 ended it"),
        ("Result=oom-kill\n", "it used more memory than it may"),
        ("Result=timeout\n", "it was not ready in time"),
        ("Result=success\n", ""),
        ("Result=resources\n", "systemd says resources"),
    ],
)
def test_a_unit_says_how_it_ended(shown: str, said: str) -> None:
    assert keepers.ended(shown) == said


def test_a_user_without_systemd_is_sent_to_the_setup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    with pytest.raises(StepFailed, match="no systemd") as failed:
        Units(tmp_path / "releases", "staging", 512, tmp_path / "units").prepare()
    assert failed.value.next == "inv host-setup --env staging"


def test_others_may_pass_through_to_the_socket_and_no_further(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "m" / "staging", shared=True)
    agent.prepare()
    agent.stage(worlds.release(1).as_json(), [], {"X": "secret"})
    slot = agent.releases / "v1"
    for path in (tmp_path / "m", agent.root, agent.releases, slot):
        assert path.stat().st_mode & 0o777 == 0o711
    for path in (agent.state, agent.environments, slot / "environ.json"):
        assert path.stat().st_mode & 0o077 == 0


# Connections --------------------------------------------------------------------------


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Somebody who takes calls and says nothing."""
    monkeypatch.setattr(link, "CONNECT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_host_that_says_nothing_is_out_of_reach(silent: socket.socket) -> None:
    port = silent.getsockname()[1]
    with pytest.raises(link.Unreachable, match="no SSH"):
        link.connect(Address("deploy", "127.0.0.1", port), {})


def test_a_host_that_says_nothing_makes_no_trace(silent: socket.socket) -> None:
    program = """if True:
        from ops.environment import Address
        from ops.targets import link
        link.CONNECT = 0.2
        try:
            link.connect(Address("deploy", "127.0.0.1", %d), {})
        except link.Unreachable as error:
            print(error)
    """
    ended = subprocess.run(
        [sys.executable, "-c", program % silent.getsockname()[1]],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert ended.stdout.startswith("no SSH") and ended.stderr == ""


def test_a_host_that_refuses_is_out_of_reach() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(link.Unreachable, match="no connection: Connection refused"):
        link.connect(Address("deploy", "127.0.0.1", port), {})


def test_a_host_that_does_not_answer_is_called_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Called twice, one host without power cost each command ten seconds."""

    def dial(*_: Any) -> socket.socket:
        raise TimeoutError

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = Address("deploy", "127.0.0.1", server.getsockname()[1])
        monkeypatch.setattr(link.socket, "create_connection", dial)
        with pytest.raises(link.Unreachable, match="no connection: it took too long"):
            link.connect(address, {})
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("step", ["open_session", "exec_command"])
@pytest.mark.parametrize("error", [EOFError(), SSHException("closed"), OSError("cut")])
def test_a_connection_that_is_cut_while_the_agent_starts_is_a_host_out_of_reach(
    monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
) -> None:
    connection = MagicMock()
    broken = connection.transport
    if step == "exec_command":
        broken = broken.open_session.return_value
    getattr(broken, step).side_effect = error
    monkeypatch.setattr(link, "connect", lambda address: connection)
    with pytest.raises(link.Unreachable, match="the agent did not start"):
        link.Link(Address("deploy", "192.0.2.1", 22), "mltrading/x", {}).open()


def test_a_connection_made_early_is_given_up_where_settings_lead_elsewhere() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address("deploy", "127.0.0.1", server.getsockname()[1])
        for wanted in (True, False):
            early = link.Early(address)
            early.thread.join()
            sock = early.take(wanted=wanted)
            there, _ = server.accept()
            with there:
                assert (sock is not None) is wanted
                if sock is not None:
                    sock.close()
                assert there.recv(1) == b""


def test_keys_that_are_unknown_or_changed_read_differently() -> None:
    address, file = Address("deploy", "10.0.0.1", 2222), Path("/k")
    unknown = link.unknown_key(address, file)
    assert unknown.next == "ssh-keyscan -t ed25519 -p 2222 10.0.0.1 >> /k"
    changed = link.changed_key(address, file, "ssh-ed25519")
    assert "HAS CHANGED" in changed.what and "[10.0.0.1]:2222" in changed.next
    assert unknown.code == changed.code == 1
