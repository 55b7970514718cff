"""The versions of what is installed."""

from __future__ import annotations

from ops import toolchain


def test_versions_are_those_that_are_installed() -> None:
    from importlib.metadata import version

    found = toolchain.installed()
    assert found["black"] == version("black")
    assert found["import-linter"] == version("import-linter")
