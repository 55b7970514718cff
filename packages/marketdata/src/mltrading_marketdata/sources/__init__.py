"""Where bars come from. Each kind is a module; `open_source` makes one by its name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from ..errors import SourceError
from .folder import CsvSource, FolderSource, ParquetSource
from .sample import SampleSource
from .source import RawBars, Source

__all__ = [
    "KINDS",
    "CsvSource",
    "FolderSource",
    "ParquetSource",
    "RawBars",
    "SampleSource",
    "Source",
    "now",
    "open_source",
]

KINDS = ("sample", "csv", "parquet", "yahoo", "tiingo", "synthetic")
WAIT_S = 120.0


def now() -> pd.Timestamp:
    """Return this moment, UTC."""
    return pd.Timestamp(datetime.now(UTC))


def open_source(
    kind: str,
    environ: Mapping[str, str],
    *,
    path: str | Path | None = None,
    seed: int = 1,
    wait_s: float = WAIT_S,
) -> Source:
    """Return the source of a kind.

    `path` is the folder of csv and parquet, `seed` that of synthetic. `wait_s`: how
    long a provider that is busy or asks to wait is asked again, per symbol. Raises
    SourceError where it lacks something: a folder, a package, a key.
    """
    if kind == "sample":
        return SampleSource()
    if kind in ("csv", "parquet"):
        if path is None:
            raise SourceError(f"the {kind} source reads a folder", "--path DIR")
        return CsvSource(path) if kind == "csv" else ParquetSource(path)
    if kind == "yahoo":
        from .yahoo import YahooSource

        return YahooSource(now=now, within_s=wait_s)
    if kind == "tiingo":
        from .tiingo import TiingoSource

        return TiingoSource(environ, within_s=wait_s)
    if kind == "synthetic":
        from .synthetic import SyntheticSource

        return SyntheticSource(seed, now=now)
    raise SourceError(f'there is no source "{kind}"', f"known: {', '.join(KINDS)}")
