"""One connection to one host: SSH with checked keys, and the agent at its other end."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import logging
import os
import shlex
import socket
import sys
import tarfile
import threading
import time
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, TimeoutError
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops.environment import Address
from ops.errors import OpsError, Refused, StepFailed
from ops.targets import protocol

OPS = Path(__file__).resolve().parent.parent
# What the agent needs; none of it imports anything beside these and the library.
MODULES = (
    *("__init__", "command", "contents", "errors", "folders", "hands", "history"),
    *("journal", "lease", "lines", "memory"),
    *("release", "shell", "wire", "world"),
    *("targets/__init__", "targets/agent", "targets/closed", "targets/doors"),
    *("targets/haproxy", "targets/installed", "targets/keepers", "targets/processes"),
    *("targets/protocol", "targets/session", "targets/sticky", "targets/store"),
    *("targets/vault", "targets/written"),
    *("alerts/__init__", "alerts/firing"),
)
# Seconds: for a host to take the call (it is called at 0, 1 and 3 s, and then not
# before 7), to log in, and for the agent's first word after that.
DIAL = 4.0
CONNECT = 5.0
START = 10.0
_CHUNK = 256 * 1024
# Unpacked once, beside itself, so that its byte-code is kept, and from then on started
# from there: a start costs 0.2 s less.
_MAIN = """\
import os
import sys

if sys.version_info < (3, 11):
    print('{"problem": "python3 is %d.%d, 3.11 is needed"}' % sys.version_info[:2])
    sys.exit(0)
program = os.path.abspath(sys.argv[0])
home = program[: -len(".pyz")]
if not program.endswith(".pyz"):
    home = os.path.dirname(program)
    sys.path.insert(0, home)
elif not os.path.isdir(home):
    import shutil
    import zipfile

    scratch = "%s-%d" % (home, os.getpid())
    with zipfile.ZipFile(program) as archive:
        archive.extractall(scratch)
    # A power cut must not leave half of it under its name.
    os.sync()
    try:
        os.rename(scratch, home)
    except OSError:
        shutil.rmtree(scratch)
for path in (home + ".pyz", home):
    if os.path.exists(path):
        os.utime(path)
sys.path[0] = home
from ops.targets.session import main

sys.exit(main(sys.argv[1:]))
"""
# The first word is JSON too. A disk that is full still lets the memory file system
# take the agent, as going back may be what frees the disk.
_SCRIPT = """\
umask 077
cd || exit
if ! command -v python3 >/dev/null; then
    echo '{{"problem": "there is no python3"}}'
    exit
fi
for folder in {root}/agent "/run/user/$(id -u)/mltrading"; do
    [ -f "$folder/{sha}/__main__.py" ] &&
        exec python3 -I -S "$folder/{sha}/__main__.py" {arguments}
    [ -f "$folder/{sha}.pyz" ] && exec python3 -I -S "$folder/{sha}.pyz" {arguments}
done
echo '{{"need": "{sha}"}}'
for folder in {root}/agent "/run/user/$(id -u)/mltrading"; do
    new="$folder/.{sha}.$$"
    mkdir -p "$folder" && : > "$new" && head -c {size} > "$new" || continue
    echo "{sha}  $new" | sha256sum --check --quiet >&2 || {{ rm -f "$new"; break; }}
    mv "$new" "$folder/{sha}.pyz" && exec python3 -I -S "$folder/{sha}.pyz" {arguments}
done
echo '{{"problem": "the agent could not be stored: is the disk full?"}}'
"""


class Unreachable(Exception):
    """A host could not be reached, or was lost; says why in one sentence."""


class Unprepared(Unreachable):
    """It answers, but does not let us in, or can't run the agent."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that is on its way, or was answered."""

    link: Link
    number: int
    verb: str
    said: Future[Any] = field(default_factory=Future)


