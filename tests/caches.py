"""A cache that processes share: a real server on a Unix socket."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def cache(folder: Path) -> Iterator[str]:
    """Run one in a folder of its own and give its CACHE_URL."""
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    assert program, "no valkey-server or redis-server: run `inv setup`"
    where = folder / "cache.sock"
    options = ["--port", "0", "--unixsocket", str(where), "--save", "", "--dir", "."]
    command = [program, *options, "--loglevel", "notice"]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            for line in process.stdout:
                if "ready to accept connections" in line.lower():
                    break
            yield f"unix://{where}"
        finally:
            # Also for a test that failed, or this would wait for it without end.
            process.terminate()
            process.communicate()
