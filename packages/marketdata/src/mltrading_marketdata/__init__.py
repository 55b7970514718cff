"""Bars, symbols and the store that the dashboard and the jobs share.

Importing this package costs nothing: a name is loaded when it is first asked for,
because the deploy step `prepare` must answer before pandas could be imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .access import Limits
    from .changes import Changed
    from .errors import (
        BadData,
        OutOfRange,
        OverBudget,
        PoolExhausted,
        SchemaBehind,
        SourceClosed,
        SourceDown,
        SourceError,
        StoreError,
        Unavailable,
        UnknownSymbol,
    )
    from .hooks import Hooks
    from .ingestion import IngestReport, ingest
    from .provenance import MARK
    from .sources import CsvSource, RawBars, SampleSource, Source
    from .store import Store, open_store
    from .url import redact

__all__ = [
    "MARK",
    "BadData",
    "Changed",
    "CsvSource",
    "Hooks",
    "IngestReport",
    "Limits",
    "OutOfRange",
    "OverBudget",
    "PoolExhausted",
    "RawBars",
    "SampleSource",
    "SchemaBehind",
    "Source",
    "SourceClosed",
    "SourceDown",
    "SourceError",
    "Store",
    "StoreError",
    "Unavailable",
    "UnknownSymbol",
    "ingest",
    "open_store",
    "redact",
]

_HOME = {
    "access": ["Limits"],
    "changes": ["Changed"],
    "errors": [
        "BadData",
        "OutOfRange",
        "OverBudget",
        "PoolExhausted",
        "SchemaBehind",
        "SourceClosed",
        "SourceDown",
        "SourceError",
        "StoreError",
        "Unavailable",
        "UnknownSymbol",
    ],
    "hooks": ["Hooks"],
    "ingestion": ["IngestReport", "ingest"],
    "provenance": ["MARK"],
    "sources": ["CsvSource", "RawBars", "SampleSource", "Source"],
    "store": ["Store", "open_store"],
    "url": ["redact"],
}


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
