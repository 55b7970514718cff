"""What can go wrong with the data, each with its own name and a next step."""

from __future__ import annotations


class StoreError(Exception):
    """Base of everything this package raises on purpose.

    `str(error)` says what and where; `error.hint` says what to do next. Neither ever
    holds a password.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class PoolExhausted(StoreError):
    """All connections were busy for `pool_timeout_s`: answer 503 and try again."""


class Unavailable(StoreError):
    """The database cannot answer now: gone, locked, full, read-only or damaged."""


class OverBudget(StoreError):
    """A release could need more connections than the server has left."""


class BadData(StoreError):
    """A whole frame was refused; refused single rows are counted, not raised."""


class SchemaBehind(StoreError):
    """The database lacks tables or columns that this code reads."""


class OutOfRange(StoreError):
    """The schema is, or would come, outside what a release's code works on."""


class Protected(StoreError):
    """The database is another environment's, or one that nobody empties by mistake."""


class UnknownSymbol(StoreError):
    """No such symbol in the store."""


class SourceError(StoreError):
    """A source gave no usable answer. Never stands for "there are no bars"."""


class SourceDown(SourceError):
    """A source did not answer in time, whatever was tried; later it may."""


class SourceClosed(SourceError):
    """A source answers nobody now: its limit is reached, or the key is refused."""


PREPARE = "run: python -m mltrading_marketdata prepare"
RESTORE = "restore a backup: python -m mltrading_marketdata restore PATH"

# (words in the driver's message, what it means, what to do next)
_SQLITE = (
    (
        "file is not a database",
        "is not a SQLite database, or is damaged",
        f"check the path in DATABASE_URL, or {RESTORE}",
    ),
    ("malformed", "is damaged", RESTORE),
    ("disk image", "is damaged", RESTORE),
    (
        "database or disk is full",
        "cannot grow: the disk is full",
        "free space on that disk, then run the same command again",
    ),
    (
        "readonly database",
        "is read-only for this user",
        "make the file and its folder writable for the user that runs this",
    ),
    (
        "unable to open database file",
        "cannot be opened",
        f"check that file and folder exist and are readable; a new one: {PREPARE}",
    ),
    (
        "disk I/O error",
        "cannot be read or written: the disk reports an error",
        "look at the disk and at the rights of the file and its folder",
    ),
    (
        "is locked",
        "is locked by another writer",
        "wait for the other writer, then run the same command again",
    ),
)


_MISSING = {"42P01", "42703"}
_TLS = "switch TLS on at the server, or set DATABASE_SSL_REQUIRE=false"

# (SQLSTATE, words where there is none: a refused login carries no SQLSTATE, what it
# means, what to do next)
_POSTGRES = (
    (
        "57014",
        (),
        "did not finish a statement in time",
        "ask for a shorter range, or look at the load of the server",
    ),
    ("53100", (), "cannot grow: its disk is full", "free space on the server"),
    ("25006", (), "is read-only", "point DATABASE_URL at the primary"),
    (
        "53300",
        ("too many clients", "connection slots", "too many connections"),
        "has no connection left",
        "lower DATABASE_POOL_SIZE or WEB_WORKERS, or raise the server's limit",
    ),
    (
        "28",
        ("authentication failed", "no pg_hba.conf entry"),
        "refused the login",
        "check user and password in DATABASE_URL, and the server's pg_hba.conf",
    ),
    ("", ("server does not support SSL",), "has no TLS, which is required", _TLS),
    (
        "",
        ("certificate verify failed", "does not match host name"),
        "showed a certificate that is not trusted",
        "check sslmode and sslrootcert in DATABASE_URL",
    ),
)


def explain(error: BaseException, where: str) -> StoreError:
    """Turn a driver's error into one of ours.

    `where` names the file or host. Drivers are told apart by their message or
    SQLSTATE, so that this module imports none of them.
    """
    if isinstance(error, StoreError):
        return error
    text = _first_line(error)
    state = getattr(error, "sqlstate", None) or ""
    if "no such table" in text or "no such column" in text or state in _MISSING:
        return SchemaBehind(f"the schema in {where} is too old: {text}", PREPARE)
    if isinstance(error, OSError):
        text = error.strerror or text
        return Unavailable(f"{where}: {text}", "check the path, its rights and space")
    for words, meaning, hint in _SQLITE:
        if words in text:
            return Unavailable(f"{where} {meaning}", hint)
    whole = str(error)
    for known, said, meaning, hint in _POSTGRES:
        if known and state.startswith(known) or any(word in whole for word in said):
            return Unavailable(f"{where} {meaning}", hint)
    if state == "3D000" or "does not exist" in text and "database" in text:
        return Unavailable(f"no such database: {where}", "create it, or fix the name")
    return Unavailable(
        f"{where} does not answer: {text}",
        "check that the server runs and that DATABASE_URL is right",
    )


def _first_line(error: BaseException) -> str:
    """Keep one line; libpq repeats host and user in it, never the password."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
