"""Turn columns into the bytes of one chunk, and back.

Codec 2, all little-endian. Head: number of columns and of rows (uint32 each), CRC-32 of
all that follows. Then 16 bytes per column: kind, width, digits, unit (uint8 each), four
spare bytes, base (int64). Then the values of each column, one after the other.

    kind 0   value = (base + u) * UNITS[unit] / 10**digits, u unsigned of `width` bytes;
             width 0: no bytes follow, all values are the base
    kind 1   float32, where that loses nothing (width 4)
    kind 2   float64 (width 8)

Prices are decimals that somebody has printed: 12.34 is the integer 1234 and two digits,
and dividing gives back the very float64, since both are the one nearest to 12.34.
Within a month or a year they lie close together, so two bytes are often enough: some 14
bytes per bar without a compressor, which is less than compressed floats take, and
widening integers is as fast as copying. `encode` proves each column by turning it back.

A person reads the same bytes in SQL: the view `bars` on PostgreSQL decodes them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from .errors import Unavailable

Columns = dict[str, np.ndarray]

COLUMNS = ("ts", "open", "high", "low", "close", "volume")
DTYPES = {name: np.dtype("<f8") for name in COLUMNS} | {
    "ts": np.dtype("<i8"),
    "volume": np.dtype("<i8"),
}
CODEC = 2
# What all values of a column of whole numbers may be a multiple of: round lots, and the
# microseconds of a second, minute, five minutes, hour and day.
UNITS = (1, 100, 10**6, 60 * 10**6, 300 * 10**6, 3600 * 10**6, 86_400 * 10**6)
_DIGITS = (0, 2, 4, 6, 8)
_HEAD = struct.Struct("<III")
_COLUMN = struct.Struct("<BBBBxxxxq")
_WHOLE, _SINGLE, _DOUBLE = range(3)
_EXACT = 2.0**53
_UNSIGNED = {width: np.dtype(f"<u{width}") for width in (1, 2, 4, 8)}


def encode(columns: Mapping[str, np.ndarray]) -> bytes:
    """Return the payload of one chunk.

    The columns, int64 or float64 of one length, keep the order of the mapping.
    """
    rows = len(next(iter(columns.values())))
    floats = [name for name, column in columns.items() if column.dtype.kind == "f"]
    # Prices mostly share their number of digits: proved together, they cost as one.
    together = np.stack([columns[name] for name in floats]) if floats and rows else None
    found = _decimals(together) if together is not None else None
    packed = dict(zip(floats, found or (), strict=False))
    described, values = [], []
    for name, column in columns.items():
        kind, width, digits, unit, base, data = packed.get(name) or _packed(column)
        described.append(_COLUMN.pack(kind, width, digits, unit, base))
        values.append(data)
    body = b"".join([*described, *values])
    return _HEAD.pack(len(described), rows, zlib.crc32(body)) + body


_Packed = tuple[int, int, int, int, int, bytes]


def _packed(column: np.ndarray) -> _Packed:
    """Return (kind, width, digits, unit, base, bytes) of one column."""
    if not len(column):
        return _WHOLE, 0, 0, 0, 0, b""
    if column.dtype.kind == "i":
        return _whole(column)
    found = _decimals(column[np.newaxis])
    if found:
        return found[0]
    with np.errstate(over="ignore"):
        single = column.astype("<f4")
    if np.array_equal(single.astype("<f8"), column, equal_nan=True):
        return _SINGLE, 4, 0, 0, 0, single.tobytes()
    return _DOUBLE, 8, 0, 0, 0, np.ascontiguousarray(column, "<f8").tobytes()


def _whole(column: np.ndarray) -> _Packed:
    largest_first = reversed(range(len(UNITS)))
    unit = next(at for at in largest_first if _multiples(column, UNITS[at]))
    whole = column // UNITS[unit] if unit else column
    base = int(whole.min())
    reach = int(whole.max()) - base
    if reach >= 2**63:
        raise OverflowError("a column of whole numbers spans more than 2**63")
    width = _width(reach)
    return _WHOLE, width, 0, unit, base, _bytes(whole - base, width)


def _multiples(column: np.ndarray, size: int) -> bool:
    # Most columns fail at their first value.
    if size == 1 or column[0] % size:
        return size == 1
    return not (column % size).any()


def _decimals(columns: np.ndarray) -> list[_Packed] | None:
    """Return columns, shape (k, n), as whole numbers of one number of digits.

    None where some value of some column has more digits than are tried, or is none.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        for digits in _DIGITS:
            # No test of its own for NaN and infinity: they compare as different.
            if np.rint(columns[0, 0] * 10.0**digits) / 10.0**digits != columns[0, 0]:
                continue
            scaled = columns * 10.0**digits
            np.rint(scaled, out=scaled)
            if (scaled / 10.0**digits == columns).all():
                break
        else:
            return None
    low, high = scaled.min(axis=1), scaled.max(axis=1)
    if max(-low.min(), high.max()) >= _EXACT:
        return None
    scaled -= low[:, np.newaxis]
    found = []
    for at, base in enumerate(low.tolist()):
        width = _width(int(high[at] - base))
        data = _bytes(scaled[at], width)
        found.append((_WHOLE, width, digits, 0, int(base), data))
    return found


