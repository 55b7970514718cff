"""An SQLAlchemy engine is checked and measured by its events."""

import logging
import subprocess
import sys

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool, QueuePool

from mltrading_health import Health, Metrics, Status
from mltrading_health.sqlalchemy import sqlalchemy


@pytest.fixture
def health():
    return Health("desk")


@pytest.fixture
def metrics():
    return Metrics(environ={})


@pytest.fixture
def engine(tmp_path, health, metrics):
    url = f"sqlite:///{tmp_path / 'desk.db'}"
    engine = sa.create_engine(url, poolclass=QueuePool, pool_size=2, max_overflow=3)
    sqlalchemy(engine, health, metrics)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE bars (close REAL)")
    yield engine
    engine.dispose()


def counted(metrics, **match):
    return metrics.snapshot().total("database_query_duration_seconds_count", **match)


def failures(metrics, **match):
    return metrics.snapshot().total("database_query_failures_total", **match)


def test_a_statement_is_named_by_its_verb_or_by_the_code(engine, metrics):
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO bars VALUES (1.5)")
        connection.execute(sa.text(" select close from bars"))
        named = connection.execution_options(query="latest bars")
        named.execute(sa.text("SELECT close FROM bars"))
    for name in ("insert", "select", "latest bars", "other"):
        assert counted(metrics, name=name) == 1, name


def test_a_statement_that_fails_is_counted_under_its_error(engine, metrics):
    with engine.connect() as connection, pytest.raises(sa.exc.OperationalError):
        connection.exec_driver_sql("SELECT nothing FROM bars WHERE key = 'secret'")
    assert failures(metrics, name="select", error="OperationalError") == 1
    assert counted(metrics, name="select") == 1
    assert b"secret" not in metrics.render(Health("x"))[0]


def test_a_connection_that_is_not_had_is_a_failure(tmp_path, health, metrics):
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'gone' / 'desk.db'}")
    sqlalchemy(engine, health, metrics)
    with pytest.raises(sa.exc.OperationalError):
        engine.connect()
    assert failures(metrics, name="connect", error="OperationalError") == 1
    assert health.report().checks["database"].status is Status.FAIL


def test_the_check_asks_the_database(engine, health, metrics):
    assert health.report().checks["database"].status is Status.PASS
    assert counted(metrics, name="check database") == 1
    assert health.checks["database"].kind == "datastore"


def test_connections_in_use_are_shown_next_to_their_limit(engine, metrics):
    def shown(name):
        return metrics.snapshot().total(f"database_connections_{name}")

    with engine.connect() as first, engine.connect() as second:
        assert shown("in_use") == 2 and shown("limit") == 5
        first.invalidate()
        second.detach()
    assert shown("in_use") == 0
    engine.dispose()
    with engine.connect():
        assert shown("in_use") == 1


def test_a_pool_without_a_bound_has_no_limit(health, metrics):
    engine = sa.create_engine("sqlite://", poolclass=NullPool)
    sqlalchemy(engine, health, metrics)
    with engine.connect():
        snapshot = metrics.snapshot()
    assert snapshot.total("database_connections_in_use") == 1
    assert snapshot.total("database_connections_limit") == 0


def test_a_slow_statement_is_logged_without_its_values(tmp_path, metrics, caplog):
    engine = sa.create_engine("sqlite://")
    sqlalchemy(engine, Health("x"), metrics, slow_s=0.0)
    with caplog.at_level(logging.WARNING), engine.connect() as connection:
        connection.execute(sa.text("SELECT :key"), {"key": "secret"})
    engine.dispose()
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == 1 and said[0].startswith("slow query: select took")


@pytest.mark.integration
def test_the_package_does_not_import_sqlalchemy():
    code = (
        "import sys, mltrading_health, mltrading_health.metrics;"
        "sys.exit('sqlalchemy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
