"""The door to other programs: ends, time-outs, what they inherit."""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

import pytest

from ops.command import Command, Secret
from ops.errors import Refused
from ops.shell import environ, run


def python(program: str, **more: object) -> Command:
    return Command((sys.executable, "-c", program), **more)


def test_a_program_ends_with_its_code_and_what_it_printed() -> None:
    result = run(python("import sys; print('out'); sys.exit('err')"))
    assert (result.code, result.out, result.err) == (1, "out\n", "err\n")


def test_a_program_that_is_not_there_is_refused_by_its_name() -> None:
    with pytest.raises(Refused, match="no-such-program is not installed"):
        run(Command(("no-such-program",)))


def test_a_timeout_ends_the_program_and_all_it_started(tmp_path: Path) -> None:
    child = "import signal; signal.pause()"
    program = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()"
    )
    result = run(python(program, timeout=1.0))
    assert result.timed_out and "timed out after 1 s" in result.err
    assert _ends(int(result.out))


def _ends(pid: int) -> bool:
    """Wait for a process of somebody else's to end, or say that it does not."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ended = select.select([descriptor], [], [], 5)[0]
    os.close(descriptor)
    return bool(ended)


def test_forced_colours_do_not_reach_what_we_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    program = "import os; print(os.environ.get('FORCE_COLOR'), os.environ['NO_COLOR'])"
    assert run(python(program)).out == "None 1\n"


def test_a_secret_reaches_the_program_and_no_text() -> None:
    command = python("import os; print(os.environ['KEY'])", env={"KEY": Secret("s3")})
    assert run(command).out == "s3\n"
    assert "s3" not in repr(command)


def test_a_name_can_be_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GONE", "1")
    assert "GONE" not in environ({"GONE": None})


def test_byte_code_goes_to_the_cache_where_sources_must_not_hold_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("MLTRADING_CACHE", str(tmp_path))
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    found = environ({})
    assert found["PYTHONPYCACHEPREFIX"] == str(tmp_path / "bytecode")
    assert "PYTHONDONTWRITEBYTECODE" not in found
