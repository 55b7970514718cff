"""A project of its own: a copy of this checkout, a state folder, a free port."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.environment import ROOT

PACKAGE = "services/dashboard/src/mltrading_dashboard"


class Project:
    """A checkout that a release engineer works in, through the menu alone."""

    def __init__(self, folder: Path, state: Path) -> None:
        self.folder = folder
        self.state = state
        self.local = state / "local"
        self.changes = 0

    def environ(self, **more: str) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DATABASE_URL", "ENVIRONMENT", "COV_", "PYTEST_"))
        }
        advisories = ROOT.parent / "shared" / "advisories"
        if advisories.is_dir():
            kept.setdefault("MLTRADING_ADVISORIES", str(advisories))
        # How old the advisory database is, is judged by `inv ci`, not here.
        kept.setdefault("MLTRADING_ALLOW_STALE_ADVISORIES", "end-to-end tests")
        return {**kept, "MLTRADING_STATE": str(self.state), "NO_COLOR": "1", **more}

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "invoke", *words],
            cwd=self.folder,
            env=self.environ(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def inv(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*words, **more)
        out, err = process.communicate(timeout=180)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def deploy(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.inv("deploy", "--env", "local", *words)

    def status(self) -> dict[str, Any]:
        return json.loads(self.inv("status", "--json").stdout)

    def commit(self) -> None:
        git = ("git", "-c", "user.name=Ann", "-c", "user.email=ann@example.org")
        for words in (("add", "-A"), ("commit", "-qm", "feat: change something")):
            subprocess.run([*git, *words], cwd=self.folder, check=True)

    def change(self) -> None:
        """Commit a harmless change of the dashboard: a new artefact."""
        self.changes += 1
        path = self.folder / PACKAGE / "__init__.py"
        text = path.read_text().partition("\n# Change ")[0].rstrip("\n")
        path.write_text(f"{text}\n\n# Change {self.changes}.\n")
        self.commit()

    def plant(self, text: str, module: str = "wsgi.py") -> None:
        """Commit a fault at the end of a module of the dashboard."""
        path = self.folder / PACKAGE / module
        path.write_text(path.read_text().rstrip("\n") + "\n\n\n" + text)
        subprocess.run([sys.executable, "-m", "black", "-q", str(path)], check=True)
        self.commit()

    def mend(self, module: str = "wsgi.py") -> None:
        """Take a planted fault out again."""
        shutil.copy(ROOT / PACKAGE / module, self.folder / PACKAGE / module)
        self.change()

    def journal(self) -> list[dict[str, Any]]:
        lines = (self.local / "state" / "journal.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]


def copy_checkout(folder: Path) -> None:
    """Copy the files of this checkout that git knows or would know."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    # The load of the tests comes from one address.
    file = folder / "ops" / "environments.toml"
    text = file.read_text()
    assert 'RATE_LIMIT = "1200"' in text
    file.write_text(text.replace('RATE_LIMIT = "1200"', 'RATE_LIMIT = "0"'))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A clean checkout whose first release already serves."""
    folder = tmp_path_factory.mktemp("checkout")
    copy_checkout(folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    with tempfile.TemporaryDirectory(prefix="mlt-") as state:
        project = Project(folder, Path(state))
        project.commit()
        first = project.deploy("--port", "0")
        assert first.returncode == 0, first.stderr
        yield project
        assert project.inv("down").returncode == 0
