"""Up to six symbols side by side: one chart from a common start, and a table."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
from dash import dcc, html

from mltrading_dashboard import notices, wording
from mltrading_dashboard.charts.performance import performance_figure
from mltrading_dashboard.charts.theme import THEMES, Theme
from mltrading_dashboard.comparison import Compared, common, compared
from mltrading_dashboard.data import Data
from mltrading_dashboard.links import link, segmented
from mltrading_dashboard.measures import first_row
from mltrading_dashboard.meters import meters
from mltrading_dashboard.shell import page_view
from mltrading_dashboard.state import MOST_SYMBOLS, RANGES, ViewState
from mltrading_health.timed import timed

MOST_OFFERED = 24
NO_BAR = {"displayModeBar": False, "responsive": True}
# Heading, what it is in, attribute, how it is written.
COLUMNS = (
    ("Change", "over the period", "change", wording.percent),
    ("Volatility", "a year", "volatility", lambda v: wording.share(v, 1)),
    ("Sharpe ratio", "a year, no risk-free rate", "sharpe", wording.ratio),
    ("Max drawdown", "below the highest close", "drawdown", wording.percent),
    ("Correlation", "with {first}", "correlation", wording.ratio),
    ("Beta", "to {first}", "beta", wording.ratio),
    ("Volume", "shares a day", "volume", wording.volume),
)

_comparison_chart = timed("chart comparison")(performance_figure)


def layout(view: ViewState, data: Data, scheme: str) -> list:
    """Return the comparison of the view's symbols, or the symbols to choose from."""
    symbols = data.symbols()
    heading = html.H1("Compare", className="hidden")
    if symbols.empty:
        return [heading, notices.no_symbols()]
    known = [symbol for symbol in view.symbols if symbol in symbols.index]
    bars = {symbol: data.bars(symbol) for symbol in known}
    filled = {symbol: frame for symbol, frame in bars.items() if not frame.empty}
    return [
        heading,
        *notices.problems(view),
        *_unknown(view, known),
        *(
            notices.notice("empty", f"No bars of {symbol} yet.")
            for symbol in bars
            if symbol not in filled
        ),
        _toolbar(view, symbols),
        *_content(view, symbols, filled, THEMES[scheme]),
    ]


def _unknown(view: ViewState, known: list[str]) -> list:
    rest = "Showing the others." if known else ""
    return [
        notices.notice("hint", f"“{symbol}” is not a symbol here.", rest)
        for symbol in view.symbols
        if symbol not in known
    ]


def _toolbar(view: ViewState, symbols: pd.DataFrame):
    chosen = [
        link(
            [symbol, html.Span("×", **{"aria-hidden": "true"})],
            replace(view, symbols=tuple(s for s in view.symbols if s != symbol)),
            label=f"Remove {symbol}",
        )
        for symbol in view.symbols
    ]
    others = [symbol for symbol in symbols.index if symbol not in view.symbols]
    offered = [
        link(
            f"+ {symbol}",
            replace(view, symbols=(*view.symbols, symbol)),
            label=f"Add {symbol}",
        )
        for symbol in others[:MOST_OFFERED]
    ]
    full = len(view.symbols) >= MOST_SYMBOLS
    more = "" if full else _more(len(others) - len(offered))
    return html.Div(
        [
            segmented("Period", [(r, r) for r in RANGES["compare"]], "range", view),
            *([_row("Compared symbols", chosen)] if chosen else []),
            *([_row("More symbols", offered)] if offered and not full else []),
            html.P(
                (
                    f"At most {MOST_SYMBOLS} at once: remove one to add another."
                    if full and others
                    else more
                ),
                className="summary",
            ),
        ],
        className="toolbar",
    )


def _more(count: int) -> str:
    return f"{count:,} more can be named in the address." if count > 0 else ""


def _row(label: str, links: list):
    return html.Nav(links, className="segmented", **{"aria-label": label})


