"""From a fresh clone to a page that answers: the README's first command."""

from __future__ import annotations

import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from bench.checkout import Checkout
from bench.run import figure, timed


def measure(runs: int) -> dict[str, Any]:
    """Time the first command, a second deploy of a change, and a no-change deploy."""
    first, second, same = [], [], []
    for _ in range(runs or 1):
        with tempfile.TemporaryDirectory(prefix="mlt-") as folder:
            checkout = Checkout(Path(folder))
            environ, root = checkout.environ(), checkout.root
            begin = checkout.inv("deploy", "--env", "local", "--port", "0")
            again = checkout.inv("deploy", "--env", "local")
            try:
                first.append(timed(begin, cwd=root, environ=environ))
                with urllib.request.urlopen(checkout.status()["url"]) as page:
                    assert page.status == 200  # nosec B101
                for _ in range(3):
                    checkout.change()
                    second.append(timed(again, cwd=root, environ=environ))
                same.append(timed(again, cwd=root, environ=environ))
            finally:
                checkout.down()
    return {
        "figures": [
            figure("fresh clone, warm package cache, to a page", first, "s", 40),
            figure("deploy of a code change, same lock", second, "s", 4),
            figure("deploy of nothing new", same, "s"),
        ]
    }
