"""The agent on a host: carries out what its deployer asks, over stdin and stdout.

It lives as long as its deployer: when stdin closes, or nothing comes for 15 s, it ends,
and the kernel frees the lease. What must not be left half-way is finished first.
Standard library only.
"""

from __future__ import annotations

import base64
import functools
import importlib
import json
import os
import queue
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.command import Answer, Request
from ops.errors import Locked, OpsError, Refused, StepFailed
from ops.targets import closed, protocol
from ops.targets.agent import Agent
from ops.targets.doors import HostDoor
from ops.targets.keepers import Units
from ops.world import Server

if TYPE_CHECKING:
    from ops.targets.haproxy import HAProxy
    from ops.targets.store import Store

# What may be cut short: it leaves nothing that looks whole. All else is finished.
BREAKABLE = frozenset(
    (
        *("look", "examine", "rotation", "ask", "ask_door", "boot", "stage"),
        *("lacking_files", "make", "wheels", "written"),
    )
)
# What changes the host, and so needs the lease and its epoch.
EFFECTS = frozenset(
    (
        *("record", "adopt", "boot", "carry", "catch_up", "close", "data", "empty"),
        *("front", "halt", "keep", "make", "mark", "migrate", "prune", "reload"),
        *("reopen", "retire", "shut", "stage"),
        *("stop", "switch", "unmark", "wheels"),
    )
)
# What the agent itself and its hands do, with the same arguments as in one process.
AGENTS = frozenset(
    (
        *("boot", "close", "consult", "data", "empty", "front", "halt", "migrate"),
        *("prune", "record_of", "reopen", "retire", "shut", "stop", "switch"),
    )
)
HANDS = frozenset(
    (
        *("backups", "configuration", "end_holders", "holders", "note_of"),
        *("read_backup", "reload", "written"),
    )
)


class HostAgent(Agent):
    """The agent on a host that several of its users share."""

    def python(self) -> str:
        """Return the version, machine and C library; patch levels don't matter."""
        major, minor = sys.version_info[:2]
        library = os.confstr("CS_GNU_LIBC_VERSION") or "_"
        return (
            f"cpython-{major}.{minor}-{os.uname().machine}-{library.replace(' ', '_')}"
        )


