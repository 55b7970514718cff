"""Logs: the last lines, new ones as they come, and a reader that leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops import logs
from ops.environment import ROOT


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for number in (2, 10):
        folder = tmp_path / "local" / "releases" / f"v{number}"
        folder.mkdir(parents=True)
        (folder / "app.log").write_text(f"a of {number}\nb of {number}\n")
    monkeypatch.setenv("MLTRADING_STATE", str(tmp_path))
    return tmp_path


def test_releases_come_in_the_order_of_their_numbers(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.show("local", lines=1)
    assert capsys.readouterr().out == "v2  | b of 2\nv10 | b of 10\n"


def test_no_lines_are_no_lines(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.show("local", lines=0)
    assert capsys.readouterr().out == ""


def test_only_lines_with_a_text(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.show("local", release="v10", grep="a of")
    assert capsys.readouterr().out == "v10 | a of 10\n"


def test_following_sees_new_lines_and_ends_with_its_reader(state: Path) -> None:
    follower = subprocess.Popen(
        [sys.executable, "-m", "invoke", "logs", "--follow", "--lines", "1"],
        cwd=ROOT,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    first = [follower.stdout.readline(), follower.stdout.readline()]
    follower.stdout.close()
    log = state / "local" / "releases" / "v2" / "app.log"
    while follower.poll() is None:
        # Nobody reads any more: the next lines end it.
        with log.open("a") as file:
            file.write("more\n")
    assert first == [b"v2  | b of 2\n", b"v10 | b of 10\n"]
