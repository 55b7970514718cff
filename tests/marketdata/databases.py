"""Ask and change a database past the store."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import psycopg

from mltrading_marketdata.url import Address


def execute(address: Address, *statements: str) -> None:
    """Run statements, each on its own."""
    if address.dialect == "sqlite":
        address.file.parent.mkdir(exist_ok=True)
        with closing(sqlite3.connect(address.file, isolation_level=None)) as c:
            list(map(c.execute, statements))
    else:
        with psycopg.connect(address.libpq, autocommit=True) as c:
            list(map(c.execute, statements))


def answer(address: Address, question: str) -> list[tuple[Any, ...]]:
    """Return the rows that a question gives."""
    if address.dialect == "sqlite":
        with closing(sqlite3.connect(address.file)) as c:
            return c.execute(question).fetchall()
    with psycopg.connect(address.libpq, autocommit=True) as c:
        return c.execute(question).fetchall()
