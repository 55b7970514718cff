"""What a report of a browser costs, and the decorator that times functions."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from bench.health.apart import figures_of
from bench.run import figure

ROUNDS, TIMES = 20, 2000
SEED = {
    "load_time": 812,
    "user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
    "timestamp": 1_795_000_000_000,
}
VITALS = {"LCP": 900.1, "INP": 80, "CLS": 0.04, "FCP": 700.2, "TTFB": 20.1}


def measure(runs: int = 0) -> dict[str, Any]:
    """Return the figures of `runs` rounds (20), under slots as with gunicorn."""
    return figures_of("small", str(runs or ROUNDS))


def figures(rounds: int) -> list[dict[str, Any]]:
    """Return processor µs of reports, and of one call of a timed function."""
    from mltrading_health import Metrics
    from mltrading_health.client import ClientTimings, Rate
    from mltrading_health.timed import bind, timed

    metrics = Metrics()
    endless = Rate(1, 1e9)
    timings = ClientTimings(metrics, ("charts",), client=endless, worker=endless)
    items = [{"name": name, "value": value} for name, value in VITALS.items()]
    six = {"page": "charts", "load_time": 812, "vitals": items}

    def report(body: object) -> Callable[[], object]:
        data = json.dumps(body).encode()
        environ = {
            "CONTENT_TYPE": "text/plain;charset=UTF-8",
            "CONTENT_LENGTH": str(len(data)),
            "REMOTE_ADDR": "192.0.2.1",
            "HTTP_SEC_FETCH_SITE": "same-origin",
        }
        return lambda: timings.receive({**environ, "wsgi.input": io.BytesIO(data)})

    def nothing() -> None:
        pass

    call = timed("bench")(nothing)
    bind(metrics)
    plain = [processor_us(nothing) for _ in range(rounds)]
    around = [processor_us(call) for _ in range(rounds)]
    return [
        figure(
            "a browser's load time",
            [processor_us(report(SEED)) for _ in range(rounds)],
            "µs",
            30.0,
        ),
        figure(
            "a browser's load time and five vitals",
            [processor_us(report(six)) for _ in range(rounds)],
            "µs",
            30.0,
        ),
        figure(
            "@timed around a call",
            [x - y for x, y in zip(around, plain, strict=True)],
            "µs",
            5.0,
        ),
    ]


def processor_us(call: Callable[[], object]) -> float:
    """Return µs of processor time of one call."""
    begun = time.thread_time_ns()
    for _ in range(TIMES):
        call()
    return (time.thread_time_ns() - begun) / TIMES / 1000


if __name__ == "__main__":
    print(json.dumps(figures(int(sys.argv[1]))))
