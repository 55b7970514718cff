"""Certificates of our own making, for servers of the tests that speak TLS."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path


def make(folder: Path, address: str) -> tuple[Path, Path]:
    """Write a key and a certificate for an IP address; return (certificate, key).

    They are good for a day, signed by nobody else, and belong to the folder's owner.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, address)])
    today, day = datetime.now(UTC), timedelta(days=1)
    own = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - day)
        .not_valid_after(today + day)
        .add_extension(own, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = made.public_bytes(serialization.Encoding.PEM)
    owner = folder.stat()
    written = folder / "server.crt", folder / "server.key"
    for path, content in zip(written, (public, private), strict=True):
        path.touch(0o600)
        path.write_bytes(content)
        os.chown(path, owner.st_uid, owner.st_gid)
    return written
