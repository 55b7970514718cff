"""What the dashboard is told from outside: read once, checked, frozen."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mltrading_dashboard.flags import Flags

SCHEMES = ("sqlite", "postgresql", "postgresql+psycopg", "postgres")
CACHES = ("valkey", "valkeys", "redis", "rediss", "unix")
METRICS = ("token", "open")
# Environments that nobody but their developer reaches.
OWN = ("local", "test")
ALERTS = ("off", "evaluator", "prometheus")
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
_VISIBLE = "16 to 256 visible ASCII characters, such as `openssl rand -hex 24` prints"
_HOOK = "a URL that starts with https:// (http:// on loopback)"
_MAIL = "a URL that starts with smtp:// or smtps://"
TRUE = ("1", "true", "yes", "on")
FALSE = ("0", "false", "no", "off")


class SettingsError(ValueError):
    """A variable is missing or holds a value that is not allowed."""

    def __init__(self, name: str, value: str | None, allowed: str) -> None:
        seen = "is not set" if value is None else f"is {value!r}"
        super().__init__(f"{name} {seen}; allowed: {allowed}")
        self.name = name


@dataclass(frozen=True)
class Settings:
    """The settings of one process.

    What holds a secret, as the addresses of the database and the cache do, is left out
    of the repr.
    """

    environment: str
    database_url: str = field(repr=False)
    debug: bool = False
    database_pool_size: int = 5
    database_ssl_require: bool = False
    database_statement_timeout_ms: int = 500
    cache_ttl_seconds: int = 300
    cache_url: str = field(default="", repr=False)
    log_level: str = "info"
    comparison_mode: bool = False
    # Who may read /metrics: whoever has the token, or everybody.
    metrics: str = "open"
    health_token: str = field(default="", repr=False)
    # Who judges the metrics: nobody here, one of our workers, a Prometheus.
    alerts: str = "off"
    # How many proxies of ours stand before us and say who asks.
    trusted_proxies: int = 0
    # Requests in a minute that one address may send, 0 for any number.
    rate_limit: int = 0
    slack_webhook_url: str = field(default="", repr=False)
    smtp_url: str = field(default="", repr=False)
    release: str = "dev"
    artefact: str = ""
    commit: str = ""
    runtime_dir: Path | None = None
    # The link that names the release with traffic, and the folder that all releases of
    # this host share; None where there is one release only.
    current: Path | None = None
    shared_dir: Path | None = None
    workers: int = 2
    threads: int = 4

    @property
    def flags(self) -> Flags:
        """Return what the pages have to know of it."""
        return Flags(comparison_mode=self.comparison_mode)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return what no log may hold."""
        urls = (self.database_url, self.cache_url, self.smtp_url)
        coded = [urlsplit(url).password or "" for url in urls]
        # As it stands in the address, and as a server is told it.
        passwords = (*coded, *map(unquote, coded))
        found = (self.health_token, self.slack_webhook_url, self.smtp_url, *passwords)
        return tuple(filter(None, found))

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read and check every variable.

        Raises SettingsError, which names the variable, its value and what is allowed.
        """
        read = _Reader(environ)
        environment = read.text("ENVIRONMENT", "local", r"[a-z][a-z0-9-]{0,31}")
        debug = read.flag("DASH_DEBUG", False)
        if debug and environment == "prod":
            raise SettingsError("DASH_DEBUG", environ["DASH_DEBUG"], "false in prod")
        return cls(
            environment=environment,
            database_url=read.database("DATABASE_URL"),
            debug=debug,
            database_pool_size=read.number("DATABASE_POOL_SIZE", 5, 1, 100),
            database_ssl_require=read.flag("DATABASE_SSL_REQUIRE", False),
            database_statement_timeout_ms=read.number(
                "DATABASE_STATEMENT_TIMEOUT_MS", 500, 10, 60_000
            ),
            cache_ttl_seconds=read.number("CACHE_TTL_SECONDS", 300, 0, 86_400),
            cache_url=read.cache("CACHE_URL"),
            log_level=read.choice("LOG_LEVEL", "info", LOG_LEVELS),
            comparison_mode=read.flag("COMPARISON_MODE", False),
            # What is not said must not open to strangers what it keeps from them.
            metrics=read.choice(
                "METRICS", "open" if environment in OWN else "token", METRICS
            ),
            health_token=read.secret("HEALTH_TOKEN", r"[!-~]{16,256}", _VISIBLE),
            alerts=read.choice("ALERTS", "off", ALERTS),
            trusted_proxies=read.number("TRUSTED_PROXIES", 0, 0, 5),
            rate_limit=read.number("RATE_LIMIT", 0, 0, 1_000_000),
            slack_webhook_url=read.secret("SLACK_WEBHOOK_URL", r"https?://\S+", _HOOK),
            smtp_url=read.secret("SMTP_URL", r"smtps?://\S+", _MAIL),
            release=read.text("MLTRADING_RELEASE", "dev", r"[\w.:+-]{1,64}"),
            artefact=read.text("MLTRADING_ARTEFACT", "", r"[\w.:+-]{0,128}"),
            commit=read.text("MLTRADING_COMMIT", "", r"[0-9a-fA-F]{0,64}"),
            runtime_dir=read.path("MLTRADING_RUNTIME_DIR"),
            current=read.path("MLTRADING_CURRENT"),
            shared_dir=read.path("MLTRADING_SHARED_DIR"),
            workers=read.number("WEB_WORKERS", 2, 1, 64),
            threads=read.number("WEB_THREADS", 4, 1, 64),
        )


@dataclass(frozen=True)
class _Reader:
    environ: Mapping[str, str]

    def text(self, name: str, default: str, pattern: str) -> str:
        value = self.environ.get(name, default)
        if not re.fullmatch(pattern, value):
            raise SettingsError(name, value, f"text like {pattern}")
        return value

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        value = self.environ.get(name, default).lower()
        if value not in allowed:
            raise SettingsError(name, self.environ[name], ", ".join(allowed))
        return value

    def path(self, name: str) -> Path | None:
        return Path(self.environ[name]) if self.environ.get(name) else None

    def secret(self, name: str, pattern: str, allowed: str) -> str:
        value = self.environ.get(name, "")
        if value and not re.fullmatch(pattern, value):
            raise SettingsError(name, "…", allowed)
        return value

    def flag(self, name: str, default: bool) -> bool:
        both = TRUE + FALSE
        return self.choice(name, TRUE[0] if default else FALSE[0], both) in TRUE

    def number(self, name: str, default: int, low: int, high: int) -> int:
        value = self.environ.get(name, str(default))
        return _bounded(value, low, high, lambda a: SettingsError(name, value, a))

    def database(self, name: str) -> str:
        if name not in self.environ:
            raise SettingsError(name, None, _begins(SCHEMES))
        return self.url(name, SCHEMES)

    def cache(self, name: str) -> str:
        return self.url(name, CACHES) if self.environ.get(name) else ""

    def url(self, name: str, schemes: tuple[str, ...]) -> str:
        url = self.environ[name]
        scheme = urlsplit(url).scheme
        if scheme not in schemes:
            # Only the scheme is shown: the rest may hold a password.
            raise SettingsError(name, f"{scheme}://…", _begins(schemes))
        return url


def _begins(schemes: tuple[str, ...]) -> str:
    return f"a URL that starts with {', '.join(schemes)}"


def _bounded(
    value: str, low: int, high: int, error: Callable[[str], SettingsError]
) -> int:
    allowed = f"a whole number from {low} to {high}"
    if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
        raise error(allowed)
    return int(value)
