"""What is made from alerts.toml: texts, written to the checkout or compared with it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ops.alerts import alertmanager, grafana, neutral, prometheus
from ops.alerts.bounds import HOMES, bounds
from ops.alerts.rules import Rule, rules
from ops.alerts.site import Site, committed
from ops.alerts.thresholds import FILE, Alerts, load
from ops.environment import ROOT
from ops.errors import Usage

#: What a Prometheus, an Alertmanager and a Grafana read.
FOLDER = "ops/monitoring"
#: What the dashboard watches itself by.
NEUTRAL = "services/dashboard/src/mltrading_dashboard/alerts.json"


def asked(root: Path = ROOT) -> tuple[Alerts, tuple[Rule, ...]]:
    """Return what a checkout's alerts.toml says, and the rules of that.

    Raises:
        Usage: it is not allowed, or a rule could never fire.
    """
    alerts = load(root / FILE.relative_to(ROOT))
    return alerts, rules(alerts, known_bounds(root))


def known_bounds(root: Path = ROOT) -> dict[str, tuple[float, ...]]:
    """Return the bucket bounds of each histogram that a rule asks about.

    Raises:
        Usage: its source holds none.
    """
    found = {}
    for metric, (file, constant) in HOMES.items():
        try:
            found[metric] = bounds((root / file).read_text(), constant)
        except (OSError, SyntaxError, ValueError) as error:
            raise Usage(
                f"the buckets of {metric} can't be read: {error}",
                where=file,
                allowed=f"{constant} = (0.1, 0.5, …), growing numbers",
                next="name its home in ops/alerts/bounds.py",
            ) from None
    return found


def files(root: Path = ROOT) -> dict[str, str]:
    """Return all that is made: path in the checkout to text.

    Raises:
        Usage: alerts.toml is not allowed.
    """
    alerts, every = asked(root)
    made = {NEUTRAL: text(neutral.document(alerts, every))}
    for name, said in configurations(alerts, every, committed(alerts)).items():
        made[f"{FOLDER}/{name}"] = said
    return made


def configurations(alerts: Alerts, every: Sequence[Rule], site: Site) -> dict[str, str]:
    """Return what Prometheus, Alertmanager and Grafana read at a place, by file."""
    documents = {
        "prometheus.yml": prometheus.configuration(alerts, site),
        **prometheus.rule_files(alerts, every, site.environments),
        "alertmanager.yml": alertmanager.configuration(alerts, site),
        "dashboard.json": grafana.dashboard(alerts),
    }
    return {name: text(document) for name, document in documents.items()}


def text(document: Mapping[str, Any]) -> str:
    """Return a document as JSON, which is YAML too."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def drift(root: Path = ROOT) -> list[str]:
    """Return the paths whose file is not what alerts.toml asks for, or not at all."""
    made = files(root)
    wrong = [path for path, said in made.items() if _there(root / path) != said]
    folder = root / FOLDER
    there = folder.iterdir() if folder.is_dir() else ()
    strange = {f"{FOLDER}/{path.name}" for path in there} - made.keys()
    return [*wrong, *sorted(strange)]


def write(root: Path = ROOT) -> list[str]:
    """Write what differs and remove what nothing asks for; return the paths."""
    changed, made = drift(root), files(root)
    for path in changed:
        place = root / path
        if path not in made:
            place.unlink()
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = place.with_name(f".{place.name}-{os.getpid()}")
        scratch.write_text(made[path])
        os.replace(scratch, place)
    return changed


def _there(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
