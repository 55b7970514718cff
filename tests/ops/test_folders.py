"""Folders that may be thrown away, and the byte-code that is kept there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops import folders
from ops.environment import ROOT


def test_the_folder_follows_the_environment() -> None:
    assert folders.cache({"MLTRADING_CACHE": "/a", "XDG_CACHE_HOME": "/b"}) == Path(
        "/a"
    )
    assert folders.cache({"XDG_CACHE_HOME": "/b"}) == Path("/b/mltrading")
    assert folders.cache({}) == Path.home() / ".cache" / "mltrading"


@pytest.mark.integration
def test_byte_code_that_must_not_lie_beside_the_sources_is_kept_elsewhere(
    tmp_path: Path,
) -> None:
    program = "import ops.menu; ops.menu.keep_bytecode(); import ops.plan"
    environ = {**os.environ, "MLTRADING_CACHE": str(tmp_path)}
    environ.pop("PYTHONPYCACHEPREFIX", None)
    argv = [sys.executable, "-B", "-c", program]
    subprocess.run(argv, cwd=ROOT, env=environ, check=True)
    assert list((tmp_path / "bytecode").rglob("plan.*.pyc"))
