"""The stand-in for the data layer: migrates a database, after a backup.

It has no guard of its own against being run twice at once: that is for the engine to
prevent, and `applied` shows whether it did. A campaign makes a revision pending again
by counting `generation` up and deleting from `migrations`.
"""

import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path

REVISIONS = ("0001", "0002")
SCHEMA = (
    "create table if not exists migrations (revision text)",
    "create table if not exists generation (number integer)",
    "create table if not exists applied"
    " (generation integer, revision text, release text, backup text)",
)


def connect(url):
    """Return a connection and its placeholder for parameters."""
    if url.startswith("sqlite:///"):
        import sqlite3

        return sqlite3.connect(url.removeprefix("sqlite:///"), timeout=5), "?"
    import psycopg

    plain = url.replace("postgresql+psycopg://", "postgresql://")
    return psycopg.connect(plain, connect_timeout=2), "%s"


def prepare(folder):
    """Bring the database to the revisions that this version knows."""
    connection, mark = connect(os.environ["DATABASE_URL"])
    cursor = connection.cursor()
    for statement in SCHEMA:
        cursor.execute(statement)
    cursor.execute("select revision from migrations")
    there = {row[0] for row in cursor.fetchall()}
    connection.commit()
    pending = [each for each in REVISIONS if each not in there]
    backup = ""
    if pending and there:
        name = f"{max(there)}-{datetime.now():%Y%m%dT%H%M%S%f}.dump"
        Path(folder).mkdir(exist_ok=True)
        backup = str(Path(folder, name))
        Path(backup).write_text(json.dumps(sorted(there)))
    if pending:
        # As a migration that takes its time: whoever comes now would do it again.
        time.sleep(0.15)
        cursor.execute("select coalesce(max(number), 0) from generation")
        (generation,) = cursor.fetchone()
        release = os.environ["MLTRADING_RELEASE"]
        for revision in pending:
            cursor.execute(f"insert into migrations values ({mark})", (revision,))
            row = (generation, revision, release, backup)
            marks = ", ".join([mark] * 4)
            cursor.execute(f"insert into applied values ({marks})", row)
        connection.commit()
    connection.close()
    return {"applied": pending, "backup": backup or None, "ingested": 0}


def main(words):
    """Do what the engine asks: only `prepare` is known here."""
    if words[0] != "prepare":
        print(f"the stand-in knows no {words[0]}", file=sys.stderr)
        return 2
    folder = words[words.index("--backup-dir") + 1]
    kind = os.environ["DATABASE_URL"].partition(":")[0]
    try:
        said = prepare(folder)
    except Exception as error:
        print(f"{type(error).__name__}: the database is gone", file=sys.stderr)
        return 1
    print(json.dumps({**said, "database": kind, "head": REVISIONS[-1]}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
