"""Every Python builds the same bytes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ops import artefact, pythons, reproduction, toolchain
from ops.command import Command
from ops.environment import ROOT
from ops.shell import run
from tests.ops.checkouts import must

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def builder(name: str, folder: Path) -> str:
    """Return a Python of a version, in an environment with our builders and no more."""
    must(folder, "uv", "venv", "--quiet", "--python", pythons.find(name), "there")
    pins = (f"{n}=={v}" for n, v in toolchain.closure(artefact.BUILDERS).items())
    argv = ("uv", "pip", "install", "--quiet", "--python", "there", *pins)
    if not run(Command((*argv, "--offline"), cwd=folder)).ok:
        must(folder, *argv)
    return str(folder / "there" / "bin" / "python")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("here")
    return reproduction.digests(ROOT, folder, sys.executable)


def why_not(item: pytest.Item) -> str:
    """Say why a test is left out: asked, counted and shown by tests/conftest.py.

    The gate of the workflow compares the builds of all versions, so what is left out
    here is red there.
    """
    name = item.callspec.params["python"]  # type: ignore[attr-defined]
    if pythons.near(name, os.environ):
        return ""
    return f"no Python {name} on this machine, see `uv python install {name}`"


@pytest.mark.integration
@pytest.mark.parametrize("python", [n for n in pythons.VERSIONS if n != HERE])
def test_another_python_builds_the_same_bytes(
    python: str, here: dict[str, str], tmp_path: Path
) -> None:
    there = reproduction.digests(ROOT, tmp_path / "work", builder(python, tmp_path))
    assert there == here
    assert len(here) == 2 * len(artefact.PACKAGES)
