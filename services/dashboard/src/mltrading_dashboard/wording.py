"""How numbers and dates are written on the pages."""

from __future__ import annotations

import pandas as pd

NONE = "–"


def price(value: float | None) -> str:
    """Return 1234.5 as 1,234.50."""
    return NONE if value is None else f"{value:,.2f}"


def percent(value: float | None, digits: int = 2) -> str:
    """Return 0.0123 as +1.23%, with a true minus sign."""
    if value is None:
        return NONE
    return f"{value:+,.{digits}%}".replace("-", "\N{MINUS SIGN}")


def share(value: float | None, digits: int = 0) -> str:
    """Return 0.27 as 27%."""
    return NONE if value is None else f"{value:.{digits}%}"


def ratio(value: float | None) -> str:
    """Return 1.234 as 1.23, with a true minus sign."""
    if value is None:
        return NONE
    return f"{value:,.2f}".replace("-", "\N{MINUS SIGN}")


def volume(value: float) -> str:
    """Return 135700000 as 135.7 M."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value:,.0f}"


def day(value: pd.Timestamp) -> str:
    """Return the date as 2013-03-01."""
    return value.strftime("%Y-%m-%d")


def direction(value: float | None) -> str:
    """Return the class that colours a change: up, down or flat."""
    if value is None or abs(value) < 5e-5:
        return "flat"
    return "up" if value > 0 else "down"
