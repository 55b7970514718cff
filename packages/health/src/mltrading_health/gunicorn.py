"""Give gunicorn workers stable slots and a shared folder for their metrics.

Two lines in a gunicorn configuration::

    from mltrading_health.gunicorn import install
    install(globals())

Put them last: hooks that the file defines are called too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

from mltrading_health import slot, tokens

RUNTIME = "MLTRADING_RUNTIME_DIR"
METRICS = "PROMETHEUS_MULTIPROC_DIR"
# Says which master has prepared the folder, and whether it made the runtime folder.
OWNER = "MLTRADING_HEALTH_MASTER"


def install(
    conf: MutableMapping[str, Any], environ: MutableMapping[str, str] = os.environ
) -> None:
    """Prepare the folders and chain our hooks behind those of ``conf``.

    gunicorn executes the file again on HUP, in the same process: then the folders stay
    as they are, as the workers that still run count in them.
    """
    prepare(environ)
    for hook in (on_starting, pre_fork, post_fork, child_exit, on_exit):
        conf[hook.__name__] = chain(conf.get(hook.__name__), hook)


def prepare(environ: MutableMapping[str, str]) -> None:
    """Make the runtime folder, a token in it, and this master's folder for metrics.

    Each master has its own metrics: USR2 starts one while the old one still serves.
    """
    name, _, made = environ.get(OWNER, "").partition(" ")
    if name == str(os.getpid()):
        return
    if not made or made != environ.get(RUNTIME):
        made = ""
    if not environ.get(RUNTIME):
        made = environ[RUNTIME] = tempfile.mkdtemp(prefix="mltrading-")
    folder = Path(environ[RUNTIME], "metrics")
    folder.mkdir(parents=True, exist_ok=True)
    for other in folder.iterdir():
        if other.name == str(os.getpid()) or not alive(other.name):
            shutil.rmtree(other, ignore_errors=True)
    mine = folder / str(os.getpid())
    mine.mkdir()
    # Ours from now on; workers of another master read it anew and accept it too.
    tokens.write(Path(environ[RUNTIME]))
    environ[METRICS] = str(mine)
    environ[OWNER] = f"{os.getpid()} {made}"


def alive(name: str) -> bool:
    """Tell whether a folder is named after a process that runs."""
    try:
        os.kill(int(name), 0)
    except PermissionError:
        return True
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    return True


def chain(first: Callable[..., Any] | None, then: Callable[..., Any]) -> Any:
    """Return a hook that calls both; gunicorn looks at the number of arguments."""
    if first is None or first is then:
        return then
    if getattr(first, "chained", None) is then:
        return first
    if then.__code__.co_argcount == 1:

        def both(server: Any) -> None:
            first(server)
            then(server)

    else:

        def both(server: Any, worker: Any) -> None:
            first(server, worker)
            then(server, worker)

    both.chained = then
    return both


def metrics_folder() -> Path:
    """Return where the workers of this master count."""
    return Path(os.environ[METRICS])


def on_starting(server: Any) -> None:
    """Begin in traffic: a drain belongs to the processes that were drained."""
    Path(os.environ[RUNTIME], "drain").unlink(missing_ok=True)


def pre_fork(server: Any, worker: Any) -> None:
    """Give the worker the lowest slot that no worker has.

    Asked from the server, not from a variable here: HUP forgets variables.
    """
    siblings = server.WORKERS.values()
    taken = (getattr(sibling, "health_slot", "") for sibling in siblings)
    worker.health_slot = slot.lowest_free(taken)


def post_fork(server: Any, worker: Any) -> None:
    """Take the slot, and say which process has it."""
    slot.take(worker.health_slot)
    path = metrics_folder() / f"worker_{worker.health_slot}.pid"
    # On a full disk it serves all the same; gunicorn ends where a hook fails.
    with contextlib.suppress(OSError):
        path.write_text(f"{os.getpid()}\n")


def child_exit(server: Any, worker: Any) -> None:
    """Forget what was going on in a worker that has ended; its counts stay."""
    from prometheus_client.multiprocess import mark_process_dead

    name = worker.health_slot
    mark_process_dead(name, str(metrics_folder()))
    (metrics_folder() / f"worker_{name}.pid").unlink(missing_ok=True)


def on_exit(server: Any) -> None:
    """Remove this master's folder, and a runtime folder of our making with the last."""
    name, _, made = os.environ.get(OWNER, "").partition(" ")
    if name == str(os.getpid()):
        shutil.rmtree(metrics_folder(), ignore_errors=True)
        others = metrics_folder().parent.iterdir() if made else ()
        if made and not any(alive(other.name) for other in others):
            shutil.rmtree(made, ignore_errors=True)
