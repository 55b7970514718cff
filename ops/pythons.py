"""Find the Pythons that tests and builds run on, each with everything locked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ops import errors
from ops.command import Command
from ops.shell import run as shell_run

# What the project says it runs on; pyproject.toml's classifiers, oldest first.
VERSIONS = ("3.11", "3.12", "3.13")


def interpreter(name: str, root: Path) -> tuple[str, str]:
    """Return (version, executable) of an environment with everything locked.

    The environment is `.venv-<version>` in the checkout, made on the first use.

    Raises:
        Usage: this machine has no such Python.
    """
    environment = root / f".venv-{name}"
    settings = {**_SETTINGS, "UV_PROJECT_ENVIRONMENT": str(environment)}
    executable = find(name)
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


_SETTINGS = {"UV_PYTHON_DOWNLOADS": "never", "VIRTUAL_ENV": None, "UV_PYTHON": None}


def find(name: str) -> str:
    """Return the path of this machine's Python of a version, "" where it has none."""
    asked = Command(("uv", "python", "find", "--system", name), env=_SETTINGS)
    found = shell_run(asked)
    return found.out.strip() if found.ok else near(name, os.environ)


def near(name: str, environ: Mapping[str, str]) -> str:
    """Return a Python of a version from PATH, pyenv or uv, and start no program.

    "" where there is none. uv itself sees those of pyenv only while they are on PATH.
    """
    for folder in environ.get("PATH", "").split(os.pathsep):
        file = Path(folder, f"python{name}")
        if folder and os.access(file, os.X_OK) and not _script(file):
            return str(file)
    home = Path(environ.get("HOME") or Path.home())
    pyenv = Path(environ.get("PYENV_ROOT") or home / ".pyenv") / "versions"
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    managed = Path(environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python")
    found = [*pyenv.glob(f"{name}/bin/python"), *pyenv.glob(f"{name}.*/bin/python")]
    found += managed.glob(f"cpython-{name}.*/bin/python")
    return str(max(found, key=lambda path: path.stat().st_mtime, default=""))


def _script(file: Path) -> bool:
    """Say whether a file is a script: pyenv has one for each version, on or off."""
    try:
        with open(file, "rb") as opened:
            return opened.read(2) == b"#!"
    except OSError:
        return True
