"""The overview: every symbol in a row, how they did, and the sectors as a filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd
from dash import ClientsideFunction, Input, Output, State, dcc, html

from mltrading_dashboard import notices, wording
from mltrading_dashboard.charts.performance import performance_figure
from mltrading_dashboard.charts.sector import sector_figure
from mltrading_dashboard.charts.sparkline import sparkline
from mltrading_dashboard.charts.theme import THEMES, Theme
from mltrading_dashboard.clock import clock
from mltrading_dashboard.data import Data
from mltrading_dashboard.flags import Flags
from mltrading_dashboard.links import link, segmented
from mltrading_dashboard.measures import KeyFigures, first_row, key_figures
from mltrading_dashboard.meters import meters
from mltrading_dashboard.shell import page_view
from mltrading_dashboard.state import RANGES, ViewState
from mltrading_health.timed import timed

OTHER = "Other"
SECTOR_HEIGHT = 38  # pixels of one bar
MOST_VOLUME = 6
MOST_ROWS_HELD = 6
NO_BAR = {"displayModeBar": False, "responsive": True}
# Heading, sort key, order of the first click, class.
COLUMNS = (
    ("Symbol", "symbol", "", "symbol"),
    ("Sector", "sector", "", "sector"),
    ("Trend", None, "", "trend"),
    ("Last", "last", "-", "number"),
    ("Day", "change", "-", "number"),
    ("Period", "period", "-", "number"),
    ("52-week range", None, "", "range"),
    ("Avg volume 20d", "volume", "-", "number volume"),
    ("Last bar", None, "", "date"),
    ("", None, "", "action"),
)

_performance_chart = timed("chart performance")(performance_figure)
_sector_chart = timed("chart sectors")(sector_figure)


@dataclass(frozen=True)
class Row:
    """One symbol in the table; `closes` are those of the period."""

    symbol: str
    name: str
    sector: str
    figures: KeyFigures
    closes: pd.Series
    colour: str

    @property
    def period(self) -> float:
        return float(self.closes.iloc[-1] / self.closes.iloc[0] - 1)


def layout(view: ViewState, data: Data, scheme: str) -> list:
    """Return the overview of the symbols that the view's filter lets through."""
    symbols = data.symbols()
    if symbols.empty:
        return [html.H1("Overview", className="hidden"), notices.no_symbols()]
    theme = THEMES[scheme]
    sectors = symbols["sector"].replace("", OTHER)
    said = notices.problems(view)
    if view.sector and view.sector not in set(sectors):
        said.append(_unknown_sector(view.sector, sectors))
        view = replace(view, sector=None)
    rows = _sorted(_rows(symbols, view, data, theme), view.sort)
    return [
        html.H1("Overview", className="hidden"),
        *said,
        _toolbar(view, sectors, rows, clock(data.now())),
        html.Section(
            _table(view, rows, theme, data.flags),
            className="panel table",
            # The panels below keep their place while the filter changes.
            style={"--rows": min(len(symbols), MOST_ROWS_HELD)},
            **{"aria-label": "Symbols"},
        ),
        html.Div(
            [_performance(view, rows, theme), _sectors(view, sectors, rows, theme)],
            className="pair",
        ),
    ]


