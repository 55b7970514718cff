"""DATABASE_SSL_REQUIRE against a server with TLS and one without."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mltrading_marketdata import StoreError, Unavailable, open_store
from mltrading_marketdata.url import parse

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
def certificate(cluster) -> tuple[str, str]:
    """Return the settings for a certificate of our own making, and its file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    today = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), False
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = made.public_bytes(serialization.Encoding.PEM)
    owner = cluster.data.stat()
    for file, content in (("server.key", private), ("server.crt", public)):
        path = cluster.data / file
        path.write_bytes(content)
        path.chmod(0o600)
        os.chown(path, owner.st_uid, owner.st_gid)
    return "ssl=on", str(cluster.data / "server.crt")


@contextmanager
def reading(url: str, **options: bool) -> Iterator[bool]:
    """Yield whether the connection of a store is encrypted."""
    with open_store(url, **options) as store:
        yield store._access.read(lambda c: c.exec_driver_sql(USES_TLS).scalar())


@SERVER
def test_what_is_required_is_used(over_tcp, certificate):
    settings, _ = certificate
    with reading(over_tcp(settings), require_tls=True) as encrypted:
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
def test_a_certificate_is_verified_where_the_url_says_so(over_tcp, certificate):
    settings, file = certificate
    url = f"{over_tcp(settings)}?sslmode=verify-full&sslrootcert="
    with reading(url + file, require_tls=True) as encrypted:
        assert encrypted is True
    other = file.replace(".crt", ".other")
    os.replace(file, other)
    with pytest.raises(Unavailable, match="certificate"):
        with reading(url + file, require_tls=True):
            pass


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_a_url_that_does_without_it_is_refused_where_it_is_required(mode):
    with pytest.raises(StoreError, match=f"sslmode={mode}, but DATABASE_SSL_REQUIRE"):
        open_store(f"postgresql://h/d?sslmode={mode}", require_tls=True)
