"""What a source of bars is. It answers or raises SourceError; it never shrugs.

Dates: a daily bar of a source is stamped 00:00 UTC of its session date, whatever time
zone the exchange is in. An intraday time carries its zone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import pandas as pd

from ..adjustment import Action


@dataclass(frozen=True)
class RawBars:
    """One answer about one symbol.

    `frame`: bars as traded (UTC index; open, high, low, close, volume), `actions`: the
    splits and dividends known in that range, `about`: those of name, exchange,
    currency, sector and industry that the source knows.
    """

    frame: pd.DataFrame
    actions: list[Action] = field(default_factory=list)
    about: Mapping[str, str] = field(default_factory=dict)


class Source(Protocol):
    """What `ingest` needs of a source.

    `name` is stored with the bars; `provenance` is what people are told about them.
    `whole`: asking costs so little that everything is compared each time; elsewhere
    only what came after the last stored bar is asked for.
    """

    name: str
    provenance: str
    whole: bool

    def symbols(self) -> list[str]:
        """Return all symbols that there are; SourceError where they can't be listed."""

    def earliest(self, interval: str) -> pd.Timestamp | None:
        """Return the time before which there is nothing to be had; None: no such."""

    def fetch(
        self,
        symbol: str,
        interval: str,
        start: pd.Timestamp | None,
        end: pd.Timestamp | None,
    ) -> RawBars:
        """Return the bars with start <= ts <= end.

        An empty frame only where the source itself says that there are none. Raises
        SourceError for no answer, SourceDown for one that did not come, SourceClosed
        where nothing else can be asked either (its limit, its key).
        """


def cut(
    frame: pd.DataFrame, start: pd.Timestamp | None, end: pd.Timestamp | None
) -> pd.DataFrame:
    """Return the rows with start <= index <= end."""
    if start is not None:
        frame = frame[frame.index >= start]
    if end is not None:
        frame = frame[frame.index <= end]
    return frame
