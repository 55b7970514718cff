"""A Grafana dashboard of what the alerts ask about. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ops.alerts.prometheus import BY, length
from ops.alerts.rules import promises
from ops.alerts.thresholds import Alerts

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH, _HEIGHT = 8, 7
_HERE = 'env="$env", service="$service"'
_RATE = "[$__rate_interval]"

Query = tuple[str, str]


def dashboard(alerts: Alerts) -> dict[str, Any]:
    """Return a dashboard to import; it asks which Prometheus and which environment."""
    critical, warning = alerts.levels["critical"], alerts.levels["warning"]
    limits = alerts.limits
    panels = [
        _panel(
            "Alerts", [(f"ALERTS{{{_HERE}, alertstate='firing'}}", "{{alertname}}")]
        ),
        _panel("Hosts that answer", [(f"up{{{_HERE}}}", "{{instance}}")]),
        _panel(
            "Release", [(f"release_info{{{_HERE}}}", "{{release}} {{commit}}")]
        ),
        _panel(
            "Requests",
            [(_rate("http_requests_total", "status"), "{{status}}")],
            "reqps",
        ),
        _panel(
            "Share of requests that fail",
            [(_failing(), "failing")],
            "percentunit",
            (warning.error_rate, critical.error_rate),
        ),
        _panel(
            "Time of an answer", _quantiles("http_request_duration_seconds"), "s",
            (warning.response_time_p95, critical.response_time_p95),
        ),
        _panel(
            "Memory, of the limit",
            [(_share("service_memory_used_bytes", "service_memory_limit_bytes"),
              "{{instance}}")],
            "percentunit",
            (warning.memory_usage, critical.memory_usage),
        ),
        _panel(
            "Memory of a worker",
            [(f"worker_memory_bytes{{{_HERE}}}", "{{instance}} {{worker}}")],
            "bytes",
            (limits.worker_memory,),
        ),
        _panel(
            "Processors in use",
            [(f"rate(worker_cpu_seconds_total{{{_HERE}}}{_RATE})", "{{worker}}")],
        ),
        _panel(
            "Disk in use",
            [(f"1 - {_share('disk_free_bytes', 'disk_size_bytes')}", "{{disk}}")],
            "percentunit",
            (1 - warning.disk_free, 1 - critical.disk_free),
        ),
        _panel(
            "Charts, 95 of 100",
            [(_quantile(0.95, 'function_duration_seconds', 'name', 'name=~"chart .*"'),
              "{{name}}")],
            "s",
            (limits.chart_time,),
        ),
        _panel(
            "Page loads in browsers, 95 of 100",
            [(_quantile(0.95, "browser_page_load_seconds", "page"), "{{page}}")],
            "s",
        ),
        _panel(
            "Questions to the database, mean",
            [(f"{_rate('database_query_duration_seconds_sum')} / "
              f"{_rate('database_query_duration_seconds_count')}", "mean")],
            "s",
            (limits.query_mean,),
        ),
        _panel(
            "Database connections in use",
            [(_share("database_connections_in_use", "database_connections_limit"),
              "{{instance}}")],
            "percentunit",
            (limits.pool_used,),
        ),
        _panel(
            "Waits for locks, 95 of 100",
            [(_quantile(0.95, "database_lock_wait_seconds"), "wait")],
            "s",
        ),
        _panel(
            "Checks: 0 pass, 1 warn, 2 fail",
            [(f"health_check_status{{{_HERE}}}", "{{check}} {{instance}}")],
            "none",
            (1, 2),
        ),
        *(
            _panel(
                f"Budget of {promise.name}: bad share",
                [(f'slo:bad:ratio_{length(window)}{{{_HERE}, slo="{promise.name}"}}',
                  length(window)) for window in _longs(alerts)],
                "percentunit",
                (promise.budget,),
            )
            for promise in promises(alerts)
        ),
    ]  # fmt: skip
    return {
        "uid": "mltrading",
        "title": "MLTrading",
        "tags": ["mltrading"],
        "schemaVersion": 37,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": [_placed(number, panel) for number, panel in enumerate(panels)],
    }


def _longs(alerts: Alerts) -> list[float]:
    return sorted({burn.long for burn in alerts.burns})


def _variables() -> list[dict[str, Any]]:
    source = {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
    }
    asked = [
        {
            "name": name,
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": f"label_values({query}, {name})", "refId": name},
            "refresh": 1,
        }
        for name, query in (("env", "up"), ("service", 'up{env="$env"}'))
    ]
    return [source, *asked]


def _panel(
    title: str,
    queries: Sequence[Query],
    unit: str = "none",
    thresholds: Sequence[float] = (),
) -> dict[str, Any]:
    """Return a panel; thresholds are drawn from mild to bad."""
    colours = ["orange", "red"] if len(thresholds) == 2 else ["red"]
    steps = [{"color": "green", "value": None}] + [
        {"color": colour, "value": round(value, 9)}
        for colour, value in zip(colours, thresholds, strict=bool(thresholds))
    ][: len(thresholds)]
    defaults: dict[str, Any] = {
        "unit": unit,
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if thresholds:
        defaults["custom"] = {"thresholdsStyle": {"mode": "line"}}
    return {
        "title": title,
        "type": "timeseries",
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _SOURCE,
                "expr": expression,
                "legendFormat": legend,
            }
            for number, (expression, legend) in enumerate(queries)
        ],
    }


def _placed(number: int, panel: dict[str, Any]) -> dict[str, Any]:
    row, column = divmod(number, 3)
    place = {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}
    return {"id": number + 1, **panel, "gridPos": place}


def _rate(metric: str, by: str = "", more: str = "") -> str:
    labels = f"{BY}, {by}" if by else BY
    here = f"{_HERE}, {more}" if more else _HERE
    return f"sum by ({labels}) (rate({metric}{{{here}}}{_RATE}))"


def _failing() -> str:
    part = _rate("http_requests_total", "", 'status="5xx"')
    whole = _rate("http_requests_total")
    return f"({part} or 0 * {whole}) / {whole}"


def _share(part: str, whole: str) -> str:
    return f"{part}{{{_HERE}}} / {whole}{{{_HERE}}}"


def _quantile(share: float, metric: str, by: str = "", more: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share:g}, {_rate(f'{metric}_bucket', labels, more)})"


def _quantiles(metric: str) -> list[Query]:
    return [(_quantile(q, metric), f"{q:.0%} within") for q in (0.5, 0.95, 0.99)]
