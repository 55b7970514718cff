"""Keep a token in the runtime folder: who may read the folder may read the details.

A master makes a new one when it starts. It is never in an environment, an argument or a
log.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

FILE = "token"
GOOD = re.compile(r"[!-~]{16,256}")
WANTED = "16 to 256 visible ASCII characters, none of them a space"


def write(folder: Path) -> None:
    """Put a new token into a folder, for its owner only; replace one that is there.

    Raises OSError where the folder can't be written to.
    """
    new = folder / f".{FILE}.{os.getpid()}"
    new.unlink(missing_ok=True)
    # The mode is given when the file is made: it is at no moment open to others.
    door = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(door, "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    new.replace(folder / FILE)


def read(folder: Path) -> str:
    """Return the token in a folder, "" where there is none that is good."""
    try:
        with (folder / FILE).open(encoding="ascii") as file:
            found = file.read(512).strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return found if GOOD.fullmatch(found) else ""
