"""Both engines behind one fixture: `url` is an empty, migrated database."""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import psycopg
import pytest

from mltrading_marketdata import Store, open_store, revisions
from mltrading_marketdata.migration import migrate
from mltrading_marketdata.url import parse
from tests.postgres import Server, binaries, running

# pandas keeps text another way where pyarrow is, which no release has beside it.
pd.set_option("mode.string_storage", "python")
# A unit test has no database.
ENGINES = [
    pytest.param(name, marks=pytest.mark.integration)
    for name in ("sqlite", "postgresql")
]
_numbers = itertools.count()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Server]:
    """A real server; who stops or freezes it leaves it running."""
    with running() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{binaries()}{os.pathsep}{os.environ['PATH']}")
        yield server


@pytest.fixture(scope="session")
def server(cluster: Server) -> str:
    return cluster.url


class Clones:
    """Databases made from one template, each while the test before it runs.

    A copy takes a tenth of a second or more, most of it the server's waiting for files.
    """

    def __init__(self, server: Server, template: str) -> None:
        self._server, self._template = server, template
        self._numbers = itertools.count()
        self._coming = ""
        self._connection: psycopg.Connection | None = None

    def take(self) -> str:
        """Return the name of a fresh copy, and have the next one begun."""
        if not self._arrived():
            self._begin()
            assert self._arrived(), "the template could not be copied"
        name = self._coming
        self._begin()
        return name

    def drop(self, name: str) -> None:
        with psycopg.connect(self._server.url, autocommit=True) as c:
            c.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def close(self) -> None:
        if self._connection is not None:
            self._arrived()
            self._connection.close()

    def _begin(self) -> None:
        if self._connection is None or self._connection.broken:
            self._connection = psycopg.connect(self._server.url, autocommit=True)
        self._coming = f"test_{next(self._numbers)}"
        order = f"CREATE DATABASE {self._coming} TEMPLATE {self._template}"
        self._connection.pgconn.send_query(order.encode())

    def _arrived(self) -> bool:
        """Wait for the copy that was begun; False where a test stopped the server."""
        if self._connection is None:
            return False
        status = None
        while result := self._connection.pgconn.get_result():
            status = result.status
        return status == psycopg.pq.ExecStatus.COMMAND_OK


@pytest.fixture(scope="session")
def clones(cluster: Server) -> Iterator[Clones]:
    template = "template_marketdata"
    _create(cluster.url, template, "template0")
    migrate(parse(cluster.database(template)))
    clones = Clones(cluster, template)
    yield clones
    clones.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "market.db"
    migrate(parse(f"sqlite:///{path}"))
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    shutil.copy(sqlite_template, tmp_path / "market.db")
    return f"sqlite:///{tmp_path / 'market.db'}"


@pytest.fixture
def postgres_url(cluster: Server, clones: Clones) -> Iterator[str]:
    name = clones.take()
    yield cluster.database(name)
    clones.drop(name)


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest) -> str:
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    return request.getfixturevalue(name)


@pytest.fixture(params=ENGINES)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without any table; for SQLite not even a file or its folder."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / 'market.db'}"
    return request.getfixturevalue("postgres_empty_url")


@pytest.fixture
def postgres_empty_url(cluster: Server) -> str:
    name = f"empty_{next(_numbers)}"
    _create(cluster.url, name, "template0")
    return cluster.database(name)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url) as opened:
        opened.upsert_symbols(pd.DataFrame(index=["ACME"]))
        yield opened


@pytest.fixture
def bars() -> Callable[..., pd.DataFrame]:
    """Make n bars from a start: close 10, 11, ..., each good."""

    def make(n: int, start: str = "2020-01-01", freq: str = "D") -> pd.DataFrame:
        index = pd.date_range(start, periods=n, freq=freq, tz="UTC")
        close = pd.Series(range(10, 10 + n), index=index, dtype=float)
        columns = {"open": close - 0.5, "high": close + 1, "low": close - 1}
        return pd.DataFrame(columns | {"close": close, "volume": 100})

    return make


@pytest.fixture
def ship(tmp_path, monkeypatch):
    """Give what adds a migration to those of this release, and ships both."""
    folder = tmp_path / "migrations"
    shutil.copytree(revisions.MIGRATIONS, folder)
    monkeypatch.setattr(revisions, "MIGRATIONS", folder)
    monkeypatch.setattr("mltrading_marketdata.migration.MIGRATIONS", folder)

    def add(upgrade, *, down="pass", head=""):
        before = revisions.shipped()[-1]
        number = f"{int(before) + 1:04}"
        (folder / "versions" / f"{number}_next.py").write_text(
            "from alembic import op\nimport sqlalchemy as sa\n"
            "from mltrading_marketdata.indexes import build_index\n"
            f"revision, down_revision = {number!r}, {before!r}\n{head}\n"
            f"def upgrade():\n    {upgrade}\n\ndef downgrade():\n    {down}\n"
        )
        return number

    return add


def _create(server: str, name: str, template: str) -> None:
    with psycopg.connect(server, autocommit=True) as c:
        c.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
