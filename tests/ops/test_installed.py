"""Dependencies are what was installed, or no release gets traffic with them."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.errors import StepFailed
from ops.targets import installed
from ops.targets.agent import Agent
from ops.targets.store import Store
from tests.ops import worlds

FILES = {"flask/app.py": b"A = 1\n", "flask/data.json": b"{}", "one.pth": b"x"}


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    """Return the hands on a host where v1 is staged, and its environment `env`."""
    agent = Agent(tmp_path / "local")
    agent.prepare()
    agent.stage(worlds.release(1).as_json(), [], {})
    make(agent, "env", FILES)
    return agent


def make(agent: Agent, name: str, files: dict[str, bytes]) -> None:
    """Install files as an environment, as a fleet's host does."""
    store = Store(agent.root)
    texts = {hashlib.sha256(text).hexdigest(): text for text in files.values()}
    lines = (
        f"{hashlib.sha256(text).hexdigest()} {len(text)} - {path}\n"
        for path, text in files.items()
    )
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w|") as archive:
        for sha in store.lacking_files(name, "".join(lines)):
            member = tarfile.TarInfo(sha)
            member.size = len(texts[sha])
            archive.addfile(member, io.BytesIO(texts[sha]))
    store.make(name, io.BytesIO(out.getvalue()))


def site(agent: Agent, name: str = "env") -> Path:
    return installed.site_of(agent.environments / name)


def edit(path: Path) -> None:
    path.write_text("A = 2\n")
    # Whatever the clock of the file system can tell apart.
    os.utime(path, ns=(1, 1))


def remove(path: Path) -> None:
    path.unlink()


def shadow(path: Path) -> None:
    path.with_name("json.py").write_text("")


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (edit, "flask/app.py holds something else"),
        (remove, "flask/app.py is gone"),
        (shadow, "flask/json.py was added"),
    ],
)
def test_a_release_ends_where_its_dependencies_were_altered(
    agent: Agent, alter: Callable[[Path], None], said: str
) -> None:
    alter(site(agent) / "flask/app.py")
    with pytest.raises(StepFailed, match=f"dependencies of v1 were altered.*{said}"):
        agent.boot(1, 1.0)
    # So that the next deploy installs it anew, from nothing that it holds.
    assert agent.observe(0).environments == frozenset()
    make(agent, "env", FILES)
    assert installed.altered(agent.environments / "env") == ""
    assert agent.observe(0).environments == {"env"}


def test_what_python_and_libraries_write_there_is_no_alteration(agent: Agent) -> None:
    cache = site(agent) / "flask" / "__pycache__"
    cache.mkdir()
    (cache / "app.cpython-313.pyc").write_bytes(b"x")
    (site(agent) / "flask" / "fonts.cache").write_bytes(b"x")
    assert installed.altered(agent.environments / "env") == ""


def test_a_file_that_only_looks_otherwise_is_read(agent: Agent) -> None:
    """As after a folder was copied to another disk."""
    os.utime(site(agent) / "flask/app.py", ns=(1, 1))
    assert installed.altered(agent.environments / "env") == ""


def test_an_environment_of_an_older_engine_is_taken_as_it_is(agent: Agent) -> None:
    (agent.environments / "env" / installed.SEEN).unlink()
    remove(site(agent) / "flask/app.py")
    assert installed.altered(agent.environments / "env") == ""


def test_a_file_that_is_shared_and_changed_is_sent_again(agent: Agent) -> None:
    path = site(agent) / "flask/app.py"
    path.write_text("A = 2\n")
    with pytest.raises(StepFailed, match="was changed or removed"):
        make(agent, "next", FILES)
    make(agent, "next", FILES)
    assert (site(agent, "next") / "flask/app.py").read_bytes() == b"A = 1\n"


def test_making_an_environment_anew_leaves_nothing_beside(agent: Agent) -> None:
    installed.distrust(agent.environments / "env")
    make(agent, "env", FILES)
    assert [path.name for path in agent.environments.iterdir()] == ["env"]
