"""A short fault campaign: this machine and a fleet of two, drawn by a fixed seed."""

from __future__ import annotations

import pytest

from bench.faults.campaign import campaign
from bench.faults.faults import QUICK

pytestmark = pytest.mark.e2e


def test_a_short_campaign_of_faults_has_no_violation() -> None:
    outcomes = campaign(range(10), 2, lanes=("local", "ssh2"), kinds=QUICK)
    assert len(outcomes) == 10
    assert {outcome.run.lane for outcome in outcomes} == {"local", "ssh2"}
    told = [
        f"run {outcome.run.number}, {outcome.run.fault.kind}: {violation}"
        for outcome in outcomes
        for violation in outcome.violations
    ]
    assert told == []
    assert sum(outcome.sent for outcome in outcomes) > 100
