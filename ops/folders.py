"""Folders of this user that may be thrown away. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def cache(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of everything that may be thrown away, by XDG."""
    if environ.get("MLTRADING_CACHE"):
        return Path(environ["MLTRADING_CACHE"]).absolute()
    base = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "mltrading"


def bytecode(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where byte-code goes that must not lie beside its sources."""
    return cache(environ) / "bytecode"
