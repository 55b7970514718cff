"""A dashboard on the sample data, and bars made up for the pure parts."""

import pandas as pd
import pytest

from mltrading_dashboard.app import create_app
from mltrading_dashboard.data import Data
from mltrading_dashboard.settings import Settings
from mltrading_marketdata import Unavailable, open_store
from mltrading_marketdata.preparation import prepare
from mltrading_marketdata.url import parse as parse_url
from tests.dashboard.bars import made_bars

# pandas keeps text another way where pyarrow is, which no release has beside it.
pd.set_option("mode.string_storage", "python")


@pytest.fixture(scope="session")
def database_url(tmp_path_factory):
    url = f"sqlite:///{tmp_path_factory.mktemp('data')}/sample.db"
    prepare(parse_url(url), seed="sample")
    return url


@pytest.fixture(scope="session")
def store(database_url):
    with open_store(database_url) as store:
        yield store


@pytest.fixture(scope="session")
def data(store):
    return Data(store, ttl=600, clock=lambda: 0.0)


@pytest.fixture(scope="session")
def app(store):
    settings = Settings("test", "sqlite:///not-opened.db", comparison_mode=True)
    return create_app(settings, store)


@pytest.fixture
def client(app):
    return app.server.test_client()


class NoAnswer:
    """A store whose database is gone."""

    def __getattr__(self, name):
        def refuse(*args, **kwargs):
            raise Unavailable("the database does not answer")

        return refuse


@pytest.fixture
def no_answer():
    return NoAnswer()


@pytest.fixture
def down(no_answer):
    settings = Settings("test", "sqlite:///not-opened.db", comparison_mode=True)
    app = create_app(settings, no_answer)
    return app.server.test_client()


@pytest.fixture
def bars():
    return made_bars(600)
