"""Start a PostgreSQL server of our own for the tests, and take it away again.

It lives in a temporary folder, listens on a Unix socket there and nowhere else, and
never syncs to disk. Root cannot run PostgreSQL, so root starts it in a user namespace
where it is somebody else, or, where namespaces are forbidden, as the user `nobody`. No
user is made and no permission outside the temporary folder changes.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BINARIES = "POSTGRES_BIN"
_NOBODY = "65534"
_SETTINGS = (
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "listen_addresses=",
    "shared_buffers=32MB",
    "max_connections=60",
)


def binaries() -> Path:
    """Return the folder of initdb and pg_ctl: $POSTGRES_BIN, Debian's place, PATH."""
    asked = os.environ.get(BINARIES)
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    newest = sorted(debian, key=lambda path: float(path.parent.name), reverse=True)
    on_path = shutil.which("pg_ctl")
    places = [Path(asked)] if asked else newest
    if on_path and not asked:
        places.append(Path(on_path).resolve().parent)
    for place in places:
        if (place / "initdb").exists() and (place / "pg_ctl").exists():
            return place
    raise RuntimeError(
        "no PostgreSQL server binaries (initdb, pg_ctl): run `inv setup`, or set "
        f"{BINARIES} to the folder that has them"
    )


@contextmanager
def postgres(address: str = "") -> Iterator[str]:
    """Run a server while the block runs; yield the URL of its database `postgres`.

    With an `address` of this machine it also listens there, and trusts whoever is in
    the same network of 256: throw-away hosts.
    """
    found = binaries()
    # A socket's path may have 107 bytes, which rules out deep temporary folders.
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as name:
        folder = Path(name)
        data = folder / "data"
        become = _become(folder)
        settings = " ".join(f"-c {one}" for one in _SETTINGS)
        _run(
            *become, found / "initdb", "--no-sync", "--auth=trust",
            "--username=postgres", "--encoding=UTF8", "--locale=C", "-D", data,
        )  # fmt: skip
        control = [*become, found / "pg_ctl", "-w", "-D", data]
        port = 0
        if address:
            with socket.socket() as free:
                free.bind((address, 0))
                port = free.getsockname()[1]
            settings += f" -c listen_addresses={address} -c port={port}"
            with (data / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {address}/24 trust\n")
        options = f"-k {folder} {settings}"
        _run(*control, "-l", folder / "log", "-o", options, "start")
        try:
            if address:
                yield f"postgresql://postgres@{address}:{port}/postgres"
            else:
                yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            _run(*control, "-m", "immediate", "stop")


def _become(folder: Path) -> list[str]:
    """Return what to put in front of a command so that it does not run as root."""
    if os.geteuid() != 0:
        return []
    namespace = ["unshare", "--user", f"--map-user={_NOBODY}", "--"]
    if (
        shutil.which("unshare")
        and not subprocess.run([*namespace, "true"], capture_output=True).returncode
    ):
        return namespace
    os.chown(folder, int(_NOBODY), int(_NOBODY))
    return ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd="/",
    )
    if done.returncode:
        raise RuntimeError(f"{command} exited with {done.returncode}: {done.stderr}")
