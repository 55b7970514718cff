"""A WSGI application that reads before gunicorn forks, for test_faults.py.

It answers a path that is a number with that number, asked of the database.
"""

import os

import sqlalchemy as sa

from mltrading_marketdata.access import Access, Limits
from mltrading_marketdata.url import parse

QUESTION = sa.text("SELECT CAST(:n AS int)")
access = Access(parse(os.environ["DATABASE_URL"]), Limits(pool_size=4))


def ask(n: int) -> int:
    return access.read(lambda c: c.execute(QUESTION, {"n": n}).scalar())


# The master has a connection now, which its workers must not use.
ask(0)


def application(environ, start_response):
    found = ask(int(environ["PATH_INFO"][1:]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {found}".encode()]
