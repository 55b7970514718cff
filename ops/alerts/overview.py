"""`inv alerts`: which alerts there are, who hears of them, and whether all fits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ops import report
from ops.alerts import generate, neutral, proving
from ops.alerts.prometheus import length
from ops.alerts.rules import Rule
from ops.alerts.thresholds import SEVERITIES, Alerts
from ops.environment import ROOT
from ops.errors import Refused, Usage


def show(
    env: str = "",
    *,
    check: bool = False,
    dry_run: bool = False,
    as_json: bool = False,
    root: Path = ROOT,
) -> None:
    """Write what is made from alerts.toml, or only say what differs; show the rules.

    `env` shows who hears of one environment; `check` also asks promtool and amtool.

    Raises:
        Refused: with `check`, something differs or is wrong.
        Usage: alerts.toml is not allowed, or there is no such environment.
    """
    alerts, every = generate.asked(root)
    if env and env not in alerts.audiences:
        raise Usage(
            f'nobody is named for the environment "{env}"',
            where=f"--env {env}",
            allowed=", ".join(alerts.audiences),
        )
    before = generate.drift(root)
    wrong = proving.problems(root) if check else []
    if not (check or dry_run):
        generate.write(root)
    shown = [env] if env else list(alerts.audiences)
    if as_json:
        document = neutral.document(alerts, every)
        document["environments"] = {e: document["environments"][e] for e in shown}
        differ = {"written": [] if check or dry_run else before, "differs": before}
        report.as_json({"schema_version": 1, **differ, "wrong": wrong, **document})
    else:
        _show(alerts, every, shown)
        _tell(before, "would be written" if check or dry_run else "written")
    if wrong:
        raise Refused(
            "the alerts are not in order", detail="\n".join(wrong), next="inv alerts"
        )
    if check and not as_json:
        report.step("ok", "alerts", "rules, tests of rules and routes are in order")


def _show(alerts: Alerts, every: Sequence[Rule], shown: Sequence[str]) -> None:
    rows = [
        (r.alert, r.severity, r.summary, length(r.for_s) if r.for_s else "")
        for r in every
    ]
    head = ("alert", "severity", "fires when", "for")
    report.data_table(rows, head, tones=_tones(every))
    report.say()
    people = [
        (
            alerts.audiences[env].title,
            word,
            alerts.audiences[env].channel,
            ", ".join(alerts.people(word, os.environ)),
        )
        for env in shown
        for word in SEVERITIES
    ]
    report.say(report.table(people, ("environment", "severity", "Slack", "mail")))


def _tones(every: Sequence[Rule]) -> dict[int, str]:
    return {n: "red" for n, rule in enumerate(every) if rule.severity == "critical"}


def _tell(changed: Sequence[str], how: str) -> None:
    report.say()
    for path in changed:
        report.say(f"  {how}: {path}")
    if not changed:
        report.say("  every file is what ops/alerts.toml asks for")
