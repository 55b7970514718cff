"""Keep counts in files that outlive a worker, at the price of two stores to memory.

prometheus-client does the same behind several calls for each value, as it looks on each
whether the process has forked. Here a worker takes its slot once, and what belongs to
one request is written under one lock. The files have prometheus-client's format.
"""

from __future__ import annotations

import functools
import struct
import threading
from pathlib import Path
from typing import Any

from prometheus_client.mmap_dict import MmapedDict, mmap_key

from mltrading_health import slot

_pack = struct.Struct("dd").pack


class _File(MmapedDict):
    """A file of values; it can say where in memory a value is."""

    def place(self, key: str) -> tuple[Any, slice, float]:
        """Return memory, the bytes in it, and the value; 0 if the key is new.

        When the file grows it gets other memory. The one it had shows the same file.
        """
        value, _ = self.read_value(key)
        at = self._positions[key]
        return self._m, slice(at, at + 16), value


class Store:
    """Hold the values of this process in the files of its slot in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        self._files: dict[str, _File] = {}
        self._values: list[Any] = []
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
        for value in self._values:
            self.place(value)

    def add(self, value: Any) -> None:
        """Give a value its place in the files."""
        with self.lock:
            self._values.append(value)
            self.place(value)

    def place(self, value: Any) -> None:
        """Say to a value where in memory it is."""
        file = self._files.get(value.kind)
        if file is None:
            path = self.folder / f"{value.kind}_{slot.current()}.db"
            file = self._files[value.kind] = _File(str(path))
        value.memory, value.bytes, value.value = file.place(value.key)

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
