"""The files of all slots are added up, as prometheus-client would do it."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from mltrading_health.merge import merged


def write(path, values, at=0.0):
    file = MmapedDict(str(path))
    for key, value in values.items():
        file.write_value(key, value, at)
    file.close()


def key(sample, family=None, help_text="Help.", **labels):
    return mmap_key(family or sample, sample, list(labels), labels.values(), help_text)


def found(families):
    return {
        (family.name, family.type, sample.name, frozenset(sample.labels.items())): (
            sample.value
        )
        for family in families
        for sample in family.samples
    }


def samples(folder):
    return {
        (name, *sorted(labels)): value
        for (_, _, name, labels), value in found(merged(folder)).items()
    }


def test_counts_of_all_slots_are_added(tmp_path):
    for slot, count in (("0", 2), ("1", 3), ("master", 0)):
        write(tmp_path / f"counter_{slot}.db", {key("a_total", "a", x="y"): count})
    assert samples(tmp_path) == {("a_total", ("x", "y")): 5}


@pytest.mark.parametrize(
    "mode, expected", [("livesum", 5), ("livemax", 3), ("livemostrecent", 2)]
)
def test_gauges_are_joined_as_their_mode_says(tmp_path, mode, expected):
    for slot, value, at in (("0", 2, 9.0), ("1", 3, 8.0), ("2", 0, 0.0)):
        write(tmp_path / f"gauge_{mode}_{slot}.db", {key("g"): value}, at)
    assert samples(tmp_path) == {("g",): expected}


def test_a_recent_gauge_that_nobody_has_set_is_not_there(tmp_path):
    write(tmp_path / "gauge_livemostrecent_0.db", {key("g"): 0.0})
    assert samples(tmp_path) == {}


def test_a_reload_with_other_words_and_bounds_makes_no_double(tmp_path):
    for slot, words, bounds in (("0", "Old.", (1, 5)), ("1", "New.", (1, 2, 5))):
        values = {key("h_sum", "h", words): 1.5}
        values |= {key("h_bucket", "h", words, le=f"{b}.0"): 1 for b in bounds}
        write(tmp_path / f"histogram_{slot}.db", values)
    found = samples(tmp_path)
    assert found["h_sum",] == 3 and found["h_count",] == 5
    buckets = [found["h_bucket", ("le", f"{bound}.0")] for bound in (1, 2, 5)]
    assert buckets == [2, 3, 5]


def test_a_file_that_is_being_made_is_left_out(tmp_path):
    (tmp_path / "counter_0.db").touch()
    (tmp_path / "gauge_livesum_0.db").symlink_to(tmp_path / "removed")
    assert samples(tmp_path) == {}


WRITTEN = """
from mltrading_health import Metrics, slot
from mltrading_health.families import Names
metrics = Metrics()
load = metrics.gauge("load", "Load", {"of": Names(9)}, agg="max")
last = metrics.gauge("last", "Last", agg="recent")
for number in range(3):
    slot.take(str(number))
    for route in range(number + 1):
        metrics.answered("GET", f"/{route}", "5xx", 0.1 * 10 ** route)
    metrics.in_progress.inc(number)
    load.labels("a b").set(number)
    last.set(number)
"""


@pytest.mark.integration
def test_it_says_what_the_collector_of_prometheus_client_says(tmp_path):
    subprocess.run(
        [sys.executable, "-c", WRITTEN],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        check=True,
    )
    theirs = MultiProcessCollector(CollectorRegistry(), str(tmp_path)).collect()
    ours = list(merged(Path(tmp_path)))
    assert found(ours) == found(theirs) and len(found(ours)) > 50
    bounds = [s.labels["le"] for s in ours[-1].samples if "le" in s.labels]
    assert bounds == list(itertools.chain.from_iterable([bounds[:14]] * 3))
