"""What a campaign found, as figures; written while it goes on."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from bench.faults.campaign import Outcome, campaign
from ops import report
from ops.environment import ROOT
from ops.errors import Usage

# Every run, a line each, while the campaign goes on; not committed.
RUNS = ROOT / "reports" / "faults.jsonl"


def measure(runs: int, *, seed: int = 1, only: str = "") -> dict[str, Any]:
    """Do a campaign (100 runs by default, or `only` those numbers) and sum it up."""
    numbers: Sequence[int] = range(runs or 100)
    if only:
        numbers = chosen(only)
    RUNS.parent.mkdir(exist_ok=True)
    RUNS.unlink(missing_ok=True)
    begun = time.monotonic()
    outcomes: list[Outcome] = []

    def tell(found: Outcome) -> None:
        outcomes.append(found)
        with RUNS.open("a") as file:
            file.write(json.dumps(found.as_json()) + "\n")
        progress(found, len(outcomes), len(numbers), time.monotonic() - begun)

    try:
        campaign(numbers, seed, tell=tell)
    except KeyboardInterrupt:
        report.say(f"\n  interrupted after {len(outcomes)} runs", "yellow")
    if not outcomes:
        raise Usage("no run has ended", where="--runs")
    return summary(outcomes, seed, time.monotonic() - begun)


def chosen(only: str) -> list[int]:
    """Return the numbers in "3,17".

    Raises:
        Usage: it holds something else.
    """
    words = [word.strip() for word in only.split(",")]
    if not all(word.isdecimal() for word in words):
        raise Usage(f"{only} are not numbers", where="--only", allowed="such as 3,17")
    return [int(word) for word in words]


def progress(found: Outcome, done: int, total: int, took: float) -> None:
    """Print how far it is; a run with violations gets lines of its own."""
    left = took / done * (total - done)
    line = f"  {done} of {total} runs, about {left / 60:.0f} min left"
    if sys.stderr.isatty():
        print(f"\r{line} ", end="", file=sys.stderr, flush=True)
    elif done % 25 == 0 or done == total:
        report.say(line)
    if found.violations:
        run = found.run
        report.say(
            f"\n  run {run.number} (seed {run.seed}): {run.op} on {run.lane},"
            f" {run.fault.kind} [{found.struck}], exit codes {found.codes}",
            "red",
        )
        for violation in found.violations:
            report.say(f"    {violation}")


def summary(outcomes: Sequence[Outcome], seed: int, took: float) -> dict[str, Any]:
    """Return the figures of a campaign; times in seconds."""
    from bench.run import figure

    recoveries = [o.recovery for o in outcomes if o.recovery is not None]
    rollbacks = [seconds for o in outcomes for seconds in o.rollbacks]
    violations = [
        {
            "seed": seed,
            "run": o.run.number,
            "lane": o.run.lane,
            "op": o.run.op,
            "fault": o.run.fault.kind,
            "struck": o.struck,
            **asdict(each),
            "what": placeless(each.what),
            "said": [placeless(text) for text in o.said],
        }
        for o in outcomes
        for each in o.violations
    ]
    struck = [o.struck.partition(";")[0] for o in outcomes]
    kinds = [
        fault.kind for o in outcomes for fault in (o.run.fault, o.run.second) if fault
    ]
    return {
        "seed": seed,
        "campaign_runs": len(outcomes),
        "campaign_seconds": round(took, 1),
        "faults": dict(Counter(kinds).most_common()),
        "lanes": dict(Counter(o.run.lane for o in outcomes)),
        "operations": dict(Counter(o.run.op for o in outcomes)),
        "struck_at": dict(Counter(map(step_of, struck)).most_common()),
        "two_faults": sum(o.run.second is not None for o in outcomes),
        "exit_codes": codes(outcomes),
        "requests": {
            "sent": sum(o.sent for o in outcomes),
            "failed": sum(o.failed for o in outcomes),
            "while_a_host_was_out": sum(o.unreachable for o in outcomes),
        },
        "recovery_seconds": quantiles(recoveries),
        "rollback_seconds": quantiles(rollbacks),
        "violations": violations,
        "figures": [
            figure("runs with a fault", [len(outcomes)], "runs"),
            figure("violations", [len(violations)], "", 0),
            figure("failed requests", [sum(o.failed for o in outcomes)], "", 0),
            figure("the same again, whole command", recoveries or [0.0], "s"),
            figure("rollback, whole command", rollbacks or [0.0], "s", 30),
            figure("a run", [o.seconds for o in outcomes], "s"),
        ],
    }


def placeless(text: str) -> str:
    """Return what was said without where this checkout lies, as it is committed."""
    return text.replace(f"{ROOT}/", "")


def codes(outcomes: Iterable[Outcome]) -> dict[str, dict[str, int]]:
    """Return how often each fault's command ended with which exit code."""
    found: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        first = outcome.first
        found.setdefault(outcome.run.fault.kind, Counter())[str(first)] += 1
    return {kind: dict(counted.most_common()) for kind, counted in found.items()}


def step_of(struck: str) -> str:
    """Return where a fault struck: a journal boundary, or a kind of call."""
    words = struck.split()
    planted = len(words) == 5 and words[1].lstrip("-").isdigit()
    return f"{words[2]} {words[0]}" if planted else struck


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p95, p99 and the most."""
    if not values:
        return {}
    ordered = sorted(values)
    found = {
        f"p{share}": ordered[min(len(ordered) - 1, share * len(ordered) // 100)]
        for share in (50, 95, 99)
    }
    return {name: round(v, 3) for name, v in {**found, "max": ordered[-1]}.items()}
