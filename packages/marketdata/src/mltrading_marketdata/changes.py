"""What a write did."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Changed:
    """Count rows by what happened to them; `version` is the stamp afterwards."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    version: int = 0

    @property
    def written(self) -> int:
        """Return the rows that are different from before."""
        return self.inserted + self.updated
