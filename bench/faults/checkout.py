"""Checkouts whose engine is ours and whose dashboard is a stand-in, built beforehand.

One folder a version, so that a run chooses what to ship by choosing where to stand:
nothing is built or committed while the clock runs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ops.environment import ROOT

STUB = Path(__file__).with_name("stub")
# Sound versions; d has a lock of its own, so its environment is made and pruned.
SOUND = ("a", "b", "c", "d")
# Versions with a fault, and whether a deploy of it can succeed.
FAULTY = {
    "slow": True,
    "raises": False,
    "hangs": False,
    "flapping": False,
    "dies": False,
    "public": False,
}
# What is well at first, and so is watched for a while after the switch.
WATCHED = ("flapping", "dies")
# Users meet these before anybody can know.
PUBLIC = ("dies", "public")
SECRET = "STUB_TOKEN"
_GIT = ("git", "-c", "user.name=bench", "-c", "user.email=bench@example.org")
_PACKAGES = {
    "packages/health": ("mltrading_health", ()),
    "packages/marketdata": ("mltrading_marketdata", ("psycopg",)),
    "services/dashboard": ("mltrading_dashboard", ("gunicorn",)),
}
_BUDGETS = {
    "environment": 60,
    "migrate": 20,
    "boot": 8,
    "gate": 4,
    "smoke": 4,
    "stop": 6,
    "watch": 0,
    "free_disk": 20,
}


def make(folder: Path, versions: tuple[str, ...], environ: Mapping[str, str]) -> None:
    """Make a checkout for each version below a folder, each with its artefact built."""
    first = folder / versions[0]
    _copy(first)
    _write(first, versions[0])
    build(first, environ)
    with ThreadPoolExecutor(2) as pool:
        list(
            pool.map(lambda name: _derive(first, folder / name, environ), versions[1:])
        )


def build(checkout: Path, environ: Mapping[str, str]) -> None:
    """Build a checkout's artefact as a deploy would, so that deploys find it built."""
    program = "from ops import artefact; print(artefact.build(full=False).digest)"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=checkout,
        env=dict(environ),
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        raise RuntimeError(f"{checkout.name} can't be built: {ended.stderr}")


def _derive(first: Path, target: Path, environ: Mapping[str, str]) -> None:
    shutil.copytree(first, target, symlinks=True)
    _write(target, target.name)
    build(target, environ)


def _copy(target: Path) -> None:
    """Copy the engine as it is in this checkout, committed or not."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard", "ops", "tasks.py"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names = [*filter(None, listed.split("\0")), "pyproject.toml", ".gitignore"]
    names.append(".python-version")
    for name in names:
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    file = target / "ops" / "environments.toml"
    file.write_text(environments(file.read_text()))
    subprocess.run([*_GIT, "init", "-q"], cwd=target, check=True)


def _write(target: Path, version: str) -> None:
    """Write the stand-in of a version into a checkout, and commit it."""
    extra = ("typing-extensions",) if version == "d" else ()
    for place, (name, needs) in _PACKAGES.items():
        source = target / place / "src" / name
        source.mkdir(parents=True, exist_ok=True)
        (source / "__init__.py").write_text('"""A stand-in."""\n')
        (target / place / "pyproject.toml").write_text(_project(place, name, needs))
    sources = target / "services/dashboard/src/mltrading_dashboard"
    shutil.copy2(STUB / "gunicorn_conf.py", sources)
    text = (STUB / "wsgi.py").read_text()
    fault = version if version in FAULTY else ""
    text = text.replace('MARK = "a"', f'MARK = "{version}"')
    (sources / "wsgi.py").write_text(text.replace('FAULT = ""', f'FAULT = "{fault}"'))
    shutil.copy2(
        STUB / "data.py",
        target / "packages/marketdata/src/mltrading_marketdata/__main__.py",
    )
    file = target / "ops" / "environments.toml"
    watched = "2" if version in WATCHED else "0"
    file.write_text(re.sub(r"(?m)^watch = .*$", f"watch = {watched}", file.read_text()))
    (target / "uv.lock").write_text(lock((ROOT / "uv.lock").read_text(), extra))
    for words in (("add", "-A"), ("commit", "-qm", f"feat: version {version}")):
        subprocess.run([*_GIT, *words], cwd=target, check=True)


def _project(place: str, name: str, needs: tuple[str, ...]) -> str:
    return f"""\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name.replace("_", "-")}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = {list(needs)!r}

[tool.hatch.build.targets.wheel]
packages = ["src/{name}"]
"""


def lock(text: str, extra: tuple[str, ...] = ()) -> str:
    """Return our lock with the stand-in's few dependencies, all of them in it."""
    needs = {
        "mltrading-dashboard": ("gunicorn", "mltrading-health", "mltrading-marketdata")
        + extra,
        "mltrading-health": (),
        "mltrading-marketdata": ("psycopg",),
    }
    for name, names in needs.items():
        listed = "".join(
            f'    {{ name = "{each}"'
            + (', extra = ["binary"]' if each == "psycopg" else "")
            + " },\n"
            for each in names
        )
        text = re.sub(
            rf'(\[\[package\]\]\nname = "{name}"\n.*?)dependencies = \[\n.*?\]\n',
            rf"\1dependencies = [\n{listed}]\n",
            text,
            count=1,
            flags=re.DOTALL,
        )
    return text


def environments(text: str) -> str:
    """Return the environments with short budgets, no gates, and a secret more."""
    values = {name: str(number) for name, number in _BUDGETS.items()}
    values |= {"gates": "[]", "workers": "1", "keep": "3", "port": None, "seed": '""'}
    for name, value in values.items():
        if value is not None:
            text = re.sub(rf"(?m)^{name} = .*$", f"{name} = {value}", text)
    old = "from_environment = ["
    return text.replace(old, f'{old}"{SECRET}", ')