def _content(view: ViewState, symbols, bars, theme: Theme) -> list:
    if not bars:
        hint = f"Add up to {MOST_SYMBOLS} with the links above."
        return [notices.notice("empty", "Nothing to compare yet.", hint)]
    closes, volumes = common(bars, view.range)
    if closes.empty:
        names = ", ".join(bars)
        return [notices.notice("empty", f"No day has bars of all of {names}.")]
    found = compared(closes, volumes)
    colours = dict(zip(found, theme.series))
    return [
        *_shortened(view, bars, closes),
        html.Div(
            [
                _performance(view, closes, found, colours, theme),
                _volume(found, colours),
            ],
            className="pair",
        ),
        _table(view, symbols, found, colours),
    ]


def _shortened(view: ViewState, bars, closes: pd.DataFrame) -> list:
    """Say where a symbol that starts late or ends early makes the period shorter."""
    last = max(frame.index[-1] for frame in bars.values())
    earliest = min((frame.index for frame in bars.values()), key=lambda days: days[0])
    wanted = earliest[first_row(earliest, view.range)]
    said = []
    for symbol, frame in bars.items():
        if frame.index[0] > wanted:
            said.append(f"{symbol} begins {wording.day(frame.index[0])}")
        if frame.index[-1] < last:
            said.append(f"{symbol} ends {wording.day(frame.index[-1])}")
    if not said:
        return []
    start, end = wording.day(closes.index[0]), wording.day(closes.index[-1])
    period = f"Compared from {start} to {end}, the days that all have."
    return [notices.notice("hint", period, f"{'; '.join(said)}.")]


def _performance(view: ViewState, closes, found, colours, theme: Theme):
    spoken = ", ".join(
        f"{symbol} {wording.percent(one.change, 1)}" for symbol, one in found.items()
    )
    return html.Section(
        [
            html.H2(["Performance ", html.Small(f"change over {view.range}, percent")]),
            html.Div(
                dcc.Graph(
                    id="comparison",
                    figure=_comparison_chart(
                        {symbol: closes[symbol] for symbol in found}, colours, theme
                    ),
                    config=NO_BAR,
                    responsive=True,
                ),
                role="img",
                className="plot",
                **{"aria-label": f"Change over {view.range}: {spoken}"},
            ),
        ],
        className="panel performance",
    )


def _volume(found: dict[str, Compared], colours: dict[str, str]):
    rows = [(symbol, one.volume, colours[symbol]) for symbol, one in found.items()]
    return html.Section(
        [html.H2(["Volume ", html.Small("a day, shares")]), meters(rows)],
        className="panel volumes",
    )


def _table(view: ViewState, symbols, found: dict[str, Compared], colours):
    first = next(iter(found))
    heads = [html.Th("Symbol", className="symbol", scope="col")] + [
        html.Th(
            [text, html.Small(unit.format(first=first))],
            className="number",
            scope="col",
        )
        for text, unit, _, _ in COLUMNS
    ]
    body = [
        _measures(view, symbol, symbols.loc[symbol, "name"], one, colours[symbol])
        for symbol, one in found.items()
    ]
    return html.Section(
        html.Table([html.Thead(html.Tr(heads)), html.Tbody(body)], id="measures"),
        className="panel table measures",
        # What scrolls sideways on a phone has to be reached by the keyboard.
        tabIndex="0",
        **{"aria-label": "Measures"},
    )


def _measures(view: ViewState, symbol: str, name: str, one: Compared, colour: str):
    chart = replace(page_view("charts", view), symbol=symbol)
    head = html.Th(
        [
            html.Span(className="key", style={"background": colour}),
            html.Span(
                [
                    link(html.B(symbol), chart, label=f"Analyze {symbol}"),
                    html.Small(name),
                ]
            ),
        ],
        className="symbol",
        scope="row",
    )
    cells = []
    for _, _, field, written in COLUMNS:
        value = getattr(one, field)
        way = wording.direction(value) if field == "change" else ""
        cells.append(html.Td(written(value), className=f"number {way}".strip()))
    return html.Tr([head, *cells], **{"data-symbol": symbol})
