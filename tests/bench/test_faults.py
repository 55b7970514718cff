"""What a campaign's seed leads to, and how its figures are counted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from bench.faults import checkout, faults, lane, report
from bench.faults.campaign import Outcome, Tail
from bench.faults.observer import Violation
from ops import environment
from ops.environment import ROOT
from ops.errors import Usage

SORTS = ("local", "ssh2", "ssh3")


def test_a_run_follows_from_seed_and_number_alone() -> None:
    assert faults.choose(7, 41) == faults.choose(7, 41)
    assert faults.choose(7, 41) != faults.choose(8, 41)


def test_a_thousand_runs_hold_every_kind_of_fault_on_every_sort_of_lane() -> None:
    runs = [faults.choose(1, number) for number in range(1000)]
    kinds = Counter(run.fault.kind for run in runs)
    assert set(kinds) == {kind.name for kind in faults.KINDS}
    assert {run.lane for run in runs} == set(SORTS)
    assert sum(run.second is not None for run in runs) > 50


def test_a_kind_strikes_only_where_it_can() -> None:
    for number in range(500):
        run = faults.choose(3, number)
        kind = faults.BY_NAME[run.fault.kind]
        assert kind.local if run.lane == "local" else kind.ssh
        assert run.fault.host < (1 if run.lane == "local" else int(run.lane[3:]))


def test_every_kind_has_something_that_does_it() -> None:
    for kind in faults.KINDS:
        name = "_" + kind.name.replace(",", "").replace(" ", "_")
        assert hasattr(faults.Strike, name)


def test_the_copied_environments_are_still_valid(tmp_path: Path) -> None:
    text = (ROOT / "ops" / "environments.toml").read_text()
    file = tmp_path / "environments.toml"
    file.write_text(checkout.environments(text))
    row = environment.load("staging", file)
    assert (row.gates, row.budget.boot, row.keep) == ((), 8, 3)
    assert checkout.SECRET in row.from_environment


def test_the_stand_ins_lock_holds_its_few_dependencies() -> None:
    text = checkout.lock((ROOT / "uv.lock").read_text(), ("typing-extensions",))
    package = '[[package]]\nname = "mltrading-dashboard"'
    dashboard = text.partition(package)[2].partition("]")[0]
    assert "gunicorn" in dashboard and "typing-extensions" in dashboard
    assert "pandas" not in dashboard


def test_a_journal_is_followed_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text('{"phase":"begin"}\n')
    tail = Tail(path, path.stat().st_size)
    with path.open("a") as file:
        file.write('{"phase":"intent","step":"boot"}\n{"phase":"do')
    assert (tail.read(), tail.last) == (1, "intent boot")
    assert (tail.read(), tail.last) == (1, "intent boot")


def test_violations_and_codes_are_counted_by_run() -> None:
    one = Outcome(faults.choose(1, 0), codes=[1, 0, 0], first=1, recovery=1.5)
    found = report.summary([one], 1, 3.0)
    assert found["exit_codes"] == {one.run.fault.kind: {"1": 1}}
    assert found["recovery_seconds"]["p99"] == 1.5
    assert found["violations"] == []


def test_a_report_does_not_say_where_the_checkout_lies() -> None:
    said = f'  File "{ROOT}/ops/menu.py", line 1'
    one = Outcome(faults.choose(1, 0), said=[said])
    one.violations.append(Violation("I10", "output", f"a trace: {said}"))
    found = report.summary([one], 1, 3.0)
    assert 'File \\"ops/menu.py' in json.dumps(found)
    assert str(ROOT) not in json.dumps(found)


def test_numbers_to_do_again_are_numbers() -> None:
    assert report.chosen("3, 17") == [3, 17]
    with pytest.raises(Usage):
        report.chosen("three")


def test_a_planted_call_is_told_from_a_journal_line() -> None:
    assert report.step_of("fsync 3 before 0 -") == "before fsync"
    assert report.step_of("intent boot") == "intent boot"


def test_a_disk_that_is_written_to_meanwhile_is_filled_all_the_same(
    tmp_path: Path,
) -> None:
    asked: list[str] = []

    def resize(size: str) -> None:
        asked.append(size)
        if len(asked) < 3:
            raise RuntimeError("mount: the size is smaller than what is used")

    lane._fill(tmp_path, resize)
    assert len(asked) == 3