def _width(reach: int) -> int:
    return next(width for width in (0, 1, 2, 4, 8) if reach < 256**width)


def _bytes(offsets: np.ndarray, width: int) -> bytes:
    return offsets.astype(_UNSIGNED[width]).tobytes() if width else b""


def decode(
    payload: bytes, codec: int, names: Sequence[str], into: Mapping[str, np.ndarray]
) -> None:
    """Write the columns of one chunk that `into` asks for into its arrays.

    `names` are those of all columns of the payload, in order; the arrays, int64 or
    float64, have as many elements as the chunk has rows. Raises Unavailable for a codec
    that this release does not know and for bytes that are damaged.
    """
    if codec != CODEC:
        raise Unavailable(
            f"chunk codec {codec} is not known to this release (it knows {CODEC})",
            "deploy the release that wrote it, or restore a backup",
        )
    try:
        count, rows, crc = _HEAD.unpack_from(payload)
        if crc != zlib.crc32(memoryview(payload)[_HEAD.size :]) or count != len(names):
            raise ValueError("its checksum is wrong")
        start = _HEAD.size + count * _COLUMN.size
        for at, name in enumerate(names):
            kind, width, digits, unit, base = _COLUMN.unpack_from(
                payload, _HEAD.size + at * _COLUMN.size
            )
            if name in into:
                _unpack(payload, start, rows, kind, width, base, into[name])
                if digits:
                    into[name] /= 10.0**digits
                elif unit:
                    into[name] *= UNITS[unit]
            start += rows * width
    except (struct.error, ValueError, KeyError, IndexError, TypeError) as error:
        raise Unavailable(f"a chunk is damaged: {error}", "restore a backup") from error


def _unpack(
    payload: bytes,
    start: int,
    rows: int,
    kind: int,
    width: int,
    base: int,
    out: np.ndarray,
) -> None:
    if kind == _WHOLE and not width:
        out[...] = base
        return
    dtype = _UNSIGNED[width] if kind == _WHOLE else np.dtype(f"<f{width}")
    # Wider than its source, but for u8 into i8, whose offsets are below 2**63.
    np.copyto(out, np.frombuffer(payload, dtype, rows, start), casting="unsafe")
    if kind == _WHOLE and base:
        out += base


def gathered(
    chunks: Sequence[tuple[int, int, bytes]],
    names: Sequence[str] = COLUMNS,
    wanted: Collection[str] = COLUMNS,
) -> Columns:
    """Return chunks, (rows, codec, payload) each, as one set of new columns."""
    total = sum(rows for rows, _, _ in chunks)
    found: Columns = {
        name: np.empty(total, DTYPES.get(name, np.dtype("<f8")))
        for name in names
        if name in wanted
    }
    at = 0
    for rows, codec, payload in chunks:
        part = {name: column[at : at + rows] for name, column in found.items()}
        decode(payload, codec, names, part)
        at += rows
    return found
