"""DATABASE_URL: read, refused, and never shown with its password."""

from urllib.parse import quote

import pytest

from mltrading_marketdata import StoreError, redact
from mltrading_marketdata.url import parse


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_is_one(scheme):
    address = parse(f"{scheme}://u:p@db.example:6543/market")
    assert address.sqlalchemy == "postgresql+psycopg://u:p@db.example:6543/market"
    assert address.where == "db.example:6543/market"


def test_sqlite_paths_are_relative_or_absolute():
    assert str(parse("sqlite:///test.db").path) == "test.db"
    assert str(parse("sqlite:////var/test.db").path) == "/var/test.db"


@pytest.mark.parametrize("path", ["/var/a b%20c.db", "x?y.db"])
def test_odd_paths_survive_the_round_trip(path):
    address = parse(f"sqlite:///{quote(path)}")
    assert parse(address.sqlalchemy) == address and str(address.path) == path


@pytest.mark.parametrize(
    "url", ["", "sqlite://", "sqlite:///:memory:", "mysql://h/x", "postgres://h:x/d"]
)
def test_what_cannot_be_read_is_refused_with_an_example(url):
    with pytest.raises(StoreError) as caught:
        parse(url)
    assert "sqlite:///path" in caught.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "postgres://me:s3cret@h/d",
        "postgres://me:s3cret@x@h:5/d?sslmode=require",
        "postgres://me:s3cret/x@h/d",
        "postgres://h/d?user=me&password=s3cret",
    ],
)
def test_a_password_is_stars(url):
    assert "s3cret" not in redact(url) and "***" in redact(url)
    assert "s3cret" not in repr(parse("postgres://me:s3cret@h/d"))


def test_the_tools_get_the_password_in_their_environment():
    found = parse("postgres://me:a%2Fb@h:5/d", require_tls=True).environment
    assert found == {
        "PGHOST": "h",
        "PGPORT": "5",
        "PGUSER": "me",
        "PGPASSWORD": "a/b",
        "PGDATABASE": "d",
        "PGSSLMODE": "require",
    }


def test_an_explicit_sslmode_is_kept():
    address = parse("postgres://h/d?sslmode=verify-full", require_tls=True)
    assert address.environment["PGSSLMODE"] == "verify-full"
