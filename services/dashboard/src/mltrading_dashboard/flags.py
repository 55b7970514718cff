"""What an environment has switched on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Flags:
    """One field per flag; what a closed one covers is in no menu and answers 404."""

    comparison_mode: bool = False

    def opens(self, page: str) -> bool:
        """Return whether a page is there at all."""
        return page != "compare" or self.comparison_mode
