"""The status page: is it well, how fresh is the data, what runs, what alerts fire."""

from __future__ import annotations

from datetime import datetime

import pandas as pd
from dash import Input, Output, dcc, html

from mltrading_dashboard import notices, wording
from mltrading_dashboard.data import Data
from mltrading_dashboard.standing import Alerts, Checked, Standing
from mltrading_dashboard.state import ViewState
from mltrading_marketdata import StoreError

MIB = 1024 * 1024
# The shape says it as well as the colour.
MARKS = {"pass": ("✓", "well"), "warn": ("!", "warning"), "fail": ("✕", "failed")}
NAMES = {
    "database": "Database",
    "external_apis": "Providers of market data",
    "memory_usage": "Memory",
    "disk_space": "Disk space",
}
WITHHELD = "Numbers and reasons are for who may read the metrics."


def layout(view: ViewState, data: Data, scheme: str) -> list:
    """Return the status of this service and of its data."""
    return [
        html.H1("Status"),
        # The browser moves it every 30 s, while somebody looks.
        dcc.Store(id="beat"),
        html.Div(panels(data), id="standing", className="standing"),
    ]


def register(app, data: Data) -> None:
    """Look again at each beat; nothing else of the page is drawn anew."""

    @app.callback(
        Output("standing", "children"),
        Input("beat", "data"),
        prevent_initial_call=True,
    )
    def again(beat):
        return panels(data)


def skeleton() -> list:
    """Return the components that callbacks of this page name."""
    return [dcc.Store(id="beat"), html.Div(id="standing")]


def panels(data: Data) -> list:
    """Return one panel a subject; a database that is away leaves the others."""
    if data.look is None:
        return [_data(data, None)]
    now = data.look()
    return [
        _checks(now),
        _alerts(now.alerts),
        _data(data, now.at),
        _release(now),
        _workers(now),
        html.P(
            f"Seen at {moment(now.at)}; again every 30 s while this tab is in view.",
            className="seen",
        ),
    ]


def moment(at: datetime) -> str:
    """Return a moment as 2026-11-26 01:41:10 UTC."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def age(last: pd.Timestamp, now: datetime) -> str:
    """Return how long ago the day of a last bar was."""
    days = (pd.Timestamp(now).normalize() - last.normalize()).days
    if days < 1:
        return "today"
    if days < 730:
        return "yesterday" if days == 1 else f"{days} days ago"
    return f"{days / 365.25:.1f} years ago"


def _panel(title: str, *content):
    return html.Section([html.H2(title), *content], className="panel")


def _facts(pairs):
    rows = [html.Div([html.Dt(name), html.Dd(value)]) for name, value in pairs if value]
    return html.Dl(rows, className="facts")


def _checks(now: Standing):
    worst = max((list(MARKS).index(each.state) for each in now.checks), default=0)
    said = ("All checks pass", "There are warnings", "A check fails")[worst]
    content = [html.Ul([_check(each) for each in now.checks], className="checks")]
    if worst and not now.told:
        content.append(html.P(WITHHELD, className="aside"))
    return _panel(said, *content)


def _check(check: Checked):
    mark, word = MARKS[check.state]
    return html.Li(
        [
            html.Span(mark, className="mark", **{"aria-hidden": "true"}),
            html.Span(NAMES.get(check.name, check.name)),
            html.B(word),
            html.Small(check.output) if check.output else None,
        ],
        className=check.state,
    )


def _alerts(alerts: Alerts):
    if alerts.judge == "prometheus":
        said = "Prometheus judges the metrics; Alertmanager shows what fires."
    elif alerts.judge != "evaluator":
        said = "Nobody judges the metrics of this environment (ALERTS is off)."
    elif alerts.firing is None:
        said = "Nobody judges the metrics at the moment."
    elif not alerts.firing:
        said = "No alert fires."
    else:
        rows = [
            html.Li(
                [
                    html.Span("!", className="mark", **{"aria-hidden": "true"}),
                    html.Span(sentence),
                ],
                className="fail" if sentence.startswith("critical") else "warn",
            )
            for sentence in alerts.firing
        ]
        return _panel(
            f"Alerts firing: {len(rows)}", html.Ul(rows, className="checks alerts")
        )
    return _panel("Alerts", html.P(said))


def _data(data: Data, now: datetime | None):
    try:
        provenance, symbols = data.provenance(), data.symbols()
    except StoreError:
        return _panel("Data", notices.unavailable())
    last = provenance.last_bar
    day = html.Time(wording.day(last), dateTime=wording.day(last)) if last else "none"
    return _panel(
        "Data",
        _facts(
            [
                ("Last bar", [day, f", {age(last, now)}"] if last and now else day),
                ("Symbols", str(len(symbols))),
                ("From", "; ".join(provenance.sources) or "nowhere yet"),
                ("Kind", "Sample data" if provenance.sample else "Market data"),
            ]
        ),
    )


def _release(now: Standing):
    return _panel(
        "Release",
        _facts(
            [
                ("Environment", now.environment),
                ("Release", now.release),
                ("Commit", html.Code(now.commit[:12]) if now.commit else None),
                ("Artefact", html.Code(now.artefact[:12]) if now.artefact else None),
                ("Started", moment(now.since)),
            ]
        ),
    )


def _workers(now: Standing):
    if not now.told:
        return _panel("Workers", html.P(WITHHELD, className="aside"))
    if not now.memory:
        return _panel("Workers", html.P("Their memory can't be read here."))
    each = [
        (f"Worker {number}", f"{used / MIB:,.0f} MiB")
        for number, used in enumerate(now.memory, 1)
    ]
    return _panel(
        "Workers",
        _facts([*each, ("Together", f"{sum(now.memory) / MIB:,.0f} MiB")]),
    )
