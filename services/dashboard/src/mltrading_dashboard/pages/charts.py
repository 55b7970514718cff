"""One symbol in detail: key figures, price chart, watchlist."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
from dash import (
    ClientsideFunction,
    Input,
    Output,
    Patch,
    State,
    dcc,
    html,
    no_update,
    set_props,
)
from dash.exceptions import PreventUpdate

from mltrading_dashboard import notices, wording
from mltrading_dashboard.charts.price import Window, price_figure, study_colour
from mltrading_dashboard.charts.sparkline import sparkline
from mltrading_dashboard.charts.study import OFFERED
from mltrading_dashboard.charts.theme import THEMES, Theme
from mltrading_dashboard.data import Data
from mltrading_dashboard.flags import Flags
from mltrading_dashboard.links import link, segmented, toggles
from mltrading_dashboard.measures import KeyFigures, first_row, key_figures
from mltrading_dashboard.shell import page_view
from mltrading_dashboard.state import KINDS, RANGES, ViewState, parse
from mltrading_health.timed import timed
from mltrading_marketdata import StoreError, UnknownSymbol

CONFIG = {
    "displayModeBar": False,
    "responsive": True,
    "scrollZoom": True,
    "doubleClick": "autosize",
}
NOT_REFINED = "Market data is unavailable: these are the bars of the earlier view."
KIND_NAMES = {"candles": "Candles", "ohlc": "OHLC", "line": "Line"}


def layout(view: ViewState, data: Data, scheme: str) -> list:
    """Return the page of the view's symbol, or of the first one if it names none."""
    symbols = data.symbols()
    if symbols.empty:
        return [html.H1("Charts", className="hidden"), notices.no_symbols()]
    theme = THEMES[scheme]
    view = replace(view, symbol=view.symbol or symbols.index[0])
    watchlist = _watchlist(view, symbols, data, theme)
    if view.symbol not in symbols.index:
        return [watchlist, _unknown(view, list(symbols.index))]
    bars = data.bars(view.symbol)
    about = symbols.loc[view.symbol]
    if bars.empty:
        empty = notices.notice("empty", f"No bars of {view.symbol} yet.")
        return [watchlist, html.Div(empty, className="panel price")]
    return [watchlist, _panel(view, about, bars, theme, data.flags)]


