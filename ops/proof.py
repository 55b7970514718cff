"""What was found of an artefact, kept beside it and sealed.

`dist/<artefact>/gates.proof` says which gates were green for it, `passed-staging.proof`
that staging passed it. The seal is an HMAC under `MLTRADING_PROOF_KEY`, which jobs on
different machines may share, else under a key of this user. It shows that a proof was
changed or made by hand; it is no defence against whoever has the key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops import environment as environments
from ops.errors import Refused

SHARED = "MLTRADING_PROOF_KEY"


def keep(
    folder: Path,
    name: str,
    words: Mapping[str, Any],
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Write what was found of the artefact in a folder of dist/."""
    said = dict(words)
    said["seal"] = seal(said, _key(environ))
    text = json.dumps(said, indent=1, sort_keys=True) + "\n"
    scratch = folder / f".{name}-{os.getpid()}"
    scratch.write_text(text)
    os.replace(scratch, _path(folder, name))


def found(
    folder: Path, name: str, environ: Mapping[str, str] = os.environ
) -> dict[str, Any] | None:
    """Return what was found of an artefact, None where nothing was.

    Raises:
        Refused: the proof was changed, or sealed with another key.
    """
    path = _path(folder, name)
    try:
        said = dict(json.loads(path.read_text()))
        sealed = str(said.pop("seal"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(
            f"a proof can't be read: {error}", where=str(path), next=f"rm {path}"
        ) from None
    if not hmac.compare_digest(sealed, seal(said, _key(environ))):
        raise Refused(
            "a proof was changed, or made where another key seals",
            where=str(path),
            allowed=f"a proof sealed under {SHARED}, or made by this user here",
            next=f"set {SHARED} alike where it is made and where it is used",
        )
    return said


def forget(folder: Path, name: str) -> bool:
    """Remove a proof; False where there was none."""
    try:
        _path(folder, name).unlink()
    except FileNotFoundError:
        return False
    return True


def seal(words: Mapping[str, Any], key: bytes) -> str:
    """Return the seal of some words under a key."""
    text = json.dumps(dict(words), sort_keys=True).encode()
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def own_key(path: Path) -> bytes:
    """Return this user's key in a file, made when there is none yet."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = path.with_name(f".key-{secrets.token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(scratch, flags, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            # Of two that make the key at once the first one wins.
            os.link(scratch, path)
        except FileExistsError:
            pass
        finally:
            scratch.unlink()
        return path.read_bytes()


def _key(environ: Mapping[str, str]) -> bytes:
    shared = environ.get(SHARED, "")
    return (
        shared.encode() if shared else own_key(environments.state_home() / "proof.key")
    )


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.proof"