class Verbs:
    """Everything that a deployer may ask for."""

    def __init__(self, agent: Agent, port: int, stream: Stream, name: str = "") -> None:
        self.agent = agent
        self.port = port
        self.stream = stream
        self.name = name
        # What comes back by itself when the deployer is gone, and under which epoch.
        self._marked = False
        self._drained: set[str] = set()
        self._under = 0

    @functools.cached_property
    def balancer(self) -> HAProxy:
        from ops.targets.haproxy import HAProxy

        return HAProxy(self.name)

    @functools.cached_property
    def store(self) -> Store:
        # Imported when files come, which is not on every connection.
        from ops.targets.store import Store

        return Store(self.agent.root)

    def look(self, since: int | None) -> dict[str, Any]:
        """Return the host, and the journal's events after the first `since`."""
        events, torn = self.agent.journal.events()
        return {
            "host": self.agent.observe(self.port),
            "new": list(events[since:]) if since is not None else [],
            "count": len(events),
            "digest": self.agent.journal.digest,
            "torn": torn,
        }

    def take(
        self, doing: str, by: str, again: int = 0, since: int | None = None
    ) -> dict[str, Any]:
        """Take the lease and look; `since` is as in `look`.

        `again` is the epoch of a holder whose connection was cut.

        Raises:
            Locked: somebody holds it, or has held it since the cut.
        """
        lease = self.agent.lease
        before = lease.last_epoch()
        self.agent.take(doing, by)
        if again and before > again:
            lease.release()
            raise Locked(
                "somebody else has acted here while the connection was cut",
                where=str(lease.lock),
                next="inv status",
            )
        if again:
            lease.adopt(again)
            return {"epoch": lease.epoch}
        seen = self.look(since)
        return {"epoch": lease.epoch, "key": self.agent.key(), "seen": seen}

    def adopt(self, epoch_of_all: int, key: bytes) -> None:
        """Go on under the epoch and the key of the whole environment."""
        self.agent.lease.adopt(epoch_of_all)
        self.agent.adopt_key(key)

    def release(self) -> None:
        self.agent.lease.release()

    def holder(self) -> dict[str, Any] | None:
        return self.agent.lease.held_by()

    def key(self) -> bytes:
        return self.agent.key()

    def examine(self, database: Sequence[Any] | None) -> dict[str, Any]:
        from ops.hands import Hands

        return Hands(self.agent).examine(self.port, database)

    def record(self, event: dict[str, Any]) -> None:
        self.agent.journal.append(event)

    def catch_up(self, events: Sequence[dict[str, Any]]) -> int:
        return self.agent.journal.catch_up(events)

    def ask(self, number: int, requests: Sequence[Request]) -> list[Answer]:
        return self.agent.ask(number, requests)

    def ask_door(self, requests: Sequence[Request]) -> list[Answer]:
        from ops import wire

        asked = closed.passing(self.agent.root, requests)
        return wire.ask_all(asked, port=self.port)

    # In and out of rotation: on a host, and on its balancers ----------------------

    def mark(self, numbers: Sequence[int]) -> dict[str, Any]:
        """Let balancers leave this host for as long as its deployer is there."""
        self._marked, self._under = True, self.agent.lease.epoch
        return self.agent.mark(numbers)

    def unmark(self) -> dict[str, Any]:
        self._marked = False
        return self.agent.unmark()

    def rotation(self) -> list[Server]:
        return self.balancer.servers()

    def turn(self, server: str, state: str, well: bool, epoch: int) -> Server:
        """Take a host out of this balancer's rotation, or put it back."""
        self._obey(epoch)
        if state == "drain":
            self._drained.add(server)
        turned = self.balancer.turn(server, state, well)
        if state == "ready":
            self._drained.discard(server)
        return turned

    def weigh(self, weights: dict[str, int], epoch: int) -> list[Server]:
        self._obey(epoch)
        return self.balancer.weigh(weights)

    def _obey(self, epoch: int) -> None:
        """Obey the last deployer only; a balancer needs no lease, as it has no steps.

        Raises:
            Locked: a later one has been here.
        """
        lease = self.agent.lease
        last = lease.last_epoch()
        if epoch < last:
            raise Locked(
                f"this was asked for under epoch {epoch}, the last one is {last}",
                where=str(lease.epoch_file),
                next="inv status",
            )
        if epoch > last:
            self.agent.state.mkdir(parents=True, exist_ok=True, mode=0o700)
            lease.adopt(epoch)
        self._under = epoch

    def come_back(self) -> None:
        """Undo what is only meant to last as long as the deployer is there.

        Nothing where a later one is at work. What fails here the next command mends.
        """
        if not self._marked and not self._drained:
            return
        with suppress(OpsError, OSError):
            if self.agent.lease.last_epoch() != self._under:
                return
            if self._marked:
                self.agent.unmark()
            for server in self._drained:
                self.balancer.turn(server, "ready")

    def lacking_files(self, name: str, manifest: str) -> dict[str, Any]:
        if (self.agent.environments / name / "READY").exists():
            return {"made": True, "lacking": []}
        lacking = self.store.lacking_files(name, manifest)
        return {"made": False, "lacking": lacking}

    def make(self, name: str) -> dict[str, Any]:
        return self.store.make(name, self.stream)

    def lacking_wheels(self, shas: Sequence[str]) -> list[str]:
        return self.store.lacking_wheels(shas)

    def wheels(self, shas: Sequence[str]) -> None:
        self.store.take_wheels(shas, self.stream)

    def keep(self, name: str, sha256: str, note: str) -> dict[str, Any]:
        from ops.targets.vault import Vault

        return Vault(self.agent.root).receive(name, sha256, note, self.stream)

    def carry(
        self, number: int, arguments: Sequence[str], timeout: float
    ) -> dict[str, Any]:
        """Run the data layer on the files that follow; they are gone afterwards."""
        with self.store.incoming(self.stream) as folder:
            return self.agent.carry(number, arguments, folder, timeout)

    def stage(
        self, release: str, shas: Sequence[str], environ: dict[str, str]
    ) -> dict[str, Any]:
        paths = [self.store.wheel(sha) for sha in shas]
        return self.agent.stage(release, paths, environ)

    def named(self, verb: str) -> Callable[..., Any]:
        """Return what carries out a verb, here or of the agent itself."""
        if verb in AGENTS:
            return getattr(self.agent, verb)
        if verb in HANDS:
            from ops.hands import Hands

            return getattr(Hands(self.agent), verb)
        if (
            verb.startswith("_")
            or verb in ("named", "balancer", "store", "come_back")
            or not hasattr(type(self), verb)
        ):
            raise Refused(f"the agent knows no {verb}", next="inv deploy again")
        return getattr(self, verb)