def register(app, data: Data) -> None:
    """Fetch the bars of a zoomed or panned view, and read out the bar pointed at."""

    @app.callback(
        Output("price", "figure"),
        Input("window", "data"),
        State("url", "pathname"),
        State("url", "search"),
        State("scheme", "data"),
        prevent_initial_call=True,
    )
    def zoom(moved, pathname, search, scheme):
        view = parse(pathname, search)
        try:
            bars = data.bars(view.symbol or data.symbols().index[0])
        except UnknownSymbol:
            raise PreventUpdate from None
        except StoreError:
            set_props("readout", {"children": NOT_REFINED})
            return no_update
        window = moved_window(moved, bars, view.range)
        return _patch(_figure(view, bars, window, THEMES.get(scheme, THEMES["dark"])))

    app.clientside_callback(
        ClientsideFunction("mltrading", "moved"),
        Input("price", "relayoutData"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("mltrading", "readout"),
        Output("readout", "children"),
        Input("price", "hoverData"),
        prevent_initial_call=True,
    )


def skeleton() -> list:
    """Return the components that callbacks of this page name."""
    return [dcc.Graph(id="price"), html.Span(id="readout"), dcc.Store(id="window")]


def moved_window(moved: object, bars: pd.DataFrame, span: str) -> Window:
    """Return the view that {left, right} or {reset} in `moved` asks for.

    Raises PreventUpdate for anything else.
    """
    if not isinstance(moved, dict):
        raise PreventUpdate
    if "reset" in moved:
        return _default_window(bars, span)
    edges = moved.get("left"), moved.get("right")
    if not all(_is_number(edge) for edge in edges):
        raise PreventUpdate
    return Window(*sorted(edges))


def _is_number(value: object) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and math.isfinite(value) and abs(value) < 1e9


def _default_window(bars: pd.DataFrame, span: str) -> Window:
    return Window.last(len(bars), first_row(bars.index, span))


@timed("chart price")
def _figure(view: ViewState, bars, window: Window, theme: Theme) -> dict:
    return price_figure(bars, window, kind=view.kind, studies=view.studies, theme=theme)


def _patch(figure: dict) -> Patch:
    # The layout stays, so that plotly.js keeps its drag state; only what moved is sent.
    patch = Patch()
    patch["data"] = figure["data"]
    layout = figure["layout"]
    for name in ("range", "tickvals", "ticktext"):
        patch["layout"]["xaxis"][name] = layout["xaxis"][name]
    for axis in [name for name in layout if name.startswith("yaxis")]:
        patch["layout"][axis]["range"] = layout[axis]["range"]
    patch["layout"]["annotations"] = layout["annotations"]
    return patch


def _panel(view: ViewState, about, bars: pd.DataFrame, theme: Theme, flags: Flags):
    figures = key_figures(bars)
    window = _default_window(bars, view.range)
    return html.Section(
        [
            *notices.problems(view),
            _header(view, about, figures),
            html.Div(
                [
                    segmented(
                        "Range", [(r, r) for r in RANGES["charts"]], "range", view
                    ),
                    segmented(
                        "Chart type", [(KIND_NAMES[k], k) for k in KINDS], "kind", view
                    ),
                    *_indicators(view),
                    *_onward(view, flags),
                ],
                className="toolbar",
            ),
            dcc.Store(id="window"),
            html.Div(
                [
                    html.Div(
                        [
                            *_legend(view, theme),
                            html.Span(_last_bar(bars), id="readout"),
                        ],
                        className="legend",
                    ),
                    html.Div(
                        dcc.Graph(
                            id="price",
                            figure=_figure(view, bars, window, theme),
                            config=CONFIG,
                            responsive=True,
                        ),
                        role="img",
                        className="plot",
                        **{"aria-label": _spoken(view, about, figures)},
                    ),
                ],
                className="chart",
                style={"--panels": sum(one.kind.panel for one in view.studies)},
            ),
        ],
        className="panel price",
        **{"aria-label": f"{view.symbol} chart"},
    )


def _header(view: ViewState, about, figures: KeyFigures):
    facts = (
        ("1Y change", wording.percent(figures.year_change, 1)),
        (
            "52-wk range",
            f"{wording.price(figures.low_52w)} – {wording.price(figures.high_52w)}",
        ),
        ("20-day vol.", wording.share(figures.volatility_20d)),
        ("Avg volume 20d", wording.volume(figures.volume_20d)),
        ("Last bar", wording.day(figures.last_bar)),
    )
    return html.Header(
        [
            html.H1([view.symbol, html.Small(about["name"])]),
            html.Span(wording.price(figures.last), className="last"),
            html.Span(
                wording.percent(figures.change),
                className=f"change {wording.direction(figures.change)}",
            ),
            html.Dl([html.Div([html.Dt(k), html.Dd(v)]) for k, v in facts]),
        ],
        className="figures",
    )


def _indicators(view: ViewState) -> list:
    shown = sorted({*OFFERED, *view.studies})
    return [
        toggles(
            label,
            [(one.title, one) for one in shown if one.kind.panel is panel],
            "studies",
            view,
        )
        for label, panel in (
            ("Indicators over the prices", False),
            ("Indicators below the prices", True),
        )
    ]


def _onward(view: ViewState, flags: Flags) -> list:
    if not flags.opens("compare"):
        return []
    among = replace(page_view("compare", view), symbols=(view.symbol,))
    label = f"Compare {view.symbol}"
    return [link("Compare", among, label=label, className="button")]


def _legend(view: ViewState, theme: Theme) -> list:
    return [
        html.Span(one.title, style={"color": study_colour(one, view.studies, theme)})
        for one in view.studies
        if not one.kind.panel
    ]


def _last_bar(bars: pd.DataFrame) -> str:
    bar = bars.iloc[-1]
    prices = "  ".join(
        f"{name[0].upper()} {wording.price(bar[name])}"
        for name in ("open", "high", "low", "close")
    )
    date = bars.index[-1].strftime("%a %d %b %Y")
    return f"{date}  {prices}  V {wording.volume(bar['volume'])}"


def _spoken(view: ViewState, about, figures: KeyFigures) -> str:
    last, change = wording.price(figures.last), wording.percent(figures.change)
    return (
        f"Price of {about['name']} over {view.range}. "
        f"Last {last}, change {change}, on {wording.day(figures.last_bar)}."
    )


def _watchlist(view: ViewState, symbols: pd.DataFrame, data: Data, theme: Theme):
    items = []
    for symbol, about in symbols.iterrows():
        bars = data.bars(symbol)
        if bars.empty:
            continue
        figures = key_figures(bars)
        closes = bars["close"].iloc[first_row(bars.index, "3M") :]
        way = wording.direction(figures.change)
        items.append(
            html.Li(
                link(
                    [
                        html.B(symbol),
                        html.Small(about["name"]),
                        html.Img(src=sparkline(closes, theme), alt=""),
                        html.Span(wording.price(figures.last), className="last"),
                        html.Span(
                            wording.percent(figures.change), className=f"change {way}"
                        ),
                    ],
                    replace(view, symbol=symbol),
                    current="page" if symbol == view.symbol else None,
                )
            )
        )
    return html.Nav(
        html.Ul(items), className="panel watchlist", **{"aria-label": "Watchlist"}
    )


def _unknown(view: ViewState, known: list[str]):
    choices = [link(symbol, replace(view, symbol=symbol)) for symbol in known]
    return html.Section(
        [
            html.H1("Unknown symbol"),
            notices.notice(
                "hint", f"“{view.symbol}” is not a symbol here.", "Known symbols:"
            ),
            html.P(choices, className="choices"),
        ],
        className="panel price",
    )
