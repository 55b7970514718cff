"""Remember some minutes of samples, and ask of them what PromQL would.

A snapshot is what one scrape is for Prometheus: a series that is missing in it has
ended, and counts as having no value from then on.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mltrading_health.watch.rules import (
    Labels,
    Level,
    Mean,
    Ratio,
    Rule,
    Selector,
    Slow,
)

#: All samples of a service by their full name (``http_requests_total``, ``…_bucket``).
Samples = Mapping[str, Mapping[Labels, float]]
#: Seconds for which a value counts as the present one, if no newer snapshot is there.
LOOKBACK = 300.0
#: A gap of more than this many mean distances at the edge of a window is a real one.
GAP = 1.1


class History:
    """Keep the samples that some rules ask for, as long as they need them.

    Times are seconds of a clock that never goes back. What no rule names is not kept,
    so its size is (series of the rules) × (longest window / interval) × 16 bytes.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._wanted: dict[str, list[Selector]] = {}
        self.keep_s = 0.0
        for rule in rules:
            for selector in selectors(rule):
                self._wanted.setdefault(selector.metric, []).append(selector)
            if not isinstance(rule.asks, Level):
                self.keep_s = max(self.keep_s, rule.asks.window_s)
        self._series: dict[str, dict[Labels, tuple[array[float], array[float]]]] = {
            name: {} for name in self._wanted
        }
        self._snapshots: deque[float] = deque()
        self.first_at: float | None = None

    def __len__(self) -> int:
        """Return the number of values that are kept."""
        every = (kept for by in self._series.values() for kept in by.values())
        return sum(len(times) for times, _ in every)

    @property
    def snapshots(self) -> int:
        """Return the number of snapshots that are kept."""
        return len(self._snapshots)

    def add(self, at: float, samples: Samples) -> None:
        """Take in a snapshot.

        Raises:
            ValueError: it is not newer than the last one.
        """
        if self._snapshots and at <= self._snapshots[-1]:
            raise ValueError(f"a snapshot of {at} after one of {self._snapshots[-1]}")
        if self.first_at is None:
            self.first_at = at
        self._snapshots.append(at)
        for name, chosen in self._wanted.items():
            kept = self._series[name]
            for labels, value in samples.get(name, {}).items():
                points = kept.get(labels)
                if points is None:
                    if not any(selector.takes(labels) for selector in chosen):
                        continue
                    points = kept[labels] = (array("d"), array("d"))
                points[0].append(at)
                points[1].append(value)
        self._forget(at - self.keep_s)

    def _forget(self, before: float) -> None:
        while self._snapshots[0] < before:
            self._snapshots.popleft()
        for kept in self._series.values():
            for labels in list(kept):
                times, values = kept[labels]
                gone = bisect_left(times, before)
                if gone == len(times):
                    del kept[labels]
                elif gone:
                    del times[:gone], values[:gone]

    def rate(self, selector: Selector, window_s: float, now: float) -> float | None:
        """Return the sum of the rates per second of the chosen series.

        None if none of them has two points in the window.
        """
        found = [
            rate
            for times, values in self._chosen(selector)
            if (rate := per_second(times, values, now - window_s, now)) is not None
        ]
        return sum(found) if found else None

    def _chosen(
        self, selector: Selector
    ) -> Iterator[tuple[array[float], array[float]]]:
        for labels, points in self._series.get(selector.metric, {}).items():
            if selector.takes(labels):
                yield points

    def values(self, selector: Selector, now: float) -> dict[Labels, float]:
        """Return the present value of each chosen series."""
        i = bisect_right(self._snapshots, now) - 1
        if i < 0 or self._snapshots[i] < now - LOOKBACK:
            return {}
        at, found = self._snapshots[i], {}
        for labels, (times, values) in self._series.get(selector.metric, {}).items():
            k = bisect_left(times, at)
            if k < len(times) and times[k] == at and selector.takes(labels):
                found[labels] = values[k]
        return found


def selectors(rule: Rule) -> tuple[Selector, ...]:
    """Return what a rule reads."""
    match rule.asks:
        case Ratio(part=part, whole=whole):
            return part, whole
        case Slow(fast=fast, count=count):
            return fast, count
        case Mean(sum=total, count=count):
            return total, count
        case Level(of=of, over=over):
            return (of,) if over is None else (of, over)


def per_second(
    times: Sequence[float], values: Sequence[float], start: float, end: float
) -> float | None:
    """Return by how much a counter grows a second between two times, as PromQL's rate.

    The growth between the first and last point in the window, where a fall is a
    restart from zero, is carried on to the edges of the window: to the edge itself if
    that is about as near as points lie apart, else by half of that distance, and not
    to before the time at which the counter would have been zero. None for fewer than
    two points.
    """
    first, past = bisect_left(times, start), bisect_right(times, end)
    if past - first < 2:
        return None
    last = past - 1
    grown = values[last] - values[first]
    for i in range(first + 1, past):
        if values[i] < values[i - 1]:
            grown += values[i - 1]
    covered = times[last] - times[first]
    apart = covered / (last - first)
    before, after = times[first] - start, end - times[last]
    if grown > 0 and values[first] >= 0:
        before = min(before, covered * (values[first] / grown))
    # In this order, so that a tie with a threshold is one in Prometheus, too.
    carried = covered
    for edge in (before, after):
        carried += edge if edge < apart * GAP else apart / 2
    return grown * (carried / covered / (end - start))
