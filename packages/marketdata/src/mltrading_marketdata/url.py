"""Where the database is: one value made from DATABASE_URL, safe to print."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from .errors import StoreError

Dialect = Literal["sqlite", "postgresql"]
_POSTGRES = ("postgres", "postgresql", "postgresql+psycopg")
_WITH_TLS = ("require", "verify-ca", "verify-full")
_HINT = "use sqlite:///path/file.db or postgresql://user:password@host:5432/name"


@dataclass(frozen=True)
class Address:
    """A parsed DATABASE_URL.

    `where` names the file or host/database for messages. `libpq` is the URL that
    psycopg and libpq read; it holds the password and stays out of repr().
    """

    dialect: Dialect
    where: str
    path: Path | None = None
    libpq: str = field(default="", repr=False)

    @property
    def file(self) -> Path:
        """Return the SQLite file; asking a PostgreSQL address for it is a bug."""
        if self.path is None:
            raise TypeError(f"{self.where} is not a file")
        return self.path

    @property
    def name(self) -> str:
        """Return what people call the database: that of the file, or on the server."""
        if self.path is not None:
            return self.path.name
        return self.environment.get("PGDATABASE", "")

    @property
    def sqlalchemy(self) -> str:
        """Return the URL that SQLAlchemy reads."""
        if self.path is not None:
            return f"sqlite:///{quote(str(self.path))}"
        return self.libpq.replace("postgresql://", "postgresql+psycopg://", 1)

    @property
    def environment(self) -> dict[str, str]:
        """Return the PG* variables for pg_dump and its kin: nothing goes in argv."""
        parts = urlsplit(self.libpq)
        query = dict(parse_qsl(parts.query))
        found = {
            "PGHOST": query.get("host") or parts.hostname,
            "PGPORT": query.get("port") or (parts.port and str(parts.port)),
            "PGUSER": query.get("user") or unquote(parts.username or ""),
            "PGPASSWORD": query.get("password") or unquote(parts.password or ""),
            "PGDATABASE": query.get("dbname") or unquote(parts.path.lstrip("/")),
            "PGSSLMODE": query.get("sslmode"),
            "PGSSLROOTCERT": query.get("sslrootcert"),
        }
        return {name: value for name, value in found.items() if value}


def parse(url: str, *, require_tls: bool = False) -> Address:
    """Read a database URL; `require_tls` adds sslmode=require unless one is given.

    TLS is for TCP: libpq uses none on a Unix socket, whatever sslmode says. Raises
    StoreError for an unknown scheme, a missing path or an in-memory SQLite (nothing
    could be migrated or backed up in one), or an sslmode without the required TLS.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        path = unquote(rest.partition("?")[0]).removeprefix("/")
        if path in ("", ":memory:"):
            raise StoreError("DATABASE_URL: SQLite needs a file path", _HINT)
        return Address("sqlite", path, Path(path))
    if scheme not in _POSTGRES:
        # Only the scheme is shown: what stands elsewhere in a mistyped address may
        # be the password.
        said = f"unknown scheme {scheme!r}" if "://" in url else "it has no scheme"
        raise StoreError(f"DATABASE_URL: {said}", _HINT)
    libpq = f"postgresql://{rest}"
    try:
        parts = urlsplit(libpq)
        port = parts.port
    except ValueError:
        # The parser's own words quote the part it stumbled over.
        raise StoreError(
            "DATABASE_URL: it can't be read; / # ? @ in a password are written"
            " %2F %23 %3F %40",
            _HINT,
        ) from None
    query = dict(parse_qsl(parts.query))
    mode = query.get("sslmode", "")
    if require_tls and mode and mode not in _WITH_TLS:
        raise StoreError(
            f"DATABASE_URL says sslmode={mode}, but DATABASE_SSL_REQUIRE asks for TLS",
            f"leave sslmode out, or use one of: {', '.join(_WITH_TLS)}",
        )
    if require_tls and not mode:
        libpq = urlunsplit(
            parts._replace(query=urlencode(query | {"sslmode": "require"}))
        )
    host = query.get("host") or parts.hostname or "localhost"
    name = unquote(parts.path.lstrip("/")) or query.get("dbname", "")
    return Address(
        "postgresql", f"{host}{f':{port}' if port else ''}/{name}", libpq=libpq
    )


def redact(url: str) -> str:
    """Return `url` with every password as stars; works on text that is no URL."""
    url = re.sub(r"(?i)((?:^|[?&])password=)[^&]*", r"\1***", url)
    return re.sub(r"(://[^/?#:@]*):.*@", r"\1:***@", url)