class Link:
    """The agent on a host, asked over one SSH connection; several threads may ask."""

    def __init__(self, address: Address, root: str, options: Mapping[str, Any]) -> None:
        self.address = address
        self.root = root
        self.options = options
        self.lost = ""
        self.python = ""
        self.program = ""
        self.heard = time.monotonic()
        self._ids = itertools.count(1)
        self._waiting: dict[int, Future[Any]] = {}
        self._writing = threading.Lock()
        self._errors: deque[str] = deque(maxlen=20)
        self._connection: Any = None
        self._channel: Any = None

    # Open and close --------------------------------------------------------------

    def open(self) -> None:
        """Connect, start the agent, and wait for its first word.

        Raises:
            Unreachable: that was not possible within 5 s, or the host can't run it.
            Refused: the host's key is not known, or is not the one that is known.
        """
        self._connection = connect(self.address)
        from paramiko import SSHException

        sha, program = agent()
        words = [f"--{name}={value}" for name, value in self.options.items()]
        script = _SCRIPT.format(
            root=shlex.quote(self.root),
            sha=sha,
            size=len(program),
            arguments=shlex.join([f"--root={self.root}", *words]),
        )
        try:
            # Any of these may find the connection cut, and paramiko says so by EOFError
            # or by an exception of its own.
            session = self._connection.transport.open_session(timeout=CONNECT)
            self._channel = session
            self._channel.settimeout(START)
            # Each word in it is quoted on its own.
            command = f"exec /bin/sh -c {shlex.quote(script)}"
            self._channel.exec_command(command)  # nosec B601
            incoming = self._channel.makefile("rb", 65536)
            said = self._first_word(incoming)
            if "need" in said:
                self._channel.sendall(program)
                said = self._first_word(incoming)
        except (OSError, EOFError, SSHException) as error:
            raise Unreachable(f"the agent did not start: {_said(error)}") from None
        if "hello" not in said:
            raise Unprepared(str(said.get("problem", f"it said {said}")))
        self.python = said["hello"]["python"]
        self.program = said["hello"]["program"]
        self._channel.settimeout(protocol.PATIENCE)
        for work in (self._listen, self._listen_to_errors, self._beat):
            argument = (incoming,) if work == self._listen else ()
            threading.Thread(target=work, args=argument, daemon=True).start()

    def close(self, why: str = "closed") -> None:
        """Let the agent end; whoever still waits for an answer is told why."""
        self.lost = self.lost or why
        with suppress(Exception):
            self._connection.client.close()
        for waiting in list(self._waiting.values()):
            with suppress(Exception):
                waiting.set_exception(Unreachable(self.lost))

    def _first_word(self, incoming: Any) -> dict[str, Any]:
        """Return the first line that is a message: shells greet people before it."""
        for _ in range(50):
            line = incoming.readline()
            if not line:
                break
            try:
                return protocol.parse(line)
            except ValueError:
                continue
        with suppress(OSError):
            said = self._channel.recv_stderr(4096).decode(errors="replace").strip()
            if said:
                raise Unreachable(f"the agent did not start: {said.splitlines()[-1]}")
        raise Unreachable("the agent did not start, and did not say why")

    # Ask -------------------------------------------------------------------------

    def request(self, verb: str, *, limit: float = 600.0, **sent: Any) -> Any:
        """Send a request and return its answer; takes what `send` takes.

        Raises:
            Unreachable: the host was lost, or had no answer within `limit` seconds.
            OpsError, OSError: what the agent answered with.
        """
        return self.answer(self.send(verb, **sent), limit)

    def send(
        self,
        verb: str,
        *,
        under: int = 0,
        needs: Sequence[int] = (),
        files: Iterable[tuple[str, Path]] | None = None,
        **arguments: Any,
    ) -> Sent:
        """Send a request without waiting; `files` follow as a tar stream.

        `under` is the epoch of the lease that allows it, where it changes something.
        It is refused if one of the requests in `needs` goes wrong.

        Raises:
            Unreachable: the host was lost.
        """
        if self.lost:
            raise Unreachable(self.lost)
        sent = Sent(self, next(self._ids), verb)
        self._waiting[sent.number] = sent.said
        message = {
            "id": sent.number,
            "verb": verb,
            "args": arguments,
            "epoch": under,
            "at": time.monotonic(),
            "needs": needs,
            "stream": files is not None,
        }
        try:
            self._send(protocol.line(message))
            if files is not None:
                self._stream(sent.number, files)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                self.cancel(sent.number)
            self._waiting.pop(sent.number, None)
            raise
        return sent

    def answer(self, sent: Sent, limit: float = 600.0) -> Any:
        """Return the answer to a request; see `request`."""
        try:
            return self._answer(sent.said, sent.verb, time.monotonic() + limit)
        except KeyboardInterrupt:
            self.cancel(sent.number)
            raise

    def cancel(self, number: int | None = None) -> None:
        """Ask for one step, or all that are under way, to be cut short."""
        for each in [number] if number else list(self._waiting):
            with suppress(Unreachable):
                self._send(protocol.line({"cancel": each}))

    def _answer(self, waiting: Future[Any], verb: str, until: float) -> Any:
        while True:
            try:
                said = waiting.result(timeout=0.5)
            except TimeoutError:
                if time.monotonic() > until:
                    self.close(f"{verb} had no answer in time")
                if self.lost and not waiting.done():
                    # It was sent just when the connection was given up.
                    raise Unreachable(self.lost) from None
                continue
            if "error" in said:
                raise protocol.raised(said["error"], self.address.name)
            return said.get("ok")

    def _stream(self, number: int, files: Iterable[tuple[str, Path]]) -> None:
        out = _Outgoing(lambda text: self._send_data(number, text))
        try:
            with tarfile.open(fileobj=out, mode="w|", bufsize=_CHUNK) as archive:
                for name, path in files:
                    member = tarfile.TarInfo(name)
                    member.size = path.stat().st_size
                    with path.open("rb") as file:
                        archive.addfile(member, file)
        finally:
            # Also where we were interrupted: the agent waits for the end.
            self._send_data(number, b"")

    def _send_data(self, number: int, text: bytes) -> None:
        self._send(protocol.line({"id": number, "data": len(text)}) + text)

    def _send(self, text: bytes) -> None:
        try:
            with self._writing:
                self._channel.sendall(text)
        except (OSError, EOFError) as error:
            self.close(f"the connection was cut: {_said(error)}")
            raise Unreachable(self.lost) from None

    def attend(self, **arguments: Any) -> int:
        """Let the person at our terminal talk with a program; return its exit code."""
        said = base64.b64encode(json.dumps(arguments).encode()).decode()
        words = ("python3", "-I", self.program, f"--root={self.root}")
        more = (f"--name={self.options['name']}", f"--attend={said}")
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        result = self._connection.run(
            shlex.join([*words, *more]), pty=terminal, warn=True, hide=False
        )
        return int(result.return_code)

    # Threads ---------------------------------------------------------------------

    def _listen(self, incoming: Any) -> None:
        with suppress(OSError, ValueError):
            while line := incoming.readline():
                self.heard = time.monotonic()
                message = protocol.parse(line)
                waiting = self._waiting.pop(message.get("id", 0), None)
                if waiting:
                    waiting.set_result(message)
        quiet = time.monotonic() - self.heard
        if quiet >= protocol.PATIENCE:
            self.close(f"nothing came from it for {quiet:.0f} s")
        tail = f": {self._errors[-1]}" if self._errors else ""
        self.close(f"the agent ended{tail}")

    def _listen_to_errors(self) -> None:
        with suppress(OSError):
            for line in self._channel.makefile_stderr("rb"):
                self._errors.append(line.decode(errors="replace").rstrip())

    def _beat(self) -> None:
        for number in itertools.count(1):
            time.sleep(protocol.BEAT)
            if self.lost:
                return
            with suppress(Unreachable):
                at = time.monotonic()
                self._send(protocol.line({"beat": number, "at": at}))


