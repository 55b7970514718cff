"""Splits and dividends: find them, and adjust raw bars for them. Pure.

Stored bars are raw, as traded. An action has an ex-date `ts` (microseconds since 1970
UTC), a kind and a value: `split` = new shares per old share, `dividend` = cash per
share in the currency of the symbol, in the share count of the ex-date.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from .codec import Columns
from .errors import BadData

Adjust = Literal["none", "split", "all"]


@dataclass(frozen=True)
class Action:
    """One corporate action."""

    ts: int
    kind: Literal["split", "dividend"]
    value: float


def price_divisors(
    raw: Columns, actions: list[Action], adjust: Adjust, last: int | None = None
) -> np.ndarray:
    """Return what each bar's prices are divided by, shape (n,).

    A split of r divides all earlier prices by r. A dividend D divides them by
    1 + D / (raw close of the first bar on or after the ex-date), which makes the change
    from close to close equal the total return. An action after the series' last bar
    changes nothing. `last` is the time of that bar (microseconds since 1970 UTC) where
    `raw` ends earlier; dividends need the bars up to it.
    """
    end = int(raw["ts"][-1]) if last is None else last
    steps = np.ones(len(raw["ts"]) + 1)
    for action in actions:
        if action.ts > end:
            continue
        at = int(np.searchsorted(raw["ts"], action.ts))
        if action.kind == "split":
            steps[at] *= action.value
        elif adjust == "all" and at:
            steps[at] *= 1 + action.value / raw["close"][at]
    # A bar is divided by the product of all steps after it.
    return np.cumprod(steps[::-1])[::-1][1:]


def adjusted(
    raw: Columns, actions: list[Action], adjust: Adjust, last: int | None = None
) -> Columns:
    """Return the columns adjusted for splits, or for splits and dividends ("all").

    Volume is multiplied by splits only, rounded to whole shares. `last` as in
    `price_divisors`.
    """
    if adjust == "none" or not len(raw["ts"]):
        return raw
    kinds = ("split",) if adjust == "split" else ("split", "dividend")
    if not any(action.kind in kinds for action in actions):
        return raw
    divisors = price_divisors(raw, actions, adjust, last)
    shares = divisors
    if adjust == "all":
        shares = price_divisors(raw, actions, "split", last)
    out = dict(raw)
    for name in ("open", "high", "low", "close"):
        if name in raw:
            out[name] = raw[name] / divisors
    if "volume" in raw:
        out["volume"] = np.rint(raw["volume"] * shares).astype(np.int64)
    return out


def find_actions(
    ts: np.ndarray, close: np.ndarray, adj_close: np.ndarray
) -> list[Action]:
    """Read the actions out of a source's adjusted close.

    adj_close / close is constant between actions. Where it steps up by a simple ratio
    (1.5, 2, 7, 0.1, ...) there was a split; a step by any other ratio is a dividend,
    and `close * (step - 1)` its cash. Raises BadData for a step that is neither: down
    without being a split, or up by half and more (a split and a dividend on one day).
    """
    factor = adj_close / close
    steps = factor[1:] / factor[:-1]
    found = []
    for at in np.flatnonzero(np.abs(steps - 1) > 1e-4):
        step, when = float(steps[at]), int(ts[at + 1])
        simple = float(Fraction(step).limit_denominator(20))
        if simple != 1 and abs(step / simple - 1) < 1e-6:
            found.append(Action(when, "split", simple))
        elif 1 < step < 1.5:
            cash = round(float(close[at + 1]) * (step - 1), 6)
            found.append(Action(when, "dividend", cash))
        else:
            day = np.datetime64(when, "us").astype("M8[D]")
            raise BadData(f"adj_close / close changes by a factor {step:.6g} on {day}")
    return found
