"""How gunicorn runs us: --config python:mltrading_dashboard.gunicorn_conf."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from mltrading_dashboard.settings import Settings
from mltrading_health.gunicorn import install

settings = Settings.from_environ(os.environ)

worker_class = "gthread"
workers = settings.workers
threads = settings.threads
timeout = 120
graceful_timeout = 30
keepalive = 5
# The app is imported once, in the master; workers share its memory.
preload_app = True
# gunicorn would open a control socket in the home folder.
control_socket_disable = True
# Workers touch a file here to say that they live: in memory, so that a slow disk
# makes none of them look dead.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # nosec B108
accesslog = None
errorlog = "-"
loglevel = settings.log_level


def pre_fork(server, worker) -> None:
    """Move what is loaded out of the collector's reach, so that it stays shared."""
    gc.collect()
    gc.freeze()


def post_worker_init(worker) -> None:
    """Keep checks fresh; let one of the workers watch, where the settings say so."""
    from mltrading_dashboard.wsgi import service

    # Prometheus and the alerts read the results at hand, and nobody may ask for them.
    service.health.keep_fresh()
    service.watch()


def when_ready(server) -> None:
    """Say how the connections of this host fit into what the database has left."""
    # After the settings: the application must not be imported before the metrics know
    # where they count.
    from mltrading_dashboard.app import tell_connections

    tell_connections(settings, server.log)


install(globals())
