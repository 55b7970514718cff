"""Merge new bars into the bars of one chunk. Pure."""

from __future__ import annotations

import numpy as np

from .codec import COLUMNS, Columns


def merge(old: Columns, new: Columns) -> tuple[Columns, int, int, int]:
    """Return (merged, inserted, updated, unchanged).

    Both sides have unique ascending `ts`; on equal `ts` the new bar wins. Nothing
    inserted and nothing updated means that `merged` is `old`.
    """
    if not len(old["ts"]) or not len(new["ts"]):
        return (new if len(new["ts"]) else old), len(new["ts"]), 0, 0
    if new["ts"][0] > old["ts"][-1]:
        # The next day's bars, which is what mostly comes.
        longer = {name: np.concatenate([old[name], new[name]]) for name in COLUMNS}
        return longer, len(new["ts"]), 0, 0
    at = np.searchsorted(old["ts"], new["ts"])
    known = np.zeros(len(new["ts"]), bool)
    inside = at < len(old["ts"])
    known[inside] = old["ts"][at[inside]] == new["ts"][inside]
    same = known.copy()
    for name in COLUMNS:
        same[known] &= old[name][at[known]] == new[name][known]
    changed = known & ~same
    inserted, updated = int((~known).sum()), int(changed.sum())
    if not inserted and not updated:
        return old, 0, 0, len(same)
    merged = {}
    for name in COLUMNS:
        column = old[name].copy()
        column[at[changed]] = new[name][changed]
        merged[name] = np.insert(column, at[~known], new[name][~known])
    return merged, inserted, updated, int(same.sum())
