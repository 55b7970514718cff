"""Build, fill, exchange and drop whole schemas of a PostgreSQL database.

A new schema is made beside the one in use, and takes its name in one short transaction:
`public` becomes `trash_<time>`, `incoming_<time>` becomes `public`. Renaming waits for
no reader, as who reads has found its tables already.
"""

from __future__ import annotations

import os
import re
import shutil

# Runs pg_dump, pg_restore and psql, without a shell.
import subprocess  # nosec B404
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .contents import Contents, check
from .errors import StoreError, Unavailable, explain
from .marker import ANEW, KEY, Marker
from .url import Address

if TYPE_CHECKING:
    from psycopg import Connection

# Held by whoever migrates, resets or restores; see migration.wait_for_lock.
LOCK_KEY = 0x4D4C4D49  # "MLMI"
HEADER = b"PGDMP"
TRASH, INCOMING, HELD = "trash", "incoming", "held"
_STAMP = "%Y%m%dt%H%M%Sz"
_OURS = re.compile(rf"({TRASH}|{INCOMING}|{HELD})_(\d{{8}}t\d{{6}}z)")
_PATIENCE_S = 10
_LOCK = f"""\
DO $$ BEGIN
  IF NOT pg_try_advisory_xact_lock({LOCK_KEY}) THEN
    RAISE EXCEPTION 'another migration, reset or restore is at work on this database';
  END IF;
END $$;
"""
# Who could use the old schema, and its tables, can use the new ones of the same names.
_GRANTS = """\
DO $$ DECLARE each record; BEGIN
  FOR each IN
    SELECT a.privilege_type AS may, 'SCHEMA ' || quote_ident({new}) AS what, a.grantee
    FROM pg_namespace n, aclexplode(n.nspacl) a
    WHERE n.nspname = {old} AND a.grantee <> n.nspowner
    UNION ALL
    SELECT a.privilege_type, CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END
      || format('%I.%I', {new}, c.relname), a.grantee
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
      aclexplode(c.relacl) a
    WHERE n.nspname = {old} AND a.grantee <> c.relowner
      AND c.relkind IN ('r', 'v', 'm', 'S', 'p')
      AND to_regclass(format('%I.%I', {new}, c.relname)) IS NOT NULL
  LOOP
    EXECUTE format('GRANT %s ON %s TO %s', each.may, each.what, CASE each.grantee
      WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(each.grantee)) END);
  END LOOP;
END $$;
"""
_EXTENSIONS = """\
SELECT e.extname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE n.nspname = %s ORDER BY 1
"""


@contextmanager
def connected(address: Address) -> Iterator[Connection]:
    """Give a psycopg connection in autocommit; explain what the driver says."""
    import psycopg

    try:
        with psycopg.connect(address.libpq, connect_timeout=5, autocommit=True) as c:
            c.execute(f"SET lock_timeout = '{_PATIENCE_S}s'")
            yield c
    except psycopg.Error as error:
        raise explain(error, address.where) from error


def in_use(c: Connection, address: Address) -> str:
    """Return the schema that holds our tables. Raises Unavailable where none does."""
    row = c.execute("SELECT current_schema()").fetchone()
    if row is None or row[0] is None:
        raise Unavailable(
            f"{address.where} has no schema in its search path",
            "make one: inv psql --command 'CREATE SCHEMA public'",
        )
    return str(row[0])


def fresh(c: Connection, kind: str) -> str:
    """Return a name with the time in it that no schema has."""
    at = datetime.now(UTC)
    while True:
        name = f"{kind}_{at:{_STAMP}}"
        if c.execute("SELECT to_regnamespace(%s)", [name]).fetchone() == (None,):
            return name
        at += timedelta(seconds=1)


def listed(c: Connection, kind: str) -> list[tuple[str, datetime]]:
    """Return the schemas of a kind with when they were made, newest first."""
    names = c.execute("SELECT nspname FROM pg_namespace ORDER BY 1 DESC").fetchall()
    matches = [_OURS.fullmatch(name) for (name,) in names]
    return [
        (found[0], datetime.strptime(found[2], _STAMP).replace(tzinfo=UTC))
        for found in matches
        if found and found[1] == kind
    ]


