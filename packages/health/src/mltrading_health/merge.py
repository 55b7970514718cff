"""Read the metric files of all slots and add up what they say.

prometheus-client reads every value of every file into an object before it adds; here
equal keys are added first, so a scrape costs half, and one worker more costs what its
file takes to read.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.utils import floatToGoString

#: More than any service of ours has: beyond it, what was parsed is parsed again.
MOST_KEYS = 65_536

Labels = tuple[tuple[str, str], ...]


class Key(NamedTuple):
    """Hold what the key of a stored value says; ``bound`` is that of a bucket."""

    family: str
    sample: str
    labels: Labels
    bound: float | None
    help: str


@lru_cache(MOST_KEYS)
def parse(key: str) -> Key:
    """Return the parts of a key as prometheus-client writes it."""
    family, sample, labels, help_text = json.loads(key)
    bound = labels.pop("le", None)
    return Key(
        family,
        sample,
        tuple(sorted(labels.items())),
        None if bound is None else float(bound),
        help_text,
    )


def merged(folder: Path) -> Iterator[Metric]:
    """Yield the metrics of all slots: counts added up, gauges as their name says.

    A file that is being made or removed is left out; it holds no count yet, or none any
    more.
    """
    sums: dict[tuple[str, str], dict[str, float]] = {}
    times: dict[str, float] = {}
    for path in sorted(folder.glob("*.db")):
        kind, _, rest = path.stem.partition("_")
        mode = rest.partition("_")[0] if kind == "gauge" else "sum"
        found = sums.setdefault((kind, mode.removeprefix("live")), {})
        _take(path, mode.removeprefix("live"), found, times)
    for (kind, _), found in sums.items():
        yield from _families(kind, found)


def _take(
    path: Path, mode: str, found: dict[str, float], times: dict[str, float]
) -> None:
    """Add the values of one file to those of its kind."""
    try:
        values = MmapedDict.read_all_values_from_file(path)
    except (FileNotFoundError, struct.error):
        return
    if mode == "sum":
        for key, value, _, _ in values:
            found[key] = found.get(key, 0.0) + value
    elif mode == "max":
        for key, value, _, _ in values:
            found[key] = max(found.get(key, value), value)
    elif mode == "min":
        for key, value, _, _ in values:
            found[key] = min(found.get(key, value), value)
    else:
        for key, value, at, _ in values:
            if at > times.get(key, 0.0):  # never set: no time
                found[key], times[key] = value, at


def _families(kind: str, found: dict[str, float]) -> Iterator[Metric]:
    """Yield the metrics of one kind.

    Keys that differ in their help only are one series: a reload may bring new words.
    """
    families: dict[str, tuple[str, dict[tuple[str, Labels], float]]] = {}
    buckets: dict[str, dict[Labels, dict[float, float]]] = {}
    for text, value in found.items():
        key = parse(text)
        family = families.setdefault(key.family, (key.help, {}))[1]
        if key.bound is None:
            series = (key.sample, key.labels)
            family[series] = family.get(series, 0.0) + value
        else:
            child = buckets.setdefault(key.family, {}).setdefault(key.labels, {})
            child[key.bound] = child.get(key.bound, 0.0) + value
    for name, (help_text, series) in families.items():
        metric = Metric(name, help_text, kind)
        for labels, counts in buckets.get(name, {}).items():
            total = 0.0
            for bound in sorted(counts):
                total += counts[bound]
                le = {**dict(labels), "le": floatToGoString(bound)}
                metric.add_sample(f"{name}_bucket", le, total)
            metric.add_sample(f"{name}_count", dict(labels), total)
        for (sample, labels), value in series.items():
            metric.add_sample(sample, dict(labels), value)
        yield metric
