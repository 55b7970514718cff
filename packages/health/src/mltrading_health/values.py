"""Keep counts in files that outlive a worker, at the price of two stores to memory.

prometheus-client does the same behind several calls for each value, as it looks on each
whether the process has forked. Here a worker takes its slot once, and what belongs to
one request is written under one lock. The files have prometheus-client's format.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import struct
import threading
from pathlib import Path
from typing import Any

from prometheus_client.mmap_dict import MmapedDict, mmap_key

from mltrading_health import slot

log = logging.getLogger(__name__)
#: Bytes of a file at the beginning; it doubles when they do not suffice.
FIRST_SIZE = 1 << 16
# What an entry needs beside its key: its length, what fills it up, value and time.
_BESIDE = 4 + 8 + 16
_pack = struct.Struct("dd").pack


class _File(MmapedDict):
    """A file of values; it can say where in memory a value is.

    Its room on the disk is its own before anything is written: a write to memory behind
    which there is a hole fills the hole, and if the disk is full by then the kernel
    ends the process (SIGBUS). Raises OSError where there is no room.
    """

    def __init__(self, path: Path) -> None:
        reserve(path, FIRST_SIZE)
        super().__init__(str(path))

    def _init_value(self, key: str) -> None:
        size, needed = self._capacity, self._used + len(key.encode()) + _BESIDE
        while size < needed:
            size *= 2
        if size > self._capacity:
            reserve(Path(self._fname), size)
        super()._init_value(key)

    def place(self, key: str) -> tuple[Any, slice, float]:
        """Return memory, the bytes in it, and the value; 0 if the key is new.

        When the file grows it gets other memory. The one it had shows the same file.
        """
        value, _ = self.read_value(key)
        at = self._positions[key]
        return self._m, slice(at, at + 16), value


def reserve(path: Path, size: int) -> None:
    """Make a file this long, with room for all of it on its disk.

    Raises OSError where there is none.
    """
    door = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if os.fstat(door).st_size < size and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(door, 0, size)
    except OSError as error:
        # There are disks that can't promise room.
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
    finally:
        os.close(door)


class Store:
    """Hold the values of this process in the files of its slot in ``folder``.

    What finds no room on the disk is counted where nobody else sees it, until `settle`
    finds some: metrics must not end what they are about.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        self._files: dict[str, _File] = {}
        self._values: list[Any] = []
        self._homeless: list[Any] = []
        self._told = False
        slot.taken.append(self.move)

    def move(self) -> None:
        """Go on in the files of the slot that this process has taken.

        Called when a worker begins: no thread of it counts yet, and whoever held the
        lock has stayed in the process that forked.
        """
        self.lock = threading.Lock()
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._homeless.clear()
        for value in self._values:
            self.place(value)

    def add(self, value: Any) -> None:
        """Give a value its place in the files."""
        with self.lock:
            self._values.append(value)
            self.place(value)

    def place(self, value: Any) -> None:
        """Say to a value where in memory it is."""
        try:
            file = self._files.get(value.kind)
            if file is None:
                path = self.folder / f"{value.kind}_{slot.current()}.db"
                file = self._files[value.kind] = _File(path)
            found = file.place(value.key)
        except OSError as error:
            self._homeless.append(value)
            found = bytearray(16), slice(0, 16), 0.0
            if not self._told:
                log.error("metrics are not kept for now: %s", error.strerror)
            self._told = True
        value.memory, value.bytes, value.value = found

    def settle(self) -> None:
        """Look for room again for what found none; cheap where that is nothing."""
        if not self._homeless:
            return
        with self.lock:
            waiting, self._homeless = self._homeless, []
            for number, value in enumerate(waiting, 1):
                counted = value.value
                self.place(value)
                # A gauge of this process is what it is now; a count goes on.
                before = 0.0 if value.kind.startswith("gauge") else value.value
                value.value = before + counted
                value.memory[value.bytes] = _pack(value.value, 0.0)
                if self._homeless:
                    self._homeless += waiting[number:]
                    return
            self._told = False

    def answered(
        self, count: Any, total: Any, bucket: Any, gauge: Any, seconds: float
    ) -> None:
        """Count one answer and its time, and one less in progress.

        Written out four times, as a loop or a call for each costs as much again.
        """
        with self.lock:
            count.value = now = count.value + 1.0
            count.memory[count.bytes] = _pack(now, 0.0)
            bucket.value = now = bucket.value + 1.0
            bucket.memory[bucket.bytes] = _pack(now, 0.0)
            total.value = now = total.value + seconds
            total.memory[total.bytes] = _pack(now, 0.0)
            gauge.value = now = gauge.value - 1.0
            gauge.memory[gauge.bytes] = _pack(now, 0.0)


@functools.cache
def stored(folder: Path) -> type:
    """Return the class of values that prometheus-client's metrics are to be made of."""
    store = Store(folder)

    class Value:
        """A number in a file, as prometheus-client asks for one."""

        __slots__ = ("kind", "key", "memory", "bytes", "value")
        _multiprocess = True
        of = store

        def __init__(
            self,
            typ: str,
            metric_name: str,
            name: str,
            labelnames: Any,
            labelvalues: Any,
            help_text: str,
            multiprocess_mode: str = "",
            **more: Any,
        ) -> None:
            self.kind = f"{typ}_{multiprocess_mode}" if typ == "gauge" else typ
            self.key = mmap_key(metric_name, name, labelnames, labelvalues, help_text)
            store.add(self)

        def inc(self, amount: float) -> None:
            with store.lock:
                self.value = now = self.value + amount
                self.memory[self.bytes] = _pack(now, 0.0)

        def set(self, value: float, timestamp: float | None = None) -> None:
            with store.lock:
                self.value = value
                self.memory[self.bytes] = _pack(value, timestamp or 0.0)

        def get(self) -> float:
            return self.value

        def set_exemplar(self, exemplar: object) -> None:
            """Forget it: the files have no place for one."""

        def get_exemplar(self) -> None:
            """Return none."""

    return Value
