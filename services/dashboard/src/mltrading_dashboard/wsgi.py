"""The WSGI application that gunicorn serves; the only module that acts on import."""

from __future__ import annotations

import os

from mltrading_dashboard.app import create_service
from mltrading_dashboard.settings import Settings
from mltrading_health import logs

settings = Settings.from_environ(os.environ)
logs.configure(
    settings.log_level,
    settings.release,
    service="dashboard",
    secrets=settings.secrets,
)
service = create_service(settings)
server = service.server
