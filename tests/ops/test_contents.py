"""A release on the disk is what was staged, or it is neither started nor chosen."""

from __future__ import annotations

import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from ops import contents
from ops.errors import StepFailed
from ops.release import Release, record_digest
from ops.targets.agent import Agent
from tests.ops import worlds


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "app-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("app/__init__.py", "A = 1\n")
        archive.writestr("app/data.csv", "1,2\n")
    return path


@pytest.fixture
def agent(tmp_path: Path, wheel: Path) -> Agent:
    """Return the hands on a host that has one release staged."""
    agent = Agent(tmp_path / "local")
    agent.prepare()
    stage(agent, wheel)
    return agent


def record(wheel: Path) -> Release:
    files = contents.digest(contents.of_wheels([wheel]))
    return replace(worlds.release(1), files=files)


def stage(agent: Agent, wheel: Path) -> None:
    text = record(wheel).as_json()
    facts = {"record": record_digest(text)}
    event = {"run": "r", "op": "deploy", "phase": "begin", "at": 0.0, "release": 1}
    agent.journal.append({**event, "facts": facts})
    agent.stage(text, [wheel], {})


def seen(agent: Agent) -> str:
    return agent.observe(0).slots[0].altered


def test_a_wheel_and_what_it_unpacks_to_have_the_same_list(
    agent: Agent, wheel: Path
) -> None:
    assert contents.of_folder(agent.releases / "v1/lib") == contents.of_wheels([wheel])
    assert seen(agent) == ""


def change(lib: Path) -> None:
    (lib / "app/__init__.py").write_text("A = 2\n")


def keep_its_dates(lib: Path) -> None:
    path = lib / "app/__init__.py"
    before = path.stat()
    change(lib)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove(lib: Path) -> None:
    (lib / "app/data.csv").unlink()


def remove_all(lib: Path) -> None:
    shutil.rmtree(lib)


def add(lib: Path) -> None:
    (lib / "app/more.py").write_text("")


def forge(lib: Path) -> None:
    change(lib)
    contents.note(lib.parent, contents.of_folder(lib))


def forge_all(lib: Path) -> None:
    forge(lib)
    path = lib.parent / "release.json"
    files = contents.digest((lib.parent / contents.FILES).read_text())
    path.write_text(replace(Release.parse(path.read_text()), files=files).as_json())


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (change, "lib/app/__init__.py holds something else"),
        (keep_its_dates, "lib/app/__init__.py holds something else"),
        (remove, "lib/app/data.csv is gone"),
        (remove_all, "lib can't be read: No such file or directory"),
        (add, "lib/app/more.py was added"),
        (forge, "FILES is not the list that the record names"),
        (forge_all, "release.json is not the record that the journal names"),
    ],
)
def test_what_was_altered_is_named_and_not_started(
    agent: Agent, act: object, says: str
) -> None:
    act(agent.releases / "v1" / "lib")
    assert seen(agent) == says
    with pytest.raises(StepFailed, match="is not started: " + says) as refused:
        agent.boot(1, 1.0)
    assert refused.value.next.startswith("inv deploy")


def test_a_copy_of_the_same_files_is_as_good(agent: Agent) -> None:
    lib = agent.releases / "v1" / "lib"
    shutil.copytree(lib, lib.with_name("copy"))
    shutil.rmtree(lib)
    lib.with_name("copy").rename(lib)
    assert seen(agent) == ""


def test_bytecode_is_no_change(agent: Agent) -> None:
    cache = agent.releases / "v1" / "lib" / "app" / "__pycache__"
    cache.mkdir()
    (cache / "app.cpython-313.pyc").write_bytes(b"")
    assert seen(agent) == ""


def test_a_file_that_looks_untouched_is_not_read_again_until_it_is_started(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    read = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: reads.append(path) or read(path)
    )
    slot = agent.releases / "v1"
    wanted = Release.parse((slot / "release.json").read_text()).files
    assert (contents.altered(slot, wanted), reads) == ("", [])
    assert (contents.altered(slot, wanted, whole=True), len(reads)) == ("", 2)


def test_a_release_of_an_older_engine_has_no_list_and_is_believed(
    agent: Agent,
) -> None:
    agent.stage(worlds.release(2).as_json(), [], {})
    (agent.releases / "v2" / contents.FILES).unlink()
    assert agent.observe(0).slots[1].altered == ""


def test_what_unpacks_to_something_else_is_never_staged(
    agent: Agent, wheel: Path
) -> None:
    other = replace(record(wheel), number=2, files="0" * 64)
    with pytest.raises(StepFailed, match="did not unpack to what its record names"):
        agent.stage(other.as_json(), [wheel], {})
    assert [slot.number for slot in agent.observe(0).slots if slot.whole] == [1]


def test_one_command_looks_at_the_files_once(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []
    monkeypatch.setattr(
        contents, "altered", lambda slot, *_, **__: looks.append(slot) or ""
    )
    assert (seen(agent), seen(agent), len(looks)) == ("", "", 1)
