"""Merge new rows into the rows of one chunk. Pure."""

from __future__ import annotations

import numpy as np

from .codec import Columns


def merge(old: Columns, new: Columns) -> tuple[Columns, int, int, int]:
    """Return (merged, inserted, updated, unchanged).

    Both sides have the same columns and unique ascending `ts`; on equal `ts` the new
    row wins. A NaN equals a NaN. Nothing inserted and nothing updated means that
    `merged` is `old`.
    """
    if not len(old["ts"]) or not len(new["ts"]):
        return (new if len(new["ts"]) else old), len(new["ts"]), 0, 0
    if new["ts"][0] > old["ts"][-1]:
        # The next day's bars, which is what mostly comes.
        longer = {name: np.concatenate([old[name], new[name]]) for name in new}
        return longer, len(new["ts"]), 0, 0
    at = np.searchsorted(old["ts"], new["ts"])
    known = np.zeros(len(new["ts"]), bool)
    inside = at < len(old["ts"])
    known[inside] = old["ts"][at[inside]] == new["ts"][inside]
    same = known.copy()
    for name in new:
        then, now = old[name][at[known]], new[name][known]
        same[known] &= (then == now) | ((then != then) & (now != now))
    changed = known & ~same
    inserted, updated = int((~known).sum()), int(changed.sum())
    if not inserted and not updated:
        return old, 0, 0, len(same)
    merged = {}
    for name in new:
        column = old[name].copy()
        column[at[changed]] = new[name][changed]
        merged[name] = np.insert(column, at[~known], new[name][~known])
    return merged, inserted, updated, int(same.sum())