def register(app, data: Data) -> None:
    """Make a click on a sector filter the view; only the query can change."""
    app.clientside_callback(
        ClientsideFunction("mltrading", "toggleSector"),
        Output("url", "search"),
        Input("sectors", "clickData"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("mltrading", "hours"),
        Output("clock", "children"),
        Output("clock", "className"),
        Input("hours", "data"),
    )


def skeleton() -> list:
    """Return the components that callbacks of this page name."""
    return [dcc.Graph(id="sectors"), dcc.Store(id="hours"), html.P(id="clock")]


def _rows(symbols, view: ViewState, data: Data, theme: Theme) -> list[Row]:
    rows = []
    for place, (symbol, about) in enumerate(symbols.iterrows()):
        sector = about["sector"] or OTHER
        bars = data.bars(symbol)
        if bars.empty or view.sector not in (None, sector):
            continue
        rows.append(
            Row(
                symbol=symbol,
                name=about["name"],
                sector=sector,
                figures=key_figures(bars),
                closes=bars["close"].iloc[_start(bars, view.range) :],
                colour=theme.series[place % len(theme.series)],
            )
        )
    return rows


def _start(bars: pd.DataFrame, span: str) -> int:
    # One bar earlier, so that the change counts from the close before the period.
    return max(0, min(first_row(bars.index, span) - 1, len(bars) - 2))


def _sorted(rows: list[Row], sort: str) -> list[Row]:
    keys = {
        "symbol": lambda row: row.symbol,
        "sector": lambda row: (row.sector, row.symbol),
        "last": lambda row: row.figures.last,
        "change": lambda row: row.figures.change or 0.0,
        "period": lambda row: row.period,
        "volume": lambda row: row.figures.volume_20d,
    }
    return sorted(rows, key=keys[sort.lstrip("-")], reverse=sort.startswith("-"))


def _toolbar(view: ViewState, sectors: pd.Series, rows: list[Row], shown: list):
    chips = [("All sectors", None)] + [(name, name) for name in sorted(set(sectors))]
    up = sum((row.figures.change or 0) > 0 for row in rows)
    down = sum((row.figures.change or 0) < 0 for row in rows)
    return html.Div(
        [
            segmented("Period", [(r, r) for r in RANGES["overview"]], "range", view),
            segmented("Sector", chips, "sector", view),
            html.P(
                [
                    html.B(str(len(rows))),
                    " of ",
                    html.B(str(len(sectors))),
                    " symbols",
                    html.Span(f"▲ {up}", className="up"),
                    html.Span(f"▼ {down}", className="down"),
                ],
                className="summary",
                id="summary",
            ),
            *shown,
        ],
        className="toolbar",
    )


def _table(view: ViewState, rows: list[Row], theme: Theme, flags: Flags):
    heads = [_head(view, *column) for column in COLUMNS]
    body = [_row(view, row, theme, flags) for row in rows]
    return html.Table([html.Thead(html.Tr(heads)), html.Tbody(body)], id="symbols")


def _head(view: ViewState, text: str, key: str | None, first: str, name: str):
    if key is None:
        return html.Th(text or html.Span("Open", className="hidden"), className=name)
    text = f"{view.range} change" if key == "period" else text
    text = "Day change" if key == "change" else text
    now = view.sort.lstrip("-") == key
    other = "" if view.sort.startswith("-") else "-"
    arrow = ("▾" if view.sort.startswith("-") else "▴") if now else ""
    after = replace(view, sort=f"{other}{key}" if now else f"{first}{key}")
    order = "descending" if view.sort.startswith("-") else "ascending"
    return html.Th(
        link([text, html.Span(arrow, className="arrow")], after, label=f"Sort: {text}"),
        className=name,
        **({"aria-sort": order} if now else {}),
    )


def _row(view: ViewState, row: Row, theme: Theme, flags: Flags):
    figures = row.figures
    place = f"{figures.place_in_52w:.1%}"
    cells = [
        html.Th(
            [
                html.Span(className="key", style={"background": row.colour}),
                html.Span([html.B(row.symbol), html.Small(row.name)]),
            ],
            className="symbol",
            scope="row",
        ),
        html.Td(row.sector, className="sector"),
        html.Td(
            html.Img(
                src=sparkline(row.closes, theme, area=True),
                alt=f"{row.symbol} closes over {view.range}",
            ),
            className="trend",
        ),
        html.Td(wording.price(figures.last), className="number last"),
        html.Td(_change(figures.change), className="number"),
        html.Td(_change(row.period), className="number period"),
        html.Td(
            [
                html.Span(html.I(style={"left": place}), className="track"),
                html.Small(wording.price(figures.low_52w)),
                html.Small(wording.price(figures.high_52w)),
            ],
            className="range",
        ),
        html.Td(wording.volume(figures.volume_20d), className="number volume"),
        html.Td(wording.day(figures.last_bar), className="date"),
        html.Td(_actions(view, row.symbol, flags), className="action"),
    ]
    return html.Tr(cells, **{"data-symbol": row.symbol})


def _actions(view: ViewState, symbol: str, flags: Flags) -> list:
    chart = replace(page_view("charts", view), symbol=symbol)
    among = replace(page_view("compare", view), symbols=(symbol,))
    found = [("Analyze", "charts", chart), ("Compare", "compare", among)]
    return [
        link(text, to, label=f"{text} {symbol}", className="button")
        for text, page, to in found
        if flags.opens(page)
    ]


def _change(value: float | None):
    way = wording.direction(value)
    arrow = {"up": "▲", "down": "▼", "flat": ""}[way]
    mark = html.Span(arrow, className="arrow", **{"aria-hidden": "true"})
    return html.Span([mark, wording.percent(value)], className=way)


def _performance(view: ViewState, rows: list[Row], theme: Theme):
    closes: Mapping[str, pd.Series] = {row.symbol: row.closes for row in rows}
    colours = {row.symbol: row.colour for row in rows}
    return html.Section(
        [
            html.H2(["Performance ", html.Small(f"change over {view.range}, percent")]),
            html.Div(
                dcc.Graph(
                    id="performance",
                    figure=_performance_chart(closes, colours, theme),
                    config=NO_BAR,
                    responsive=True,
                ),
                role="img",
                className="plot",
                **{"aria-label": _spoken(rows, view.range)},
            ),
        ],
        className="panel performance",
    )


def _spoken(rows: list[Row], span: str) -> str:
    parts = [f"{row.symbol} {wording.percent(row.period, 1)}" for row in rows]
    return f"Change over {span}: {', '.join(parts)}"


def _sectors(view: ViewState, sectors: pd.Series, rows: list[Row], theme: Theme):
    spoken = ", ".join(f"{k}: {n}" for k, n in sectors.value_counts().items())
    ordered = sorted(rows, key=lambda row: -row.figures.volume_20d)[:MOST_VOLUME]
    volumes = [(row.symbol, row.figures.volume_20d, row.colour) for row in ordered]
    return html.Section(
        [
            html.H2(["Sectors ", html.Small("click to filter, again to clear")]),
            html.Div(
                dcc.Graph(
                    id="sectors",
                    figure=_sector_chart(sectors, view.sector, theme),
                    config=NO_BAR,
                    responsive=True,
                ),
                role="img",
                className="plot",
                style={"flexBasis": f"{SECTOR_HEIGHT * sectors.nunique()}px"},
                **{"aria-label": f"Symbols per sector. {spoken}"},
            ),
            html.H2(["Volume ", html.Small("20-day average, shares")]),
            meters(volumes),
        ],
        className="panel sectors",
    )


def _unknown_sector(name: str, sectors: pd.Series):
    known = ", ".join(sorted(set(sectors)))
    return notices.notice(
        "hint", f"“{name}” is not a sector.", f"Showing all. Known: {known}."
    )
