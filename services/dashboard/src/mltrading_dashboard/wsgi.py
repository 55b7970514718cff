"""The WSGI application that gunicorn serves; the only module that acts on import."""

from __future__ import annotations

import logging
import os
import time

from mltrading_dashboard.app import create_server
from mltrading_dashboard.settings import Settings

settings = Settings.from_environ(os.environ)
# UTC, so that the lines of hosts in several time zones can be put in order.
lines = logging.Formatter(
    "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S"
)
lines.converter = time.gmtime
written = logging.StreamHandler()
written.setFormatter(lines)
logging.basicConfig(level=settings.log_level.upper(), handlers=[written])
server = create_server(settings)
