"""The password of a database's role: made here, kept here, never sent.

The host gets a SCRAM verifier, by which PostgreSQL can tell that somebody knows the
password and from which nobody gets it back.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ops.errors import Usage

_ROUNDS = 4096


def verifier(password: str, salt: bytes) -> str:
    """Return what PostgreSQL stores of a password (RFC 5803, SCRAM-SHA-256)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ROUNDS)
    stored = hashlib.sha256(_keyed(salted, b"Client Key")).digest()
    parts = [base64.b64encode(each).decode() for each in (salt, stored)]
    server = base64.b64encode(_keyed(salted, b"Server Key")).decode()
    return f"SCRAM-SHA-256${_ROUNDS}:{parts[0]}${parts[1]}:{server}"


def _keyed(key: bytes, word: bytes) -> bytes:
    return hmac.digest(key, word, "sha256")


def of_url(url: str, variable: str, account: str) -> str:
    """Return the password in a database's address, whose names must be ours.

    Raises:
        Usage: it has another user or database, or no password.
    """
    parts = urlsplit(url)
    fits = parts.username == account and parts.path == f"/{account}"
    password = unquote(parts.password or "")
    if not fits or not re.fullmatch(r"[!-~]{8,}", password):
        raise Usage(
            f"{variable} does not fit the role that is to be made",
            where="the deployer's environment",
            allowed=f"postgresql://{account}:PASSWORD@HOST/{account}, of 8 or more "
            "printable characters",
            next=f"unset {variable}, and one is made",
        )
    return password


def keep(path: Path, variable: str, account: str, where: str) -> str:
    """Return the password in a file of ours, made now if there is none.

    The file is a line for a shell: export VARIABLE='postgresql://…'. It is on the disk
    before a role is made, so that no password is lost.

    Raises:
        Usage: the file holds something else.
    """
    begin = f"export {variable}='"
    if path.exists():
        text = path.read_text().strip()
        if not (text.startswith(begin) and text.endswith("'")):
            raise Usage(
                f"the file does not export {variable}",
                where=str(path),
                next="name another file: --url-file FILE",
            )
        return of_url(text[len(begin) : -1], variable, account)
    password = secrets.token_urlsafe(24)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o600), "w") as file:
        file.write(f"{begin}postgresql://{account}:{password}@{where}/{account}'\n")
        file.flush()
        os.fsync(file.fileno())
    return password
