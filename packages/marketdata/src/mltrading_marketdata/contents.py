"""What a database holds, in numbers: to prove that a copy of it is one."""

from __future__ import annotations

import hashlib
import json
import marshal
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_WORD = 2**64

# A row's hash is that of its values; json and xml have none of their own. Sums do not
# depend on the order of rows.
_QUESTIONS = """\
SELECT c.relname AS name, format(
  'SELECT count(*), coalesce(sum(%s), 0)::text FROM ONLY %I.%I AS t',
  CASE WHEN EXISTS (
    SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
    AND a.atttypid IN ('pg_catalog.json'::regtype, 'pg_catalog.xml'::regtype)
  ) THEN 'hashtextextended(t::text, 0)::numeric'
  ELSE 'hash_record_extended(t, 0)::numeric' END, n.nspname, c.relname) AS question
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname = {schema} ORDER BY c.relname
"""
_OBJECTS = """\
SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
  WHEN 'S' THEN 'sequence' WHEN 'i' THEN 'index' ELSE 'relation' END
  || ' ' || c.relname AS said
FROM pg_catalog.pg_class c WHERE c.relkind IN ('v', 'm', 'S', 'i', 'p', 'I', 'f')
  AND c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace n
    WHERE n.nspname = {schema})
UNION ALL
SELECT 'function ' || p.proname || '/' || p.pronargs FROM pg_catalog.pg_proc p
WHERE p.pronamespace = (SELECT oid FROM pg_catalog.pg_namespace n
    WHERE n.nspname = {schema})
UNION ALL
SELECT 'trigger ' || t.tgname FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal
  AND c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace n
    WHERE n.nspname = {schema})
"""
# Raises where a schema does not hold what was wanted; ends the transaction it is in.
_CHECK = """\
DO $mltrading$
DECLARE
  wanted CONSTANT jsonb := {wanted};
  found jsonb := '{{}}';
  each record;
  n bigint;
  digest text;
  wrong text;
BEGIN
  IF to_regclass({version}) IS NULL THEN
    RAISE EXCEPTION 'this is no backup of this application: it has no alembic_version';
  END IF;
  IF wanted IS NULL THEN
    RETURN;
  END IF;
  FOR each IN {questions} LOOP
    EXECUTE each.question INTO n, digest;
    found := found || jsonb_build_object(each.name, CASE WHEN {exact}
      THEN jsonb_build_array(n, digest) ELSE jsonb_build_array(n) END);
  END LOOP;
  SELECT string_agg(coalesce(w.key, f.key) || ': ' || coalesce(f.value::text, 'nothing')
    || ' came back of ' || coalesce(w.value::text, 'nothing'), '; ') INTO wrong
  FROM jsonb_each(wanted->'tables') w FULL JOIN jsonb_each(found) f ON w.key = f.key
  WHERE w.value IS DISTINCT FROM f.value;
  IF wrong IS NULL THEN
    SELECT 'not the same: ' || string_agg(coalesce(w.said, f.said), ', ') INTO wrong
    FROM jsonb_array_elements_text(wanted->'objects') w(said)
    FULL JOIN ({objects}) f ON w.said = f.said
    WHERE w.said IS NULL OR f.said IS NULL;
  END IF;
  IF wrong IS NOT NULL THEN
    RAISE EXCEPTION 'what was restored is not what was backed up: %', wrong;
  END IF;
END
$mltrading$;
"""


@dataclass(frozen=True)
class Contents:
    """Rows and digest of each table, and the names of all else.

    Digests are comparable between contents that were taken `how` in the same way.
    """

    how: str
    tables: dict[str, tuple[int, str]]
    objects: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Return the rows of all tables."""
        return sum(rows for rows, _ in self.tables.values())

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        tables = {name: list(said) for name, said in self.tables.items()}
        return {"how": self.how, "tables": tables, "objects": list(self.objects)}

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Contents:
        """Read what `as_json` gave; else KeyError, TypeError or ValueError."""
        tables = {
            str(n): (int(rows), str(d)) for n, (rows, d) in said["tables"].items()
        }
        return cls(str(said["how"]), tables, tuple(map(str, said["objects"])))

    def differs(self, other: Contents) -> str:
        """Return what `other` has otherwise, in words; "" where it is the same."""
        exact = self.how == other.how
        for name in sorted({*self.tables, *other.tables}):
            mine, its = self.tables.get(name), other.tables.get(name)
            if mine is None or its is None:
                return f"only one has the table {name}"
            if mine[0] != its[0]:
                return f"{name} has {its[0]} rows, not {mine[0]}"
            if exact and mine[1] != its[1]:
                return f"{name} has other values in its {its[0]} rows"
        odd = {*self.objects} ^ {*other.objects}
        return f"only one has: {', '.join(sorted(odd))}" if odd else ""


def of_sqlite(connection: sqlite3.Connection) -> Contents:
    """Return what a file holds, as the connection sees it. Raises sqlite3.Error."""
    every = connection.execute("SELECT type, name FROM sqlite_master").fetchall()
    listed = sorted(one for one in every if not one[1].startswith("sqlite_"))
    tables = {
        name: _digest(connection.execute(f'SELECT * FROM "{name}"'))  # nosec B608
        for kind, name in listed
        if kind == "table"
    }
    others = tuple(f"{kind} {name}" for kind, name in listed if kind != "table")
    return Contents("sqlite", tables, others)


def of_postgresql(connection: Any, schema: str) -> Contents:
    """Return what a schema holds, as a psycopg connection sees it."""
    named = _literal(schema)
    questions = connection.execute(_QUESTIONS.format(schema=named)).fetchall()
    tables = {name: connection.execute(asked).fetchone() for name, asked in questions}
    objects = connection.execute(_OBJECTS.format(schema=named)).fetchall()
    how = f"postgresql {connection.info.server_version // 10_000}"
    return Contents(how, tables, tuple(sorted(said for (said,) in objects)))


def check(schema: str, wanted: Contents | None, how: str) -> str:
    """Return SQL that raises unless a schema holds what is wanted.

    `how` is that of the server that is asked; of another version only rows are
    compared. Without `wanted`: unless it is a schema of ours at all.
    """
    said, exact = "NULL", "true"
    if wanted is not None:
        values = wanted.as_json()
        if wanted.how != how:
            exact = "false"
            values["tables"] = {n: [rows] for n, (rows, _) in wanted.tables.items()}
        said = _literal(json.dumps(values))
    named = _literal(schema)
    return _CHECK.format(
        wanted=said,
        exact=exact,
        version=_literal(f'"{schema}".alembic_version'),
        questions=_QUESTIONS.format(schema=named),
        objects=_OBJECTS.format(schema=named),
    )


def _digest(rows: Iterable[tuple[Any, ...]]) -> tuple[int, str]:
    """Return the number of rows and the sum of their hashes."""
    count = total = 0
    for row in rows:
        # Version 2 has no references, so equal rows give equal bytes.
        text = marshal.dumps(row, 2)
        own = hashlib.blake2b(text, digest_size=8).digest()
        total = (total + int.from_bytes(own, "big")) % _WORD
        count += 1
    return count, str(total)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
