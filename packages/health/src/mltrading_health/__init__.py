"""Health checks and metrics that a Python service answers itself.

``Metrics`` is imported on first use: prometheus-client looks at the environment when it
is imported, and under gunicorn the configuration must have been read before that.
"""

from mltrading_health.checks import Health, Report, Result, Status
from mltrading_health.database import database_check
from mltrading_health.dependency import http_check
from mltrading_health.disk import disk_check
from mltrading_health.memory import memory_check
from mltrading_health.wsgi import wsgi

__all__ = [
    "Health",
    "Metrics",
    "Report",
    "Result",
    "Status",
    "database_check",
    "disk_check",
    "http_check",
    "memory_check",
    "wsgi",
]


def __getattr__(name: str) -> object:
    """Import ``Metrics`` when somebody asks for it."""
    if name == "Metrics":
        from mltrading_health.metrics import Metrics

        return Metrics
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
