"""Put the keys of a workflow's job where SSH looks for them, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ops import errors, report

# The variable that holds a file's text, and the file below the home folder.
FILES = {
    "MLTRADING_SSH_PRIVATE_KEY": ".ssh/id_ed25519",
    "MLTRADING_SSH_KNOWN_HOSTS": ".ssh/known_hosts",
}


def install(environ: Mapping[str, str] = os.environ, home: Path | None = None) -> None:
    """Write the files whose text is in the environment; the values are never shown.

    Raises:
        Refused: another file is in the place; it is left as it is.
        Usage: a variable is missing.
    """
    missing = [name for name in FILES if not environ.get(name, "").strip()]
    if missing:
        raise errors.Usage(
            f"{', '.join(missing)} is not set",
            where="the environment",
            allowed="a private key without a passphrase, and lines of known_hosts",
            next="set them for the workflow (docs/how-to/github.md)",
        )
    base = home or Path.home()
    for name, place in FILES.items():
        file = base / place
        text = environ[name].strip().replace("\r\n", "\n") + "\n"
        if file.exists() and file.read_text() != text:
            raise errors.Refused(
                f"{file} is there and is another one",
                allowed="a machine that has none, such as one of a workflow",
                next="on your own machine nothing needs to be put there",
            )
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w") as opened:
            opened.write(text)
        report.step("ok", "keys", f"{name} is in {file}")
