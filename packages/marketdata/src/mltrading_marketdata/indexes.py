"""Build an index on a table that is in use; for migrations that say `concurrently`."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

# An index whose concurrent build failed or was killed: writers keep it up to date, and
# no query uses it.
_INVALID = sa.text(
    "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
    "WHERE NOT i.indisvalid AND c.relnamespace = current_schema()::regnamespace "
    "ORDER BY c.relname"
)


def build_index(
    name: str, table: str, columns: Sequence[str], *, unique: bool = False
) -> None:
    """Build an index while readers and writers of the table go on.

    PostgreSQL can't do that in a transaction, so the migration says
    `concurrently = True` and holds nothing else: it may be run twice. What a build
    that failed left behind is dropped and built again. SQLite, and a database that is
    being made, build it like any other.
    """
    context = op.get_context()
    if context.dialect.name != "postgresql" or not context.opts.get("concurrently"):
        op.create_index(name, table, list(columns), unique=unique)
        return
    if not context.as_sql and name in invalid(op.get_bind()):
        quoted = context.dialect.identifier_preparer.quote(name)
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {quoted}")
    op.create_index(
        name,
        table,
        list(columns),
        unique=unique,
        if_not_exists=True,
        postgresql_concurrently=True,
    )


def invalid(connection: sa.Connection) -> list[str]:
    """Return the names of indexes that a failed build has left; none on SQLite."""
    if connection.dialect.name != "postgresql":
        return []
    return list(connection.execute(_INVALID).scalars())
