"""The dashboard as one object: pages, data, security joined."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import flask
from dash import ClientsideFunction, Dash, Input, Output, dcc, html, set_props

from mltrading_dashboard import (
    assets,
    notices,
    rate,
    routes,
    security,
    standing,
    telemetry,
    watching,
)
from mltrading_dashboard.data import Data
from mltrading_dashboard.health import create_health, disks
from mltrading_dashboard.settings import Settings
from mltrading_dashboard.state import THEMES
from mltrading_health import Health
from mltrading_health.flask import flask as instrument
from mltrading_health.timed import bind
from mltrading_marketdata import Hooks, Limits, StoreError, budget, open_store
from mltrading_marketdata.url import parse as parse_url

if TYPE_CHECKING:
    from mltrading_health import Metrics
    from mltrading_health.watch import Watcher

log = logging.getLogger(__name__)

# Told to nobody: versions help an attacker choose, and the page does not use them.
UNTOLD = ("dash_version", "python_version", "plotly_version", "dash_version_url")
CONFIG = re.compile(r'(<script id="_dash-config"[^>]*>)(.*?)(</script>)', re.DOTALL)


class Dashboard(Dash):
    """Dash whose page tells the truth in its HTTP status and nothing about versions."""

    data: Data

    def index(self, *args, **kwargs):
        view = self._view()
        response = flask.make_response(super().index(), routes.code(view, self.data))
        response.headers["Cache-Control"] = "no-cache"
        if response.status_code == 503:
            response.headers["Retry-After"] = "5"
        return response

    def _view(self):
        query = flask.request.query_string.decode("latin-1")
        return routes.view(flask.request.path, query, self.data.flags)

    def interpolate_index(self, **parts):
        view = self._view()
        theme = f' data-theme="{view.theme}"' if view.theme else ""
        return PAGE.format(
            theme=theme,
            title=escape(routes.title(view)),
            metas=parts["metas"],
            icon=assets.url(assets.ICON),
            font=assets.url(assets.FONT).split("?")[0],
            style=assets.url(assets.STYLE),
            css=parts["css"],
            app_entry=parts["app_entry"],
            config=CONFIG.sub(_without_versions, parts["config"]),
            scripts=parts["scripts"].replace("<script src", "<script defer src"),
            script=assets.url(assets.SCRIPT),
            renderer=assets.url(assets.RENDERER),
            plotly=assets.url(assets.PLOTLY),
            timings=assets.url(assets.TIMINGS),
            page=view.page,
        )


# Deferred scripts run in this order. plotly.js comes last: it is evaluated while the
# first answers of the server are on their way.
PAGE = """<!DOCTYPE html>
<html lang="en"{theme}>
<head>
{metas}
<title>{title}</title>
<meta name="color-scheme" content="dark light">
<link rel="icon" type="image/svg+xml" href="{icon}">
<link rel="preload" href="{font}" as="font" type="font/woff2" crossorigin>
<link rel="preload" href="{plotly}" as="script">
<link rel="stylesheet" href="{style}">
{css}
</head>
<body>
{app_entry}
<noscript>The dashboard draws its charts with JavaScript; it is switched off.</noscript>
{config}
{scripts}
<script defer id="_dash-app" src="{script}"></script>
<script defer id="_dash-renderer" src="{renderer}"></script>
<script defer src="{plotly}" id="plotly"></script>
<script defer src="{timings}" data-page="{page}" data-to="/metrics/client"></script>
</body>
</html>
"""


def create_app(settings: Settings, store=None) -> Dashboard:
    """Return the dashboard; nothing is connected to before the first request.

    `store` replaces the one that DATABASE_URL names.
    """
    store = store or _store(settings)
    logging.getLogger("mltrading_dashboard").setLevel(settings.log_level.upper())
    server = flask.Flask("mltrading_dashboard", static_folder=None)
    server.config["COMPRESS_ALGORITHM"] = ["br", "gzip"]
    server.config["COMPRESS_BR_LEVEL"] = 4
    # Dash adds a route for its assets at the same address; the first one wins.
    assets.serve(server)
    app = Dashboard(
        name="mltrading_dashboard",
        server=server,
        compress=True,
        include_assets_files=False,
        use_pages=False,
        enable_mcp=False,
        suppress_callback_exceptions=False,
        update_title="",
        title="ML Trading",
        add_log_handler=False,
        on_error=_report,
    )
    app.data = Data(
        store,
        ttl=settings.cache_ttl_seconds,
        clock=time.monotonic,
        flags=settings.flags,
    )
    _tell_sources(server, app.data)
    app.layout = _frame()
    app.validation_layout = html.Div(
        [_frame(), *(part for page in routes.REGISTERED for part in page.skeleton())]
    )
    _register(app)
    for page in routes.REGISTERED:
        page.register(app, app.data)
    if settings.rate_limit:
        found = rate.counts(settings.cache_url, settings.environment)
        rate.limit(server, settings.rate_limit, found)
    security.protect(server, app, app.csp_hashes())
    security.believe(server, settings.trusted_proxies)
    if settings.debug:
        app.enable_dev_tools(debug=True, dev_tools_hot_reload=False)
    return app


@dataclass(frozen=True)
class Service:
    """The dashboard with its probes: `server` is the WSGI application."""

    settings: Settings
    server: flask.Flask
    health: Health
    metrics: Metrics

    def watch(self) -> Watcher | None:
        """Judge the metrics from inside this process, where the settings say so.

        For a worker, after its fork. None where somebody else judges them.
        """
        if self.settings.alerts != "evaluator":
            return None
        return watching.start(self.settings, self.health, self.metrics)


def create_service(settings: Settings, store=None) -> Service:
    """Return the service: probes and metrics first, then the dashboard."""
    # prometheus-client decides on import where it counts: not before it is needed.
    from mltrading_health import Metrics
    from mltrading_health.client import ClientTimings

    metrics = Metrics()
    bind(metrics)
    store = store or _store(settings, telemetry.hooks(metrics))
    app = create_app(settings, store)
    health = create_health(settings, store)
    app.data.look = lambda: standing.look(settings, health, metrics)
    for name, folder in disks(settings).items():
        metrics.disk(name, folder)
    instrument(
        app.server,
        health,
        metrics,
        label=telemetry.label(app.callback_map),
        client=ClientTimings(
            metrics, tuple(routes.PAGES), proxies=settings.trusted_proxies
        ),
    )
    return Service(settings, app.server, health, metrics)


def _tell_sources(server: flask.Flask, data: Data) -> None:
    """Answer /provenance: where the bars come from, as the pages show it."""

    @server.get("/provenance", endpoint="provenance")
    def provenance() -> tuple[dict, int]:
        try:
            said = data.provenance()
        except StoreError:
            return {"sources": None, "last_bar": None}, 503
        last = said.last_bar.isoformat() if said.last_bar else None
        return {"sources": list(said.sources), "last_bar": last}, 200


def tell_connections(settings: Settings, log) -> None:
    """Write how the connections of this host fit into what the database has left.

    Nothing is stopped for it: a deploy was refused before, and what is wrong now may
    be right when somebody asks.
    """
    needed = budget.Demand(
        settings.database_pool_size, settings.threads, settings.workers
    )
    try:
        said = budget.check(_address(settings), needed)
    except StoreError as error:
        log.warning("database connections: %s (%s)", error, error.hint)
    else:
        if said:
            log.info("database connections: %s", said)


def _address(settings: Settings):
    return parse_url(settings.database_url, require_tls=settings.database_ssl_require)


def _store(settings: Settings, hooks: Hooks | None = None):
    limits = Limits(
        # A thread asks one question at a time: more would never be used.
        pool_size=min(settings.database_pool_size, settings.threads),
        statement_timeout_s=settings.database_statement_timeout_ms / 1000,
    )
    return open_store(
        settings.database_url,
        limits,
        require_tls=settings.database_ssl_require,
        hooks=hooks or Hooks(),
        application=budget.WEB,
        cache_ttl_s=settings.cache_ttl_seconds,
        cache_url=settings.cache_url,
    )


def _frame():
    return html.Div(
        [
            dcc.Location(id="url", refresh=False),
            dcc.Store(id="scheme"),
            dcc.Store(id="title"),
            html.Div(id="app"),
        ]
    )


def _register(app: Dashboard) -> None:
    # The browser says which theme it shows before the first page is asked for.
    app.clientside_callback(
        ClientsideFunction("mltrading", "scheme"),
        Output("scheme", "data"),
        Input("url", "search"),
    )

    @app.callback(
        Output("app", "children"),
        Output("title", "data"),
        Input("url", "pathname"),
        Input("url", "search"),
        Input("scheme", "data"),
    )
    def page(pathname, search, scheme):
        scheme = scheme if scheme in THEMES else THEMES[0]
        view = routes.view(pathname, search, app.data.flags)
        rendered = routes.render(view, app.data, scheme)
        return rendered.children, rendered.title

    app.clientside_callback(
        ClientsideFunction("mltrading", "title"), Input("title", "data")
    )


def _report(error: Exception) -> None:
    """Log an error that no page foresaw, and say so where the page would be."""
    reference = secrets.token_hex(4)
    log.error("callback failed, reference %s", reference, exc_info=error)
    set_props("app", {"children": [html.Main(notices.fault(reference), id="main")]})


def _without_versions(match: re.Match) -> str:
    config = json.loads(match[2])
    told = {name: value for name, value in config.items() if name not in UNTOLD}
    return match[1] + json.dumps(told, separators=(",", ":")) + match[3]
