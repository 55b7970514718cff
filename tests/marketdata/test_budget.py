"""Whether the connections of a release fit into the server, by numbers and for real."""

import os
import subprocess
import sys

import psycopg
import pytest

from mltrading_marketdata import Limits, OverBudget, StoreError, open_store
from mltrading_marketdata.budget import WEB, Demand, Room, check, demand, judge, observe
from mltrading_marketdata.url import parse

RELEASE = {"DATABASE_POOL_SIZE": "20", "WEB_THREADS": "4", "WEB_WORKERS": "2"}


def test_a_worker_never_has_more_connections_than_threads():
    assert demand(RELEASE).each == 4
    assert demand(RELEASE | {"DATABASE_POOL_SIZE": "3"}).each == 3


def test_two_releases_on_every_host_are_counted():
    assert demand(RELEASE).most == 16
    assert demand(RELEASE | {"MLTRADING_HOSTS": "3"}).most == 48


@pytest.mark.parametrize("name", RELEASE)
def test_a_release_that_does_not_say_is_not_judged(name):
    assert demand(RELEASE | {name: ""}) is None


@pytest.mark.parametrize("value", ["many", "0", "-1", "1.5"])
def test_a_number_that_is_none_is_refused_by_name(value):
    with pytest.raises(StoreError, match="WEB_THREADS is "):
        demand(RELEASE | {"WEB_THREADS": value})


@pytest.mark.parametrize(
    ("room", "left"),
    [
        (Room(100, 3, 0), 97),
        (Room(100, 3, 90), 7),
        (Room(100, 3, 120), 0),
        (Room(100, 3, 5, role_maximum=20, role_others=5), 15),
        (Room(100, 3, 5, database_maximum=30, database_others=1), 29),
    ],
)
def test_the_tightest_limit_counts(room, left):
    assert room.left == left


def test_what_fits_is_one_line_with_the_numbers():
    said = judge(Demand(20, 4, 2, 3), Room(100, 3, 12), "db/market")
    assert "4 connections a worker x 2 workers x 3 hosts x 2 releases = 48" in said
    assert "85 are left" in said and "max_connections 100" in said


def test_what_does_not_fit_says_what_to_change():
    with pytest.raises(OverBudget) as caught:
        judge(Demand(20, 8, 2, 3), Room(100, 3, 12), "db/market")
    assert "has 85 connections left" in str(caught.value)
    assert "= 96" in str(caught.value)
    assert caught.value.hint == (
        "set DATABASE_POOL_SIZE to at most 7, or set WEB_WORKERS to at most 1, "
        "or raise max_connections of the server by 11"
    )


def test_no_pool_is_small_enough_for_a_full_server():
    with pytest.raises(OverBudget) as caught:
        judge(Demand(20, 8, 2), Room(20, 3, 15), "db/market")
    assert caught.value.hint == "raise max_connections of the server by 30"


@pytest.mark.integration
def test_the_server_tells_its_limits_and_who_is_there(cluster, postgres_url):
    before = observe(parse(postgres_url))
    assert (before.maximum, before.reserved) == (100, 3)
    with (
        psycopg.connect(cluster.url),
        open_store(postgres_url, Limits(pool_size=1), application=WEB) as web,
    ):
        web.ping()
        after = observe(parse(postgres_url))
    # The stranger counts, the worker is of ours: it is in the demand.
    assert after.others == before.others + 1
    assert after.database_others == before.database_others


@pytest.mark.integration
def test_the_limit_of_a_role_is_seen_by_that_role(cluster, postgres_url):
    with psycopg.connect(postgres_url, autocommit=True) as c:
        c.execute("CREATE ROLE small LOGIN CONNECTION LIMIT 10")
        try:
            own = parse(postgres_url.replace("postgres@", "small@"))
            with pytest.raises(OverBudget, match="the role may have 10"):
                check(own, demand(RELEASE))
            assert observe(own).others >= 1
        finally:
            c.execute("DROP ROLE small")


def test_sqlite_has_no_such_limit(sqlite_url):
    assert check(parse(sqlite_url), demand(RELEASE)) == ""


@pytest.mark.integration
def test_prepare_refuses_before_it_changes_anything(cluster, postgres_empty_url):
    url, release = postgres_empty_url, RELEASE | {"MLTRADING_HOSTS": "9"}
    environ = {"PATH": os.environ["PATH"], "DATABASE_URL": url} | release
    done = subprocess.run(
        [sys.executable, "-m", "mltrading_marketdata", "prepare", "--json"],
        env=environ, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, '"kind": "OverBudget"' in done.stdout) == (1, True)
    assert "= 144" in done.stderr and "hint: set DATABASE_POOL_SIZE" in done.stderr
    with psycopg.connect(url) as c:
        assert not c.execute(
            "SELECT 1 FROM pg_tables WHERE tablename = 'meta'"
        ).rowcount
