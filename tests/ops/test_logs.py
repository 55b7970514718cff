"""Logs: the last entries of each, in order; what comes; readers that leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ops import logs
from ops.environment import ROOT
from ops.errors import Usage


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two releases that wrote at turns, one of them with a traceback."""
    monkeypatch.setenv("MLTRADING_STATE", str(tmp_path))
    write(tmp_path, 2, "2026-03-01T12:00:01.000Z a of 2\n2026-03-01T12:00:03Z b of 2\n")
    write(tmp_path, 10, "2026-03-01 12:00:02.5Z ERROR a of 10\nTraceback\n  boom\n")
    return tmp_path


def write(state: Path, number: int, text: str) -> None:
    folder = state / "local" / "releases" / f"v{number}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "app.log").open("a") as file:
        file.write(text)


@pytest.fixture
def said(state: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    def show(**words: object) -> list[str]:
        logs.show("local", **words)
        return capsys.readouterr().out.splitlines()

    return show


def test_logs_are_merged_by_time_and_a_traceback_stays_whole(said) -> None:
    assert said() == [
        "v2  | 2026-03-01T12:00:01.000Z a of 2",
        "v10 | 2026-03-01 12:00:02.5Z ERROR a of 10",
        "v10 | Traceback",
        "v10 |   boom",
        "v2  | 2026-03-01T12:00:03Z b of 2",
    ]


def test_no_lines_are_no_lines(said) -> None:
    assert said(lines="0") == []


def test_a_text_is_looked_for_in_whole_entries(said) -> None:
    assert len(said(grep="boom")) == 3
    assert said(grep="a of", release="v2") == [said(release="2")[0]]


def test_what_is_older_is_left_out(said) -> None:
    assert said(since="2026-03-01T12:00:02.9Z") == ["v2  | 2026-03-01T12:00:03Z b of 2"]


def test_a_line_is_an_object_of_json(said) -> None:
    found = [json.loads(line) for line in said(as_json=True, release="v10")]
    (entry,) = found
    assert entry.pop("host")
    assert entry == {
        "at": "2026-03-01T12:00:02.500Z",
        "release": "v10",
        "source": "v10",
        "text": "2026-03-01 12:00:02.5Z ERROR a of 10\nTraceback\n  boom",
    }


def test_a_line_cannot_command_the_terminal(said, state: Path) -> None:
    write(state, 10, "2026-03-01T12:00:09Z GET /\x1b]0;evil\x07\n")
    assert said(lines="1")[-1].endswith("GET /\ufffd]0;evil\ufffd")


def test_a_secret_of_a_release_is_in_no_line(said, state: Path) -> None:
    from tests.ops import worlds

    folder = state / "local" / "releases" / "v2"
    record = worlds.slot(2, "dead a", secrets=("API_KEY",)).release
    (folder / "release.json").write_text(record.as_json())
    environ = {"API_KEY": "key-123", "DATABASE_URL": "postgresql://u:p%40ssw@h/d"}
    (folder / "environ.json").write_text(json.dumps(environ))
    write(state, 10, "2026-03-01T12:00:09Z key-123 p@ssw p%40ssw a://b:cc@d\n")
    assert said(lines="1")[-1].endswith("Z *** *** *** a://b:***@d")


def test_what_was_done_is_told_among_what_was_written(said, state: Path) -> None:
    from ops.journal import Journal

    (state / "local" / "state").mkdir()
    journal = Journal(state / "local" / "state" / "journal.jsonl")
    event = {"run": "r", "op": "deploy", "release": 10, "at": 1772366402.0}
    journal.append({**event, "phase": "begin", "facts": {"by": "ann"}})
    journal.append({**event, "phase": "intent", "step": "boot"})
    assert said()[1] == "acts | 2026-03-01T12:00:02.000Z deploy v10 begins, by ann"
    assert len(said()) == 6


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        ({"release": "v3"}, "v2, v10"),
        ({"release": "x"}, "v7"),
        ({"host": "nowhere"}, ""),
        ({"lines": "many"}, "0 and up"),
        ({"since": "soon"}, "10m"),
    ],
)
def test_bad_words_say_what_is_allowed(said, words: dict, allowed: str) -> None:
    with pytest.raises(Usage) as usage:
        said(**words)
    assert allowed in usage.value.allowed


# As it comes --------------------------------------------------------------------------


def follow(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "invoke", "logs", "--follow", *words],
        cwd=ROOT,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.integration
def test_following_sees_what_comes_and_releases_that_come(state: Path) -> None:
    follower = follow("--lines", "1")
    first = [follower.stdout.readline() for _ in range(4)]
    write(state, 11, "2026-03-01T12:00:05Z new\n")
    new = follower.stdout.readline()
    follower.send_signal(signal.SIGINT)
    _, err = follower.communicate(timeout=10)
    assert first[0].startswith("v10 |") and first[3].startswith("v2  |")
    assert new == "v11 | 2026-03-01T12:00:05Z new\n"
    assert (follower.returncode, err) == (130, "")


@pytest.mark.integration
def test_following_ends_with_its_reader(state: Path) -> None:
    with follow("--release", "v2") as follower:
        follower.stdout.readline()
        follower.stdout.close()
        # Nothing is written any more, and still it sees that nobody reads.
        assert follower.wait(timeout=10) == 0
        assert follower.stderr.read() == ""
