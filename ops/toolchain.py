"""What is installed beside us: the versions that a verdict depends on."""

from __future__ import annotations

import os
import sys


def installed() -> dict[str, str]:
    """Return the version of each installed distribution.

    Reads folder names: importlib.metadata costs more than a run without changes.
    """
    versions: dict[str, str] = {}
    for place in sys.path:
        if place.endswith("site-packages") and os.path.isdir(place):
            for name in os.listdir(place):
                if name.endswith(".dist-info"):
                    tool, _, version = name[:-10].partition("-")
                    versions.setdefault(tool.lower().replace("_", "-"), version)
    return versions
