"""Choose one of several workers: whoever holds the lock of a file.

The kernel frees the lock when its holder ends, however it ends, and gives it to one of
those who wait. There is no time to live to tune and no heart to beat.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path


class Seat:
    """Hold a place that one process of a folder can have."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    @property
    def taken(self) -> bool:
        """Tell whether this process sits here."""
        return self._fd is not None

    def take(self, *, wait: bool = True) -> bool:
        """Take the seat; wait for it, or say whether it was free.

        Raises:
            OSError: the file can't be made, or its file system knows no locks.
        """
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(fd)
            return False
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        # Who sits here, for people; nobody decides by it, and on a full disk nobody
        # can read it.
        with contextlib.suppress(OSError):
            os.truncate(fd, 0)
            os.write(fd, f"{os.getpid()}\n".encode())
        return True

    def leave(self) -> None:
        """Give the seat to whoever waits."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
