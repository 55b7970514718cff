"""Whether the alerts are in order: what is committed, and what its programs say of it.

promtool checks the rules and puts each through its tests; amtool checks whom a message
of each environment and severity reaches.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ops.alerts import drills, generate
from ops.alerts.alertmanager import STRAY
from ops.alerts.prometheus import RULES, SLO
from ops.alerts.rules import Rule
from ops.alerts.thresholds import SEVERITIES, Alerts
from ops.command import Command
from ops.environment import ROOT
from ops.errors import Refused
from ops.shell import run

PROGRAMS = ("promtool", "amtool")


def missing() -> list[str]:
    """Return which of the programs are not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


def differing(root: Path = ROOT) -> list[str]:
    """Return what is not as alerts.toml asks for, as texts.

    Raises:
        Usage: alerts.toml is not allowed.
    """
    wrong = generate.drift(root)
    return [f"{path} is not what ops/alerts.toml asks for" for path in wrong]


def problems(root: Path = ROOT) -> list[str]:
    """Return all that is wrong with what is committed, as texts; none if it is well.

    Raises:
        Refused: promtool or amtool is not installed.
        Usage: alerts.toml is not allowed.
    """
    absent = missing()
    if absent:
        raise Refused(
            f"missing on this machine: {', '.join(absent)}",
            allowed="Debian's packages prometheus and prometheus-alertmanager",
            next="inv setup",
        )
    differ = differing(root)
    if differ:
        # What they say of old files tells nothing of the new ones.
        return differ
    alerts, rules = generate.asked(root)
    return judged(root / generate.FOLDER, alerts, rules, alerts.monitoring.environments)


def judged(
    folder: Path,
    alerts: Alerts,
    rules: Sequence[Rule],
    environments: Sequence[str],
) -> list[str]:
    """Return what the programs have against the files of a folder; side by side."""
    from concurrent.futures import ThreadPoolExecutor

    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(4) as beside:
        scratch = Path(name)
        tests = drills.documents(alerts, rules, environments)
        asked = []
        for file, document in tests.items():
            shutil.copyfile(folder / file, scratch / file)
            place = scratch / f"tests-{file}"
            place.write_text(generate.text(document))
            asked.append(("promtool", "test", "rules", str(place)))
        asked += _checks(folder, alerts, environments)
        return [text for texts in beside.map(_said, asked) for text in texts]


def _checks(
    folder: Path, alerts: Alerts, environments: Sequence[str]
) -> list[tuple[str, ...]]:
    """Return the commands that check each file, and whom a message reaches."""
    configuration = str(folder / "alertmanager.yml")
    service = f"service={alerts.monitoring.service}"
    routes = {
        (env, word): f"{env}-{word}" for env in environments for word in SEVERITIES
    }
    routes["nowhere", "critical"] = STRAY
    return [
        ("promtool", "check", "rules", *(str(folder / name) for name in (RULES, SLO))),
        # The files of secrets and targets are elsewhere.
        (
            *("promtool", "check", "config", "--syntax-only"),
            str(folder / "prometheus.yml"),
        ),
        ("amtool", "check-config", configuration),
        *(
            (
                *("amtool", "config", "routes", "test"),
                *(f"--config.file={configuration}", f"--verify.receivers={receiver}"),
                *(f"env={env}", f"severity={word}", "alertname=HighErrorRate", service),
            )
            for (env, word), receiver in routes.items()
        ),
    ]


def _said(argv: tuple[str, ...]) -> list[str]:
    """Return what a program has against its files; nothing where it is content."""
    result = run(Command(argv, timeout=60))
    return [] if result.ok else [f"{' '.join(argv[:3])}:\n{result.tail(30)}"]
