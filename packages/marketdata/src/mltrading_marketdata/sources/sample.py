"""The bars that come with this package."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import pandas as pd

from ..errors import SourceError
from .folder import described, raw_bars, read_csv, read_symbols
from .source import RawBars

FOLDER = Path(__file__).parent.parent / "sample"


class SampleSource:
    """Real daily bars of five US shares, 2000-03-01 to 2013-03-01."""

    name = "sample"
    provenance = "sample"
    whole = True

    @cached_property
    def _bars(self) -> pd.DataFrame:
        return read_csv(FOLDER / "bars.csv.gz")

    @cached_property
    def _about(self) -> pd.DataFrame:
        return read_symbols(FOLDER / "symbols.csv")

    def symbols(self) -> list[str]:
        """Return the five symbols."""
        return list(self._about.index)

    def earliest(self, interval: str) -> pd.Timestamp | None:
        """Return None: all there is may be asked for."""
        return None

    def fetch(
        self,
        symbol: str,
        interval: str,
        start: pd.Timestamp | None,
        end: pd.Timestamp | None,
    ) -> RawBars:
        """Return the daily bars of one symbol."""
        if interval != "1d":
            raise SourceError(
                f"the sample has daily bars only, not {interval}", "leave --interval 1d"
            )
        rows = self._bars[self._bars["symbol"] == symbol]
        if rows.empty:
            offered = ", ".join(self.symbols())
            raise SourceError(f"the sample has no {symbol}", f"there is: {offered}")
        about = described(self._about, symbol)
        return raw_bars(rows, f"sample {symbol}", start, end, about=about)
