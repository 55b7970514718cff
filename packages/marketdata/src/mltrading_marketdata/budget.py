"""Do the connections of a release fit into what the server has left?

Each worker holds up to `pool` connections, and while a release replaces another both
run. A server without a connection left refuses everybody, the running release too; so
this is asked before a new one boots.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from . import deadline
from .errors import OverBudget, StoreError, explain
from .url import Address

# The name under which the workers of the dashboard are seen by the server.
WEB = "mltrading-web"
RELEASES = 2
ANSWER_S = 5.0
_NEEDED = ("DATABASE_POOL_SIZE", "WEB_THREADS", "WEB_WORKERS")


@dataclass(frozen=True, slots=True)
class Demand:
    """What the releases of an environment may take: numbers of one release."""

    pool: int
    threads: int
    workers: int
    hosts: int = 1

    @property
    def each(self) -> int:
        """Return the connections of one worker: more than threads are never used."""
        return min(self.pool, self.threads)

    @property
    def most(self) -> int:
        """Return the connections of two releases, the old and the new one."""
        return self.each * self.workers * self.hosts * RELEASES

    def __str__(self) -> str:
        hosts = f" x {self.hosts} hosts" if self.hosts > 1 else ""
        return (
            f"{self.each} connections a worker x {self.workers} workers{hosts} "
            f"x {RELEASES} releases = {self.most}"
        )


@dataclass(frozen=True, slots=True)
class Room:
    """What a server has: its limits, None where there is none, and who uses them.

    `reserved` connections are kept for superusers. `others` counts the sessions that
    are not of our web workers: on the server, of our role, in our database.
    """

    maximum: int
    reserved: int
    others: int
    role_maximum: int | None = None
    role_others: int = 0
    database_maximum: int | None = None
    database_others: int = 0

    @property
    def left(self) -> int:
        """Return how many connections our web workers can have."""
        free = [self.maximum - self.reserved - self.others]
        if self.role_maximum is not None:
            free.append(self.role_maximum - self.role_others)
        if self.database_maximum is not None:
            free.append(self.database_maximum - self.database_others)
        return max(0, min(free))

    def __str__(self) -> str:
        said = (
            f"max_connections {self.maximum}, {self.reserved} of them reserved, "
            f"{self.others} used by others"
        )
        if self.role_maximum is not None:
            said += f"; the role may have {self.role_maximum}"
        if self.database_maximum is not None:
            said += f"; the database may have {self.database_maximum}"
        return said


def demand(environ: Mapping[str, str]) -> Demand | None:
    """Return what a release with these variables takes; None where they do not say.

    MLTRADING_HOSTS is the number of hosts it runs on, 1 where it is not set. Raises
    StoreError for a value that is no number.
    """
    if not all(environ.get(name) for name in _NEEDED):
        return None
    pool, threads, workers = (_number(environ, name) for name in _NEEDED)
    hosts = _number(environ, "MLTRADING_HOSTS") if "MLTRADING_HOSTS" in environ else 1
    return Demand(pool, threads, workers, hosts)


def observe(address: Address) -> Room | None:
    """Ask the server for its limits and for who is connected; None for SQLite.

    Raises Unavailable, after ANSWER_S at the latest.
    """
    if address.dialect == "sqlite":
        return None
    import psycopg
    from psycopg.rows import class_row

    from .connection import Connection

    try:
        with (
            deadline.waiting(time.monotonic() + ANSWER_S),
            Connection.connect(address.libpq, autocommit=True) as connection,
            connection.cursor(row_factory=class_row(Room)) as cursor,
        ):
            return cursor.execute(_QUESTION, {"web": WEB}).fetchone()
    except psycopg.Error as error:
        raise explain(error, address.where) from error


def judge(demand: Demand, room: Room, where: str) -> str:
    """Return one line that says how the demand fits; raise OverBudget if it does not.

    The hint names the highest value of each variable that fits.
    """
    if demand.most <= room.left:
        return f"{where}: {demand}, {room.left} are left ({room})"
    raise OverBudget(
        f"{where} has {room.left} connections left ({room}), and this release needs "
        f"up to {demand}",
        _mend(demand, room.left),
    )


def check(address: Address, demand: Demand) -> str:
    """Observe and judge; return "" for SQLite, which has no such limit."""
    room = observe(address)
    return "" if room is None else judge(demand, room, address.where)


def _mend(demand: Demand, left: int) -> str:
    pool = left // (demand.workers * demand.hosts * RELEASES)
    workers = left // (demand.each * demand.hosts * RELEASES)
    ways = []
    if pool:
        ways.append(f"set DATABASE_POOL_SIZE to at most {pool}")
    if workers:
        ways.append(f"set WEB_WORKERS to at most {workers}")
    ways.append(f"raise max_connections of the server by {demand.most - left}")
    return ", or ".join(ways)


def _number(environ: Mapping[str, str], name: str) -> int:
    value = environ[name]
    if not value.isdecimal() or not int(value):
        raise StoreError(f"{name} is {value!r}", "set it to a whole number from 1 on")
    return int(value)


# A session without a database or user is a process of the server itself. Every role
# sees user, database and application of all. PostgreSQL 16 has a second reserve.
_QUESTION = """
    WITH others AS (
        SELECT usename, datname FROM pg_stat_activity
        WHERE datname IS NOT NULL AND usename IS NOT NULL
        AND pid <> pg_backend_pid()
        AND backend_type IS DISTINCT FROM 'parallel worker'
        AND NOT (datname = current_database() AND application_name = %(web)s)
    )
    SELECT
        current_setting('max_connections')::int AS maximum,
        current_setting('superuser_reserved_connections')::int
            + coalesce(current_setting('reserved_connections', true)::int, 0)
            AS reserved,
        (SELECT count(*) FROM others) AS others,
        nullif(rolconnlimit, -1) AS role_maximum,
        (SELECT count(*) FROM others WHERE usename = current_user) AS role_others,
        nullif(datconnlimit, -1) AS database_maximum,
        (SELECT count(*) FROM others WHERE datname = current_database())
            AS database_others
    FROM pg_roles, pg_database
    WHERE rolname = current_user AND datname = current_database()
    """
