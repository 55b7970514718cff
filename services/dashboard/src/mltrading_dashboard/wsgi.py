"""The WSGI application that gunicorn serves; the only module that acts on import."""

from __future__ import annotations

import logging
import os

from mltrading_dashboard.app import create_server
from mltrading_dashboard.settings import Settings

settings = Settings.from_environ(os.environ)
logging.basicConfig(
    level=settings.log_level.upper(),
    format="%(asctime)s %(levelname)s %(name)s %(message)s",
)
server = create_server(settings)
