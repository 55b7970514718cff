"""Timed functions feed metrics that may come later, and write one line each."""

import asyncio
import inspect
import logging

import pytest

from mltrading_health import Metrics
from mltrading_health import timed as timing
from mltrading_health.timed import bind, timed


@pytest.fixture
def metrics():
    metrics = Metrics(environ={})
    yield metrics
    bind(None)


def counted(metrics, name):
    found = metrics.snapshot()
    calls = found.total("function_duration_seconds_count", name=name)
    return calls, found.total("function_failures_total", name=name)


@timed("early")
def early(a, *, b=0):
    """Add."""
    return a + b


def test_a_function_that_was_timed_before_there_were_metrics(metrics):
    assert early(1, b=2) == 3
    bind(metrics)
    assert counted(metrics, "early") == (0, 0)
    assert early(1) == 1
    assert counted(metrics, "early") == (1, 0)
    assert (early.__name__, early.__doc__) == ("early", "Add.")
    assert list(inspect.signature(early).parameters) == ["a", "b"]


def test_the_failures_of_a_function_begin_at_zero(metrics):
    bind(metrics)
    timed("late")(early)
    series = metrics.snapshot().samples["function_failures_total"]
    assert series[frozenset({("name", "late")})] == 0.0


def test_a_failure_is_timed_counted_and_raised(metrics):
    bind(metrics)
    with pytest.raises(TypeError):
        early("a")
    assert counted(metrics, "early") == (1, 1)


def test_what_somebody_ends_has_not_failed(metrics, caplog):
    @timed("ended")
    def leave():
        raise SystemExit(0)

    bind(metrics)
    with caplog.at_level(logging.INFO), pytest.raises(SystemExit):
        leave()
    assert counted(metrics, "ended") == (1, 0)
    assert caplog.records[0].outcome == "cancelled"


def test_methods_are_timed(metrics):
    class Desk:
        @timed("method")
        def price(self):
            return self

        @staticmethod
        @timed("static")
        def fee():
            return 1

    bind(metrics)
    desk = Desk()
    assert desk.price() is desk and Desk.fee() == 1
    assert counted(metrics, "method") == counted(metrics, "static") == (1, 0)


def test_coroutine_functions_are_timed_until_they_end(metrics):
    ticks = iter([1.0, 3.5])

    @timed("awaited")
    async def price(fail):
        await asyncio.sleep(0)
        if fail:
            raise ValueError("no price")
        return 7

    bind(metrics)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing.time, "perf_counter", lambda: next(ticks))
        assert asyncio.run(price(False)) == 7
    total = metrics.snapshot().total("function_duration_seconds_sum", name="awaited")
    assert total == 2.5
    with pytest.raises(ValueError, match="no price"):
        asyncio.run(price(True))
    assert counted(metrics, "awaited") == (2, 1)
    assert inspect.iscoroutinefunction(price)


def test_each_call_is_one_line_with_its_fields(caplog):
    with caplog.at_level(logging.INFO, logger="mltrading_health.timed"):
        early(1)
        with pytest.raises(TypeError):
            early(None)
    ok, failed = caplog.records
    assert ok.name == "mltrading_health.timed" and ok.timed == "early"
    assert ok.outcome == "ok" and failed.outcome == "error"
    assert ok.getMessage() == f"early took {ok.seconds:.3f} s (ok)"


def test_nothing_is_written_where_nobody_reads_it(caplog):
    with caplog.at_level(logging.WARNING, logger="mltrading_health.timed"):
        early(1)
    assert not caplog.records


@pytest.mark.parametrize(("seconds", "lines"), [(3.5, 1), (2.5, 0)])
def test_a_slow_call_is_told_where_only_warnings_are(
    caplog, monkeypatch, seconds, lines
):
    times = iter([0.0, seconds])
    monkeypatch.setattr(
        "mltrading_health.timed.time.perf_counter", lambda: next(times, seconds)
    )
    with caplog.at_level(logging.WARNING, logger="mltrading_health.timed"):
        early(1)
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"slow: early took {seconds:.3f} s (ok)"] * lines


def generator():
    yield


async def feed():
    yield


@pytest.mark.parametrize(
    "function, said",
    [
        (generator, "generator runs while others iterate"),
        (feed, "generator runs while others iterate"),
        (staticmethod(early), "below @staticmethod"),
        (classmethod(early), "below @classmethod"),
        (Metrics, "times functions"),
        (None, "times functions"),
    ],
)
def test_what_cannot_be_timed_is_refused(function, said):
    with pytest.raises(TypeError, match=said):
        timed("x")(function)


def test_the_decorator_needs_a_name():
    with pytest.raises(TypeError, match='@timed\\("chart price"\\)'):
        timed(early)
