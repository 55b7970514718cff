"""The view that a URL names, and the URL that names a view.

The URL is the only state: the path says which page and symbol, the query says how they
are shown. `parse` accepts anything and never raises; what it cannot use it reports in
`problems` and replaces by the default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlencode

from mltrading_dashboard.charts.study import (
    ALLOWED,
    MOST,
    MOST_PANELS,
    USUAL,
    Study,
    study,
)

THEMES = ("dark", "light")
KINDS = ("candles", "ohlc", "line")
RANGES = {
    "overview": ("1M", "3M", "6M", "1Y", "All"),
    "charts": ("1M", "3M", "6M", "1Y", "3Y", "All"),
    "compare": ("1M", "3M", "6M", "1Y", "3Y", "All"),
    "status": ("1Y",),
    "missing": ("1Y",),
}
DEFAULT_RANGE = {
    "overview": "3M",
    "charts": "1Y",
    "compare": "1Y",
    "status": "1Y",
    "missing": "1Y",
}
MOST_SYMBOLS = 6
SORT_KEYS = ("symbol", "sector", "last", "change", "period", "volume")
SORTS = SORT_KEYS + tuple(f"-{key}" for key in SORT_KEYS)
LONGEST = 40


@dataclass(frozen=True)
class Problem:
    """A query value that was not usable."""

    name: str
    value: str
    shown: str
    allowed: tuple[str, ...]


@dataclass(frozen=True)
class ViewState:
    """One view of one page; two equal states look the same."""

    page: str = "overview"
    symbol: str | None = None
    range: str = DEFAULT_RANGE["overview"]
    kind: str = "candles"
    studies: tuple[Study, ...] = USUAL
    sort: str = "symbol"
    sector: str | None = None
    theme: str | None = None
    symbols: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def parse(pathname: object, search: object) -> ViewState:
    """Return the view that a path and a query string name.

    Total: any two objects give a ViewState.
    """
    page, symbol = _page(pathname)
    query = _Query.of(search)
    ranges = {name.lower(): name for name in RANGES[page]}
    return ViewState(
        page=page,
        symbol=symbol,
        range=query.one("r", ranges, DEFAULT_RANGE[page]),
        kind=query.one("type", {k: k for k in KINDS}, "candles"),
        studies=query.studies("ind"),
        sort=query.one("sort", {s: s for s in SORTS}, "symbol"),
        sector=query.text("sector"),
        symbols=query.symbols("symbols") if page == "compare" else (),
        theme=query.one("theme", {t: t for t in THEMES}, None),
        problems=tuple(query.problems),
    )


def to_url(view: ViewState) -> str:
    """Return the shortest URL that `parse` turns back into `view`."""
    pairs = []
    if view.symbols and view.page == "compare":
        pairs.append(("symbols", ",".join(view.symbols)))
    if view.sector:
        pairs.append(("sector", view.sector))
    if view.sort != "symbol":
        pairs.append(("sort", view.sort))
    if view.range != DEFAULT_RANGE[view.page]:
        pairs.append(("r", view.range))
    if view.kind != "candles":
        pairs.append(("type", view.kind))
    if view.studies != USUAL:
        pairs.append(("ind", ",".join(one.text for one in view.studies) or "none"))
    if view.theme:
        pairs.append(("theme", view.theme))
    query = urlencode(pairs, safe=",", quote_via=quote)
    return _path(view) + (f"?{query}" if query else "")


def _path(view: ViewState) -> str:
    if view.page == "overview":
        return "/"
    if view.page == "charts":
        return f"/charts/{quote(view.symbol, safe='')}" if view.symbol else "/charts"
    return f"/{view.page}"


def _page(pathname: object) -> tuple[str, str | None]:
    if not isinstance(pathname, str):
        return "missing", None
    parts = [part for part in pathname.split("/") if part]
    if not parts:
        return "overview", None
    if parts[0] in ("charts", "compare", "status") and len(parts) == 1:
        return parts[0], None
    if parts[0] == "charts" and len(parts) == 2:
        return "charts", unquote(parts[1]).strip().upper()[:LONGEST] or None
    return "missing", None


class _Query:
    """The first value of each name in a query string, and what was wrong with it."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values
        self.problems: list[Problem] = []

    @classmethod
    def of(cls, search: object) -> _Query:
        if not isinstance(search, str):
            return cls({})
        try:
            pairs = parse_qsl(search.lstrip("?"), max_num_fields=40)
        except ValueError:  # more fields than anybody's link has
            pairs = []
        values = dict(reversed(pairs))
        # The long name of `r`, for those who write an address by hand.
        if "range" in values:
            values.setdefault("r", values["range"])
        return cls(values)

    def one(self, name, allowed: dict[str, str], default):
        value = self.values.get(name)
        if value is None:
            return default
        if value.lower() in allowed:
            return allowed[value.lower()]
        self._problem(name, value, default or "the default", tuple(allowed.values()))
        return default

    def studies(self, name: str) -> tuple[Study, ...]:
        value = self.values.get(name)
        if value is None:
            return USUAL
        if value.lower() == "none":
            return ()
        parts = [part.strip() for part in value.split(",") if part.strip()]
        wrong = [part for part in parts if study(part) is None]
        if wrong or not parts:
            self._problem(name, ",".join(wrong), "the others", (*ALLOWED, "none"))
        found = sorted({one for part in parts if (one := study(part)) is not None})
        return self._fitting(name, found)

    def _fitting(self, name: str, found: list[Study]) -> tuple[Study, ...]:
        panels = [one for one in found if one.kind.panel][:MOST_PANELS]
        kept = [one for one in found if one in panels or not one.kind.panel][:MOST]
        over = [one.text for one in found if one not in kept]
        if over:
            allowed = (f"{MOST} at once", f"{MOST_PANELS} of them below the prices")
            self._problem(name, ",".join(over), "the others", allowed)
        return tuple(kept)

    def symbols(self, name: str) -> tuple[str, ...]:
        parts = self.values.get(name, "").upper().split(",")
        found = [part.strip()[:LONGEST].strip() for part in parts]
        found = list(dict.fromkeys(filter(None, found)))
        if len(found) > MOST_SYMBOLS:
            over, allowed = ",".join(found[MOST_SYMBOLS:]), (f"{MOST_SYMBOLS} at once",)
            self._problem(name, over, "the first ones", allowed)
        return tuple(found[:MOST_SYMBOLS])

    def text(self, name: str) -> str | None:
        value = re.sub(r"\s+", " ", self.values.get(name, "")).strip()
        return value[:LONGEST].strip() or None

    def _problem(self, name, value, shown, allowed) -> None:
        self.problems.append(Problem(name, value[:LONGEST], shown, allowed))