class Stream:
    """The bytes that follow a request, as a file that can be read once."""

    def __init__(self) -> None:
        self.chunks: queue.Queue[bytes] = queue.Queue(maxsize=32)
        self.rest = b""
        self.ended = True

    def read(self, size: int = -1) -> bytes:
        while not self.ended and (size < 0 or len(self.rest) < size):
            chunk = self.chunks.get()
            self.ended = not chunk
            self.rest += chunk
        size = len(self.rest) if size < 0 else size
        found, self.rest = self.rest[:size], self.rest[size:]
        return found

    def begin(self) -> None:
        self.rest, self.ended = b"", False

    def drain(self) -> None:
        """Throw away what a failed request left unread."""
        while not self.ended:
            self.ended = not self.chunks.get()
        self.rest = b""


class Session:
    """One deployer's connection, from its first request until it is gone."""

    def __init__(self, verbs: Verbs, incoming: int, outgoing: int) -> None:
        self.verbs = verbs
        self.incoming = incoming
        self.outgoing = outgoing
        # A signal's handler puts into it, which only this kind of queue allows.
        self.inbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.speaking = threading.Lock()
        self.gone = threading.Event()
        self.working = 0
        self.breakable = False
        # Requests that went wrong, and those that nobody wants any more.
        self.failed: set[int] = set()
        self.cancelled: set[int] = set()
        # The shortest way that a message ever had, on two clocks that differ; when the
        # newest one was sent, on ours.
        self.shortest = float("inf")
        self.newest = float("-inf")

    def serve(self) -> None:
        """Answer requests, one after the other, until the deployer is gone."""
        threading.Thread(target=self._listen, daemon=True).start()
        about = {"python": self.verbs.agent.python(), "program": f"{sys.path[0]}.pyz"}
        self._say({"hello": about})
        # Asking over HTTP needs it, and nobody waits at this moment.
        threading.Thread(
            target=importlib.import_module, args=("http.client",), daemon=True
        ).start()
        while (request := self.inbox.get()) and not self.gone.is_set():
            self._answer(request)
        self.verbs.come_back()

    def interrupt(self, *_: object) -> None:
        """Cut short what may be: runs in the main thread, as a signal's handler."""
        if self.breakable:
            self.breakable = False
            raise KeyboardInterrupt

    # One request -----------------------------------------------------------------

    def _answer(self, request: dict[str, Any]) -> None:
        verb = str(request["verb"])
        stream = self.verbs.stream
        if request.get("stream"):
            stream.begin()
        self.working = request["id"]
        try:
            self._fence(request, verb)
            act = self.verbs.named(verb)
            self.breakable = verb in BREAKABLE
            if self.breakable and self.working in self.cancelled:
                raise KeyboardInterrupt
            found = act(**request["args"])
            self.breakable = False
            said: dict[str, Any] = {"ok": found}
        except KeyboardInterrupt:
            said = {"error": {"kind": "Interrupted", "what": f"{verb} was cut short"}}
        except (OpsError, OSError) as raised:
            said = {"error": protocol.error(raised)}
        except Exception as raised:
            import traceback

            detail = "".join(traceback.format_exception(raised)[-3:])
            said = {"error": {**protocol.error(raised), "detail": detail}}
        finally:
            self.breakable = False
        if "error" in said:
            self.failed.add(request["id"])
        if not self.gone.is_set():
            stream.drain()
            self._say({"id": request["id"], **said})

    def _fence(self, request: dict[str, Any], verb: str) -> None:
        """Refuse what nobody waits for any more, or what an older holder wants.

        A request may wait here behind a long step: its deployer is there as long as
        something that it sent lately arrives.
        """
        late = max(float(request["late"]), time.monotonic() - self.newest)
        if late > protocol.LATE:
            self._leave()
            raise StepFailed(
                f"{verb} came {late:.0f} s late and was not carried out",
                next="inv status",
            )
        if not self.failed.isdisjoint(request.get("needs", ())):
            raise StepFailed(
                f"what {verb} follows could not be done, so it was not begun",
                next="inv status",
            )
        if verb in EFFECTS:
            lease = self.verbs.agent.lease
            if lease.descriptor < 0 or lease.last_epoch() != request["epoch"]:
                raise Locked(
                    f"{verb} was asked for under epoch {request['epoch']}, "
                    f"which is over",
                    where=str(lease.lock),
                    next="inv status",
                )

    def _say(self, message: dict[str, Any]) -> None:
        text = memoryview(protocol.line(message))
        try:
            with self.speaking:
                while text:
                    text = text[os.write(self.outgoing, text) :]
        except OSError:
            self._leave()

    # The other thread ------------------------------------------------------------

    def _listen(self) -> None:
        """Read what comes, answer beats at once, pass on the rest."""
        reader = _Reader(self.incoming)
        try:
            while not self.gone.is_set():
                message = protocol.parse(reader.line())
                if "at" in message:
                    way = time.monotonic() - float(message["at"])
                    self.shortest = min(self.shortest, way)
                    message["late"] = way - self.shortest
                    self.newest = float(message["at"]) + self.shortest
                if "beat" in message:
                    self._say({"beat": message["beat"]})
                elif "cancel" in message:
                    # One that still waits its turn is cut short when it has it.
                    self.cancelled.add(message["cancel"])
                    if message["cancel"] == self.working:
                        _break_main()
                elif "data" in message:
                    self.verbs.stream.chunks.put(reader.exactly(message["data"]))
                else:
                    self.inbox.put(message)
        except (EOFError, ValueError, OSError):
            pass
        self._leave()

    def _leave(self) -> None:
        """Let the main thread end when it may."""
        self.gone.set()
        self.inbox.put(None)
        _break_main()