def make(c: Connection) -> str:
    """Make an empty schema beside the one in use, and return its name."""
    name = fresh(c, INCOMING)
    c.execute(f"CREATE SCHEMA {_quoted(name)}")
    return name


def exchange(
    c: Connection, address: Address, incoming: str, mark: Marker | None
) -> str:
    """Put a schema in the place of the one in use; return what that is called now.

    What the old one said of itself is what the new one says: the database is the same.
    `mark` is for one that said nothing. One transaction. Raises StoreError.
    """
    schema = in_use(c, address)
    for (extension,) in c.execute(_EXTENSIONS, [schema]).fetchall():
        raise StoreError(
            f"the schema {schema} of {address.where} holds the extension {extension}",
            f"move it: ALTER EXTENSION {extension} SET SCHEMA another_one",
        )
    aside = fresh(c, TRASH)
    with c.transaction():
        lock(c)
        there = _said(c) or (mark.text if mark else "")
        c.execute(f"ALTER SCHEMA {_quoted(schema)} RENAME TO {_quoted(aside)}")
        c.execute(f"ALTER SCHEMA {_quoted(incoming)} RENAME TO {_quoted(schema)}")
        c.execute(_GRANTS.format(old=_literal(aside), new=_literal(schema)))
        if there:
            c.execute(ANEW, [KEY, there])
    return aside


def revision(c: Connection, name: str) -> str | None:
    """Return the revision that a schema is at."""
    from psycopg import sql

    table = sql.Identifier(name, "alembic_version")
    asked = sql.SQL("SELECT version_num FROM {}").format(table)
    found = c.execute(asked).fetchone()
    return str(found[0]) if found else None


def drop(c: Connection, name: str) -> None:
    """Drop a schema that is not in use, with all that it holds."""
    if not _OURS.fullmatch(name):
        raise ValueError(f"{name} is none of ours to drop")
    c.execute(f"DROP SCHEMA IF EXISTS {_quoted(name)} CASCADE")


def lock(c: Connection) -> None:
    """Hold, to the end of the transaction, what migrations hold. Raises Unavailable."""
    row = c.execute(f"SELECT pg_try_advisory_xact_lock({LOCK_KEY})").fetchone()
    if row != (True,):
        raise Unavailable(
            "another migration, reset or restore is at work on this database",
            "wait for it, then run the same command again",
        )


def dump(address: Address, path: Path) -> tuple[Contents, str]:
    """Write the schema in use to a file; return what it held at that very moment.

    The second value is the schema's name. Raises Unavailable.
    """
    from .contents import of_postgresql

    with connected(address) as c:
        schema = in_use(c, address)
        c.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        row = c.execute("SELECT pg_export_snapshot()").fetchone()
        assert row is not None  # nosec B101
        run(
            address,
            *("pg_dump", "-Fc", "--compress=1", "--no-owner", "--no-acl"),
            *(f"--schema={_quoted(schema)}", f"--snapshot={row[0]}"),
            *(f"--lock-wait-timeout={_PATIENCE_S}s", "-f", str(path)),
        )
        found = of_postgresql(c, schema)
        c.execute("COMMIT")
    return found, schema


def load(address: Address, path: Path, wanted: Contents | None, *, keep: bool) -> str:
    """Restore a dump into a schema of its own, and prove it; return the schema's name.

    Without `keep` it is a rehearsal: all of it is undone, and "" is returned. The
    schema in use is left as it is, and its readers and writers go on. Raises
    StoreError for a file that is no sound dump of ours, Unavailable.
    """
    with connected(address) as c:
        schema, name = in_use(c, address), fresh(c, INCOMING)
        held = fresh(c, HELD)
        how = f"postgresql {c.info.server_version // 10_000}"
    # A dump names its schema, so for the length of this transaction, and for it alone,
    # an empty one has that name.
    own, away, new = _quoted(schema), _quoted(held), _quoted(name)
    before = (
        f"BEGIN;\n{_LOCK}ALTER SCHEMA {own} RENAME TO {away};\nCREATE SCHEMA {own};\n"
    )
    after = check(schema, wanted, how)
    after += (
        f"ALTER SCHEMA {own} RENAME TO {new};\nALTER SCHEMA {away} RENAME TO {own};\n"
    )
    after += "COMMIT;\n" if keep else "ROLLBACK;\n"
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "list"
        table = run(address, "pg_restore", "--list", str(path), reads=path, out=True)
        # The schema itself is there already.
        lines = [line for line in table.splitlines() if not _SCHEMA.match(line)]
        listed.write_text("\n".join(lines) + "\n")
        _replay(address, path, listed, before, after)
    return name if keep else ""


