"""Both engines behind one fixture: `url` is an empty, migrated database."""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import psycopg
import pytest

from mltrading_marketdata import Store, open_store
from mltrading_marketdata.migration import migrate
from mltrading_marketdata.url import parse
from tests.postgres import binaries, postgres

ENGINES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)]
_numbers = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with postgres() as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{binaries()}{os.pathsep}{os.environ['PATH']}")
        yield url


@pytest.fixture(scope="session")
def postgres_template(server: str) -> str:
    _create(server, "template_marketdata", "template0")
    migrate(parse(server.replace("/postgres?", "/template_marketdata?")))
    return "template_marketdata"


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
def postgres_url(server: str, postgres_template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    _create(server, name, postgres_template)
    yield server.replace("/postgres?", f"/{name}?")
    with psycopg.connect(server, autocommit=True) as c:
        c.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest) -> str:
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    return request.getfixturevalue(name)


@pytest.fixture(params=ENGINES)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without any table; for SQLite not even a file or its folder."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / 'market.db'}"
    server = request.getfixturevalue("server")
    name = f"empty_{next(_numbers)}"
    _create(server, name, "template0")
    return server.replace("/postgres?", f"/{name}?")


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


def _create(server: str, name: str, template: str) -> None:
    with psycopg.connect(server, autocommit=True) as c:
        c.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