class _Reader:
    """Lines and bytes from a descriptor; silence is an end."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.buffer = bytearray()

    def _more(self) -> None:
        ready, _, _ = select.select([self.descriptor], [], [], protocol.PATIENCE)
        chunk = os.read(self.descriptor, 1024 * 1024) if ready else b""
        if not chunk:
            raise EOFError
        self.buffer += chunk

    def line(self) -> bytes:
        begun = 0
        while (end := self.buffer.find(b"\n", begun)) < 0:
            begun = len(self.buffer)
            self._more()
        found = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        return found

    def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            self._more()
        found = bytes(self.buffer[:size])
        del self.buffer[:size]
        return found


def _break_main() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def main(arguments: Sequence[str]) -> int:
    """Serve one deployer; return the exit code.

    The arguments: --root (below the user's home folder), --name (of the environment),
    --port (of the web server), --memory (MiB of a release), --attend (a program for the
    terminal, as base64 JSON).
    """
    options = dict(word.removeprefix("--").split("=", 1) for word in arguments)
    os.umask(0o077)
    root = Path.home() / options["root"]
    keeper = Units(root / "releases", options["name"], int(options.get("memory", 1024)))
    agent = HostAgent(root, keeper, HostDoor(options["name"]), shared=True)
    if "attend" in options:
        return _attend(agent, json.loads(base64.b64decode(options["attend"])))
    # What is printed by mistake must not end up among our messages.
    outgoing = os.dup(1)
    os.dup2(2, 1)
    port, name = int(options.get("port", 80)), options["name"]
    session = Session(Verbs(agent, port, Stream(), name), 0, outgoing)
    signal.signal(signal.SIGINT, session.interrupt)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: session._leave())
    session.serve()
    return 0


def _attend(agent: Agent, arguments: dict[str, Any]) -> int:
    """Run a program for whoever is at the terminal; return its exit code."""
    from ops.hands import Hands

    try:
        return int(Hands(agent).attend(**arguments)["code"])
    except OpsError as error:
        # It reads on the deployer's terminal as an error of its own would.
        print(f"\n{error.word}: {error.what}", file=sys.stderr)
        for name in ("where", "allowed", "next"):
            if getattr(error, name):
                print(f"  {name + ':':<9}{getattr(error, name)}", file=sys.stderr)
        return error.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
