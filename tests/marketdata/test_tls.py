"""DATABASE_SSL_REQUIRE against a server with TLS and one without."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from mltrading_marketdata import StoreError, Unavailable, open_store
from mltrading_marketdata.url import parse
from tests import certificates
from tests.postgres import with_tls

SERVER = pytest.mark.integration
HOST = "127.0.0.1"
USES_TLS = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.fixture
def over_tcp(cluster, postgres_url) -> Iterator[Callable[..., str]]:
    """Let the server listen on loopback, with settings; return the URL for it."""
    with psycopg.connect(postgres_url, autocommit=True) as c:
        c.execute("CREATE ROLE by_tcp LOGIN PASSWORD 'hush'")
    rules = cluster.data / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"{before}host all by_tcp {HOST}/32 scram-sha-256\n")

    def listen(*settings: str) -> str:
        cluster.restart(f"listen_addresses={HOST}", *settings)
        name = parse(postgres_url).where.rpartition("/")[2]
        return f"postgresql://by_tcp:hush@{HOST}:{cluster.port}/{name}"

    yield listen
    rules.write_text(before)
    cluster.restart()
    with psycopg.connect(postgres_url, autocommit=True) as c:
        c.execute("DROP ROLE by_tcp")


@pytest.fixture
def certificate(cluster, postgres_url) -> tuple[list[str], Path]:
    """Return the settings for a certificate of our own making, and its file."""
    with psycopg.connect(postgres_url) as c:
        library = c.execute("SHOW ssl_library").fetchone()
    assert library != ("",), "this PostgreSQL has no TLS; `inv setup` brings Debian's"
    file, key = certificates.make(cluster.data, HOST)
    return with_tls(file, key), file


@contextmanager
def reading(url: str, **options: bool) -> Iterator[bool]:
    """Yield whether the connection of a store is encrypted."""
    with open_store(url, **options) as store:
        yield store._access.read(lambda c: c.exec_driver_sql(USES_TLS).scalar())


@SERVER
def test_what_is_required_is_used(over_tcp, certificate):
    settings, _ = certificate
    with reading(over_tcp(*settings), require_tls=True) as encrypted:
        assert encrypted is True


@SERVER
def test_a_server_without_it_is_refused_where_it_is_required(over_tcp):
    url = over_tcp()
    with pytest.raises(Unavailable, match="has no TLS, which is required") as caught:
        with reading(url, require_tls=True):
            pass
    assert "DATABASE_SSL_REQUIRE" in caught.value.hint
    with reading(url) as encrypted:
        assert encrypted is False


@SERVER
def test_a_certificate_is_verified_where_the_url_says_so(
    over_tcp, certificate, tmp_path
):
    settings, file = certificate
    url = f"{over_tcp(*settings)}?sslmode=verify-full&sslrootcert="
    with reading(f"{url}{file}", require_tls=True) as encrypted:
        assert encrypted is True
    (tmp_path / "other").mkdir()
    other, _ = certificates.make(tmp_path / "other", HOST)
    with pytest.raises(Unavailable, match="certificate that is not trusted"):
        with reading(f"{url}{other}", require_tls=True):
            pass


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_a_url_that_does_without_it_is_refused_where_it_is_required(mode):
    with pytest.raises(StoreError, match=f"sslmode={mode}, but DATABASE_SSL_REQUIRE"):
        open_store(f"postgresql://h/d?sslmode={mode}", require_tls=True)
