"""A throw-away checkout with its own state folder, driven through the menu."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ops.environment import ROOT

_GIT = ("git", "-c", "user.name=bench", "-c", "user.email=bench@example.org")
_CHANGED = Path("services/dashboard/src/mltrading_dashboard/__init__.py")


class Checkout:
    """A clone of the committed tree; `home` is an empty home folder for it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "clone"
        self.home = folder / "home"
        self.home.mkdir()
        self.changes = 0
        subprocess.run(["git", "clone", "-q", str(ROOT), str(self.root)], check=True)

    def environ(self) -> dict[str, str]:
        """Return an environment in which nothing of this checkout is seen."""
        names = ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "MLTRADING_STATE")
        kept = {k: v for k, v in os.environ.items() if k not in names}
        # uv's package cache is what "warm" means; everything else starts empty.
        cache = os.environ.get("UV_CACHE_DIR") or _uv_cache()
        advisories = ROOT.parent / "shared" / "advisories"
        if advisories.is_dir():
            kept.setdefault("MLTRADING_ADVISORIES", str(advisories))
        return {
            **kept,
            "UV_CACHE_DIR": cache,
            "XDG_STATE_HOME": str(self.home / "state"),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "NO_COLOR": "1",
        }

    def change(self) -> None:
        """Commit a harmless change of the dashboard's code."""
        self.changes += 1
        path = self.root / _CHANGED
        text = path.read_text().partition("\n# Change ")[0].rstrip("\n")
        path.write_text(f"{text}\n\n# Change {self.changes}.\n")
        subprocess.run(
            [*_GIT, "commit", "-qam", "feat: change"], cwd=self.root, check=True
        )

    def unlimited(self) -> None:
        """Commit that one address may ask without end: all load comes from one."""
        path = self.root / "ops" / "environments.toml"
        text = path.read_text()
        path.write_text(re.sub("(?m)^RATE_LIMIT = .*$", 'RATE_LIMIT = "0"', text))
        subprocess.run(
            [*_GIT, "commit", "-qam", "feat: no limit"], cwd=self.root, check=True
        )

    def inv(self, *words: str) -> tuple[str, ...]:
        """Return the command line of a task as a user types it."""
        return (_uv(), "run", "inv", *words)

    def status(self) -> dict[str, Any]:
        ended = subprocess.run(
            self.inv("status", "--json"),
            cwd=self.root,
            env=self.environ(),
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(ended.stdout)

    def down(self) -> None:
        subprocess.run(
            self.inv("down"), cwd=self.root, env=self.environ(), capture_output=True
        )


def _uv() -> str:
    return os.environ.get("UV") or shutil.which("uv") or "uv"


def _uv_cache() -> str:
    ended = subprocess.run(
        [_uv(), "cache", "dir"], capture_output=True, text=True, check=True
    )
    return ended.stdout.strip()