class _Outgoing(io.RawIOBase):
    """A file that can only be written, each block of it being sent at once."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self.send = send

    def writable(self) -> bool:
        return True

    def write(self, text: Any) -> int:
        self.send(bytes(text))
        return len(text)


def agent() -> tuple[str, bytes]:
    """Return the agent as a zip application, and its sha256; the same on each call."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        texts = {f"ops/{name}.py": (OPS / f"{name}.py").read_text() for name in MODULES}
        for name, text in {"__main__.py": _MAIN, **texts}.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return hashlib.sha256(out.getvalue()).hexdigest(), out.getvalue()


def known_hosts(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the file of the host keys that are trusted."""
    named = environ.get("MLTRADING_KNOWN_HOSTS")
    return Path(named) if named else Path.home() / ".ssh" / "known_hosts"


def identity_problem(environ: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """Return why we have no key to log in with, and what mends it; "" where we have."""
    named = environ.get("MLTRADING_SSH_KEY", "")
    file = Path(named)
    if named and not file.is_file():
        return "MLTRADING_SSH_KEY names no file", "ssh-keygen -t ed25519, or unset it"
    if named and file.stat().st_mode & 0o077:
        return "others may read the file of MLTRADING_SSH_KEY", f"chmod 600 {named}"
    home = Path(environ.get("HOME") or Path.home())
    if named or environ.get("SSH_AUTH_SOCK") or any(home.glob(".ssh/id_*")):
        return "", ""
    return "no SSH agent and no ~/.ssh/id_*", "ssh-keygen -t ed25519"


def introduced(
    address: Address, environ: Mapping[str, str] = os.environ
) -> OpsError | None:
    """Return the refusal for a host whose key is not known; it is not asked."""
    from paramiko import HostKeys

    file, keys = known_hosts(environ), HostKeys()
    with suppress(FileNotFoundError):
        keys.load(str(file))
    name = address.host if address.port == 22 else f"[{address.host}]:{address.port}"
    return None if keys.lookup(name) else unknown_key(address, file)


def connect(address: Address, environ: Mapping[str, str] = os.environ) -> Any:
    """Return an open Fabric connection to a host whose key is known.

    Raises:
        Unreachable, Refused: see Link.open.
    """
    early = Early(address)
    # What paramiko would log with a traceback comes here as an exception, and is said
    # in one sentence; without a handler Python prints it.
    logging.getLogger("paramiko").addHandler(logging.NullHandler())
    from fabric import Connection
    from paramiko import BadHostKeyException, RejectPolicy, SSHException
    from paramiko.ssh_exception import AuthenticationException

    identity = environ.get("MLTRADING_SSH_KEY")
    named = {"key_filename": identity, "look_for_keys": False} if identity else {}
    connection = Connection(
        address.host,
        user=address.user or None,
        port=address.port,
        connect_timeout=CONNECT,
        connect_kwargs={"banner_timeout": CONNECT, "auth_timeout": CONNECT, **named},
    )
    file = known_hosts(environ)
    with suppress(FileNotFoundError):
        connection.client.load_host_keys(str(file))
    # Fabric's own choice is to trust whoever answers.
    connection.client.set_missing_host_key_policy(RejectPolicy())
    same = (connection.host, connection.port) == (address.host, address.port)
    try:
        sock = early.take(wanted=same and not connection.gateway)
        if sock is not None:
            connection.connect_kwargs["sock"] = sock
        connection.open()
        inner = connection.transport.sock
        inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BadHostKeyException as error:
        raise changed_key(address, file, error.key.get_name()) from None
    except AuthenticationException as error:
        raise Unprepared(
            f"it does not take our key for {connection.user} ({_said(error)}); "
            "MLTRADING_SSH_KEY names another one"
        ) from None
    except SSHException as error:
        if "not found in known_hosts" in str(error):
            raise unknown_key(address, file) from None
        raise Unreachable(f"no SSH: {_said(error)}") from None
    except (OSError, EOFError) as error:
        raise Unreachable(f"no connection: {_said(error)}") from None
    return connection


class Early:
    """A TCP connection that is made while what speaks SSH over it is being imported.

    The host starts its side meanwhile.
    """

    def __init__(self, address: Address) -> None:
        self.sock: socket.socket | None = None
        self.error: OSError | None = None
        self.thread = threading.Thread(target=self._dial, args=(address,), daemon=True)
        self.thread.start()

    def _dial(self, address: Address) -> None:
        try:
            place = (address.host, address.port)
            self.sock = socket.create_connection(place, DIAL)
            self.sock.settimeout(CONNECT)
        except OSError as error:
            self.error = error

    def take(self, *, wanted: bool) -> socket.socket | None:
        """Return it; None where it is not wanted, as settings lead elsewhere.

        Raises:
            OSError: nobody took the call; a second one would take as long.
        """
        if wanted:
            self.thread.join()
            if self.error is not None:
                raise self.error
        if self.sock is not None and not wanted:
            self.sock.close()
        return self.sock if wanted else None


def unknown_key(address: Address, file: Path) -> OpsError:
    """Return the refusal to talk to a host that nobody has introduced."""
    return Refused(
        f"the host key of {address.name} is not known",
        where=str(file),
        allowed="hosts whose key was compared with what the host's console shows",
        next=f"ssh-keyscan -t ed25519 -p {address.port} {address.host} >> {file}",
    )


def changed_key(address: Address, file: Path, kind: str) -> OpsError:
    """Return the refusal to talk to whoever answers in a host's name."""
    entry = address.host if address.port == 22 else f"[{address.host}]:{address.port}"
    return Refused(
        f"THE HOST KEY OF {address.name} HAS CHANGED: somebody may be in between "
        f"({kind})",
        where=str(file),
        allowed="the key that is known; nothing was sent",
        next="ask whoever runs the host. Only if it was installed anew: "
        f"ssh-keygen -R {shlex.quote(entry)} -f {file}",
    )


def _said(error: BaseException) -> str:
    """Return an exception as half a sentence."""
    if isinstance(error, TimeoutError):
        return "it took too long"
    inner = getattr(error, "errors", None)
    if isinstance(inner, dict) and inner:
        # paramiko: one error for each address that was tried.
        return _said(next(iter(inner.values())))
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def lost(address: Address, verb: str, why: str) -> StepFailed:
    """Return the failure of a step on a host that can't be reached."""
    return StepFailed(
        f"{verb} could not be done: {why}",
        where=address.name,
        next=f"ssh -p {address.port} {address}, then the same command again",
    )
