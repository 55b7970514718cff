"""Time functions: how long, how often, how many failed, and one line in the log.

    @timed("chart price")
    def price(frame): ...

The numbers go to the metrics that ``bind`` names, which may come later than the
functions: a module is imported before its service is made.
"""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from mltrading_health.families import Names

if TYPE_CHECKING:
    from mltrading_health.metrics import Metrics

log = logging.getLogger(__name__)

#: Seconds. Holds what a chart may take (3 s) and bounds beyond it.
BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 3.0, 5.0, 10.0, 30.0),
)
#: Names that are told apart.
MOST_NAMES = 200
#: Seconds. A call that took longer is logged as a warning, which production logs too.
SLOW_S = 3.0

Timed = TypeVar("Timed", bound=Callable[..., Any])


class Timings:
    """Hold the metrics of timed functions."""

    def __init__(self, metrics: Metrics) -> None:
        labels = {"name": Names(MOST_NAMES)}
        self.took = metrics.histogram(
            "function_duration_seconds",
            "Time of a call, also of one that failed",
            labels,
            buckets=BUCKETS,
        )
        self.failed = metrics.counter(
            "function_failures", "Calls that raised an exception", labels
        )


_names: list[str] = []
_timings: Timings | None = None


def bind(metrics: Metrics | None) -> None:
    """Say which metrics all timed functions feed; None is none.

    The failures of each function begin at 0, so that its first one is an increase.
    """
    global _timings
    _timings = None if metrics is None else Timings(metrics)
    for name in _names:
        _expect(name)


def _expect(name: str) -> None:
    if _timings is not None:
        _timings.failed.labels(name)


def timed(name: str) -> Callable[[Timed], Timed]:
    """Return a decorator that times a function, method or coroutine function.

    ``name`` is a label: what the code calls the work, never what a visitor typed.

    Raises:
        TypeError: it is no such function. A generator is not, as its time would be
            that of whoever iterates.
    """
    if not isinstance(name, str) or not name:
        raise TypeError('a timed function needs a name: @timed("chart price")')

    def decorate(function: Timed) -> Timed:
        _refuse(name, function)
        _names.append(name)
        _expect(name)
        wrap = _waiting if inspect.iscoroutinefunction(function) else _calling
        return wrap(name, function)

    return decorate


def _refuse(name: str, function: object) -> None:
    """Raise a TypeError for what cannot be timed."""
    if isinstance(function, classmethod | staticmethod):
        kind = type(function).__name__
        raise TypeError(f'put @timed("{name}") below @{kind}, next to the function')
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f'@timed("{name}"): a generator runs while others iterate; '
            "time the function that consumes it"
        )
    if inspect.isclass(function) or not callable(function):
        raise TypeError(f'@timed("{name}") times functions, not {function!r}')


def _calling(name: str, function: Any) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            _failed(name, time.perf_counter() - began, error)
            raise
        _ended(name, time.perf_counter() - began, "ok")
        return result

    return call


def _waiting(name: str, function: Any) -> Any:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            _failed(name, time.perf_counter() - began, error)
            raise
        _ended(name, time.perf_counter() - began, "ok")
        return result

    return call


def _failed(name: str, seconds: float, error: BaseException) -> None:
    """Count an error; a call that somebody ended has not failed."""
    if isinstance(error, Exception):
        if _timings is not None:
            _timings.failed.labels(name).inc()
        _ended(name, seconds, "error")
    else:
        _ended(name, seconds, "cancelled")


def _ended(name: str, seconds: float, outcome: str) -> None:
    if _timings is not None:
        _timings.took.labels(name).observe(seconds)
    late = seconds > SLOW_S
    if late or log.isEnabledFor(logging.INFO):
        log.log(
            logging.WARNING if late else logging.INFO,
            "slow: %s took %.3f s (%s)" if late else "%s took %.3f s (%s)",
            name,
            seconds,
            outcome,
            # "name" is the logger's.
            extra={"timed": name, "seconds": round(seconds, 6), "outcome": outcome},
        )