_SCHEMA = re.compile(r"\d+; \d+ \d+ (SCHEMA - |(COMMENT|ACL) - SCHEMA )")


def _replay(
    address: Address, path: Path, listed: Path, before: str, after: str
) -> None:
    """Let psql read `before`, the dump's statements and, if all came, `after`.

    If they did not all come psql never reads the COMMIT, and the server undoes it all.
    """
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as other:
        psql = subprocess.Popen(  # nosec B603
            [find("psql"), "-Xq", "-v", "ON_ERROR_STOP=1", "-f", "-"],
            env=os.environ | address.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        read, into = 0, psql.stdin
        assert into is not None  # nosec B101
        # Where psql ends at an error, it says itself which.
        with suppress(BrokenPipeError):
            try:
                into.write(before.encode())
                into.flush()
                words = ("--no-owner", "--no-acl", "-L", str(listed), "-f", "-")
                read = subprocess.run(  # nosec B603
                    [find("pg_restore"), *words, str(path)],
                    stdin=subprocess.DEVNULL,
                    stdout=into,
                    stderr=other,
                    check=False,
                ).returncode
                if read == 0:
                    into.write(after.encode())
            finally:
                into.close()
        if psql.wait():
            raise _failed("psql", address, _text(said))
        if read:
            raise _failed("pg_restore", address, _text(other), path)


def run(
    address: Address,
    tool: str,
    *arguments: str,
    reads: Path | None = None,
    out: bool = False,
) -> str:
    """Run a PostgreSQL program; return what it printed if `out`.

    `reads` is the backup that it reads. Raises StoreError.
    """
    # No shell; argv holds paths, and secrets travel in the environment.
    done = subprocess.run(  # nosec B603
        [find(tool), *arguments],
        env=os.environ | address.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if out else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise _failed(tool, address, done.stderr, reads)
    return done.stdout or ""


def find(tool: str) -> str:
    """Return the path of a PostgreSQL program. Raises StoreError."""
    found = shutil.which(tool)
    if found is None:
        raise StoreError(
            f"{tool} is not installed on this machine",
            "install the PostgreSQL client tools and put them on PATH",
        )
    return found


def _failed(
    tool: str, address: Address, text: str, path: Path | None = None
) -> StoreError:
    """Return the failure of a program, by the first line that names an error."""
    lines = [line for line in text.splitlines() if "error" in line.lower()]
    reason = (lines or text.splitlines() or ["no message"])[0]
    # "psql:<stdin>:12: ERROR:  …": where in its input is no help.
    reason = re.sub(r"^psql:<stdin>:\d+: (ERROR|FATAL):\s+", "", reason)
    hint = ""
    if "must be owner of schema" in text or "permission denied" in text:
        hint = "as its superuser: ALTER SCHEMA public OWNER TO the role of DATABASE_URL"
    what = f"{path} is no sound backup: " if path else ""
    return Unavailable(f"{what}{tool} for {address.where} failed: {reason}", hint)


def _said(c: Connection) -> str:
    """Return what the schema in use says of itself, "" for nothing."""
    if c.execute("SELECT to_regclass('meta')").fetchone() == (None,):
        return ""
    found = c.execute("SELECT value FROM meta WHERE key = %s", [KEY]).fetchone()
    return str(found[0]) if found else ""


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
