"""What the bench of probes counts is counted right."""

import pytest

from bench.health.probing import load, most_runs, percentile


@pytest.mark.parametrize(
    ("share", "value"), [(0.5, 2), (0.75, 3), (0.99, 4), (1.0, 4), (0.0, 1)]
)
def test_a_percentile_is_a_value_that_was_seen(share, value):
    assert percentile([4, 1, 3, 2], share) == value


def test_a_check_runs_once_and_again_after_each_time_to_live():
    assert most_runs(checks=6, seconds=8, ttl=1) == 54


def test_a_hung_and_a_slow_check_delay_the_first_answer_only():
    found = load(seconds=0.1, rate=100, threads=2)
    assert len(found.took) == 10 and found.runs["hung"] == 1
    assert sum(found.runs.values()) == len(found.runs) == 6
    assert set(found.statuses) == {"503 Service Unavailable"}
