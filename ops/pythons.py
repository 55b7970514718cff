"""Find the Pythons that the tests run on, each with everything locked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ops import errors
from ops.command import Command
from ops.shell import run as shell_run


def interpreter(name: str, root: Path) -> tuple[str, str]:
    """Return (version, executable) of an environment with everything locked.

    The environment is `.venv-<version>` in the checkout, made on the first use.

    Raises:
        Usage: this machine has no such Python.
    """
    environment = root / f".venv-{name}"
    settings = {
        "UV_PROJECT_ENVIRONMENT": str(environment),
        "UV_PYTHON_DOWNLOADS": "never",
        "VIRTUAL_ENV": None,
        "UV_PYTHON": None,
    }
    found = shell_run(Command(("uv", "python", "find", "--system", name), env=settings))
    executable = found.out.strip() if found.ok else pyenv(name, os.environ)
    if not executable:
        raise errors.Usage(
            f"Python {name} is not on this machine",
            where=f"--python {name}",
            allowed="a version that `uv python list --only-installed` shows",
            next=f"uv python install {name}",
        )
    sync = ("uv", "sync", "--frozen", "--quiet", "--all-groups", "--python", executable)
    made = shell_run(Command((*sync, "--offline"), cwd=root, env=settings))
    if not made.ok:
        made = shell_run(Command(sync, cwd=root, env=settings, timeout=900))
    if not made.ok:
        raise errors.StepFailed(
            f"the locked packages can't be installed for Python {name}",
            detail=made.tail(8),
        )
    return name, str(environment / "bin" / "python")


def pyenv(name: str, environ: Mapping[str, str]) -> str:
    """Return pyenv's newest Python of a version: uv sees only what is on PATH."""
    root = Path(environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [*root.glob(f"versions/{name}/bin/python")]
    found += root.glob(f"versions/{name}.*/bin/python")
    return str(max(found, key=lambda path: path.stat().st_mtime, default=""))
