"""Ways to keep a period of bars in one row, written and read in the same way.

The product's is `chunks`; the others were considered, or are what it replaced. Each
packs the same months of the same series and gives back the same columns.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
from psycopg.adapt import Buffer, Dumper, Loader
from psycopg.pq import Format

from mltrading_marketdata import interval as intervals
from mltrading_marketdata.codec import CODEC, COLUMNS, DTYPES, Columns, encode, gathered

Row = Sequence[Any]


@dataclass(frozen=True)
class Layout:
    """One way: the columns of a table, and how bars become a row and come back."""

    name: str
    types: tuple[str, ...]
    pack: Callable[[Columns], Row]
    unpack: Callable[[Sequence[tuple[int, Row]]], Columns]
    # How PostgreSQL keeps what is too large for a page: as it is, or compressed.
    storage: str = "EXTERNAL"

    @property
    def anywhere(self) -> bool:
        """Say whether SQLite has the types too."""
        return self.types == ("bytea",)


def layouts() -> list[Layout]:
    """Return all of them, the product's first."""
    arrays = ("int8[]", *["float8[]"] * 4, "int8[]")
    return [
        Layout("chunks (codec 2)", ("bytea",), _chunk, _chunks),
        Layout("raw columns", ("bytea",), _raw, _raws),
        Layout("zlib per column (codec 1)", ("bytea",), _zlib, _zlibs),
        Layout("shuffled + lz4", ("bytea",), _lz4, _lz4s),
        Layout("float8[] per column", arrays, _array, _arrays),
        Layout("float8[], pglz", arrays, _array, _arrays, "EXTENDED"),
    ]


def months(bars: Columns) -> list[tuple[int, Columns]]:
    """Return minutes by the number of their month, as the store divides them."""
    return list(intervals.split(bars, "1m"))


def _chunk(bars: Columns) -> Row:
    return (encode(bars),)


def _chunks(rows: Sequence[tuple[int, Row]]) -> Columns:
    return gathered([(n, CODEC, payload) for n, (payload,) in rows])


def _raw(bars: Columns) -> Row:
    return (b"".join(bars[name].astype(DTYPES[name]).data for name in COLUMNS),)


def _raws(rows: Sequence[tuple[int, Row]]) -> Columns:
    def column(payload: bytes, at: int, n: int) -> np.ndarray:
        return np.frombuffer(payload, DTYPES[COLUMNS[at]], n, at * n * 8)

    return _joined([[column(row[0], at, n) for at in range(6)] for n, row in rows])


def _zlib(bars: Columns) -> Row:
    streams = [zlib.compress(bars[name].tobytes(), 6) for name in COLUMNS]
    return (_with_lengths(streams),)


def _zlibs(rows: Sequence[tuple[int, Row]]) -> Columns:
    return _joined(
        [
            [
                np.frombuffer(zlib.decompress(part), DTYPES[name])
                for name, part in zip(COLUMNS, _parts(row[0]), strict=True)
            ]
            for _, row in rows
        ]
    )


def _lz4(bars: Columns) -> Row:
    """Bring the first bytes of all values together, then the second ones."""
    return (
        _with_lengths(
            pa.compress(
                np.ascontiguousarray(bars[name].view("u1").reshape(-1, 8).T).data,
                codec="lz4",
                asbytes=True,
            )
            for name in COLUMNS
        ),
    )


def _lz4s(rows: Sequence[tuple[int, Row]]) -> Columns:
    def column(part: bytes, n: int, name: str) -> np.ndarray:
        flat = pa.decompress(part, n * 8, codec="lz4", asbytes=True)
        shuffled = np.frombuffer(flat, "u1").reshape(8, n)
        return np.ascontiguousarray(shuffled.T).view(DTYPES[name]).reshape(-1)

    return _joined(
        [
            [
                column(part, n, name)
                for name, part in zip(COLUMNS, _parts(row[0]), strict=True)
            ]
            for n, row in rows
        ]
    )


def _with_lengths(streams: Any) -> bytes:
    parts = list(streams)
    return np.array([len(part) for part in parts], "<u4").tobytes() + b"".join(parts)


def _parts(payload: bytes) -> list[bytes]:
    ends = np.cumsum(np.frombuffer(payload, "<u4", 6)).tolist()
    return [payload[24 + start : 24 + end] for start, end in zip([0, *ends], ends)]


def _array(bars: Columns) -> Row:
    return tuple(bars[name] for name in COLUMNS)


def _arrays(rows: Sequence[tuple[int, Row]]) -> Columns:
    return _joined([list(row) for _, row in rows])


def _joined(parts: list[list[np.ndarray]]) -> Columns:
    return {
        name: np.concatenate([part[at] for part in parts])
        for at, name in enumerate(COLUMNS)
    }


# What PostgreSQL sends for an array: dimensions, whether NULLs, type, length, lower
# bound; then each element behind its length. numpy reads and writes that as it stands,
# the best that can be done: psycopg's own way makes a Python object of each number.
_HEAD = np.dtype([(name, ">i4") for name in ("dims", "nulls", "oid", "n", "low")])
_OIDS = {"i": 20, "f": 701}
_ARRAYS = {"i": 1016, "f": 1022}


def _element(kind: str) -> np.dtype:
    return np.dtype([("length", ">i4"), ("value", f">{kind}8")])


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, column: np.ndarray) -> Buffer:
        head = np.array((1, 0, _OIDS[column.dtype.kind], len(column), 1), _HEAD)
        values = np.empty(len(column), _element(column.dtype.kind))
        values["length"], values["value"] = 8, column
        return head.tobytes() + values.tobytes()

    def get_key(self, column: np.ndarray, format: Any) -> Any:
        return (self.cls, column.dtype.kind)

    def upgrade(self, column: np.ndarray, format: Any) -> Dumper:
        dumper = _ArrayDumper(self.cls)
        dumper.oid = _ARRAYS[column.dtype.kind]
        return dumper


class _IntegersLoader(Loader):
    format = Format.BINARY
    kind = "i"

    def load(self, data: Buffer) -> np.ndarray:
        values = np.frombuffer(data, _element(self.kind), offset=_HEAD.itemsize)
        return values["value"].astype(f"<{self.kind}8")


class _FloatsLoader(_IntegersLoader):
    kind = "f"


def teach(connection: psycopg.Connection) -> None:
    """Let a connection send and get numpy's arrays."""
    connection.adapters.register_dumper(np.ndarray, _ArrayDumper)
    connection.adapters.register_loader(_ARRAYS["i"], _IntegersLoader)
    connection.adapters.register_loader(_ARRAYS["f"], _FloatsLoader)
