"""The whole pipeline that CI runs: quality, tests, build; one report, one exit code.

The report of the run before is taken away first and the new one is put in its place
by one rename, so a run that was killed leaves none that could be taken for its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ops import artefact, errors, github, quality, report, suite, trend
from ops.command import Command
from ops.environment import ROOT
from ops.shell import end_all
from ops.shell import run as shell_run

SCHEMA = 2
REPORT = ".ci/report.json"
# Seconds that a part of `inv ci` may take before it is reported as over its budget.
BUDGETS = {"quality": 180, "tests": 480, "build": 120}
WHOLE = 900
_TASK = {"quality": "quality", "tests": "test", "build": "build"}
_NAMES = tuple(BUDGETS)


def ci(
    *,
    use_cache: bool = True,
    as_json: bool = False,
    root: Path = ROOT,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, Any]:
    """Run quality and build side by side, then the tests; all also when one is red.

    Writes .ci/report.json, and gates.json beside the artefact; adds the run to what
    `inv report` shows. Changes that are not committed are refused where CI is set,
    elsewhere the artefact is marked.

    Raises:
        StepFailed: a part is red.
    """
    strict = environ.get("CI", "").lower() in ("1", "true")
    on_github = environ.get("GITHUB_ACTIONS") == "true"
    began, at = time.monotonic(), time.time()
    (root / REPORT).unlink(missing_ok=True)
    findings: list[github.Finding] = []

    def build() -> dict[str, Any]:
        made = artefact.build_task(allow_dirty=not strict, root=root)
        return {"artefact": made.digest, "dirty": made.dirty, "commit": made.commit}

    def tests() -> dict[str, Any]:
        try:
            outcomes = suite.run(root=root, use_cache=use_cache)
        finally:
            findings.extend(_of_tests(root))
        return {"pythons": [_outcome(outcome) for outcome in outcomes]}

    def asked() -> dict[str, Any]:
        try:
            verdicts = quality.quality(use_cache=use_cache, root=root)
        finally:
            findings.extend(_of_gates(root))
        return {"gates": {verdict.name: verdict.state for verdict in verdicts}}

    parts = _graph(asked, build, tests, on_github)
    total = time.monotonic() - began
    document = {
        "schema_version": SCHEMA,
        "at": round(at, 3),
        "python": ".".join(map(str, sys.version_info[:3])),
        "commit": parts["build"].get("commit") or _commit(root),
        "seconds": round(total, 3),
        "budget": WHOLE,
        "over": _over(parts, total),
        "ok": all(part["state"] == "green" for part in parts.values()),
        "parts": parts,
    }
    _beside(root, document)
    _write(root / REPORT, document)
    _remember(document)
    ranked = github.ranked(findings, _changed(root, environ) if findings else ())
    _show(document, ranked, environ, on_github)
    if as_json:
        report.as_json(document)
    red = [name for name in _NAMES if parts[name]["state"] != "green"]
    if red:
        raise errors.StepFailed(
            f"{', '.join(red)} red",
            next="; ".join(f"inv {_TASK[name]}" for name in red),
        )
    return document


def check(
    folder: Path,
    *,
    expected: Sequence[str],
    as_json: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Read the reports of several runs of `inv ci`; all expected ones must be green.

    `expected` are folders below `folder`, each with a report.json. A report that is
    missing, of another version, or in which no gate or no test ran, is a failure; so
    are reports of different artefacts or commits. On GitHub the artefact's digest
    becomes the output `artefact` of the step.

    Raises:
        StepFailed: not every report is there and green.
        Usage: nothing is expected.
    """
    if not expected:
        raise errors.Usage("no report is expected", where="--expect")
    said = {name: _verdict(folder / name) for name in expected}
    if as_json:
        report.as_json({"schema_version": 1, "reports": said})
    rows = [(name, "green" if not why else "red", why) for name, why in said.items()]
    report.say(report.table(rows, ("report", "state", "why")))
    red = [name for name, why in said.items() if why]
    if red:
        raise errors.StepFailed(
            f"{len(red)} of {len(said)} reports are missing or red: {', '.join(red)}"
        )
    built = {_built(folder / name) for name in expected}
    if len(built) != 1:
        told = "; ".join(f"{digest[:12]} of {commit[:9]}" for digest, commit in built)
        raise errors.StepFailed(
            f"the reports are of {len(built)} artefacts, wanted one", detail=told
        )
    if environ.get("GITHUB_OUTPUT"):
        with open(environ["GITHUB_OUTPUT"], "a", encoding="utf-8") as file:
            file.write(f"artefact={built.pop()[0]}\n")


def _built(folder: Path) -> tuple[str, str]:
    document = json.loads(next(folder.rglob("report.json")).read_text())
    return document["parts"]["build"]["artefact"], document["commit"]


def _verdict(folder: Path) -> str:
    """Return why a report is not green, "" when it is."""
    found = sorted(folder.rglob("report.json"))
    if len(found) != 1:
        return "there is no report" if not found else "there are several reports"
    try:
        document = json.loads(found[0].read_text())
        if document["schema_version"] != SCHEMA:
            return f"written by another version: {document['schema_version']}"
        parts = document["parts"]
        red = [name for name in _NAMES if parts[name]["state"] != "green"]
        if red:
            return f"{', '.join(red)} red"
        if not parts["quality"]["gates"]:
            return "0 gates were asked"
        if not all(one["passed"] for one in parts["tests"]["pythons"]):
            return "0 tests ran"
        if not parts["tests"]["pythons"] or not parts["build"]["artefact"]:
            return "no tests ran or nothing was built"
        return "" if document["ok"] else "it says that it is not green"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"it can't be read: {error!r}"


# The graph ----------------------------------------------------------------------------


def _graph(
    quality_: Callable[[], dict[str, Any]],
    build: Callable[[], dict[str, Any]],
    tests: Callable[[], dict[str, Any]],
    on_github: bool,
) -> dict[str, dict[str, Any]]:
    """Run quality and build side by side, then the tests; each prints in turn.

    The tests are not beside them: time budgets are among what they judge.
    """
    parts: dict[str, dict[str, Any]] = {}
    lines: list[Callable[[], object]] = []

    def beside() -> None:
        with report.held(lines):
            parts["build"] = _part("build", build)

    building = threading.Thread(target=beside)
    try:
        building.start()
        with _group("quality", on_github):
            parts["quality"] = _part("quality", quality_)
        building.join()
    except BaseException:
        # Nobody waits for the programs of a run that was interrupted, nor for one that
        # it was about to start.
        while building.is_alive():
            end_all()
            building.join(0.1)
        raise
    if "build" not in parts:
        raise errors.StepFailed("the build ended without a word", next="inv build")
    with _group("build", on_github):
        for line in lines:
            line()
    with _group("tests", on_github):
        parts["tests"] = _part("tests", tests)
    return {name: parts[name] for name in _NAMES}


def _part(name: str, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run one part to its end and return what it said and took."""
    report.say(f"\n{name}", "bold")
    begun = time.monotonic()
    said: dict[str, Any] = {"state": "green"}
    try:
        said |= act()
    except errors.OpsError as error:
        report.error(error)
        said |= {"state": "red", "error": error.as_json()}
    seconds = time.monotonic() - begun
    return {**said, "seconds": round(seconds, 3), "budget": BUDGETS[name]}


@contextlib.contextmanager
def _group(name: str, on_github: bool) -> Iterator[None]:
    if on_github:
        report.say(f"::group::{name}")
    try:
        yield
    finally:
        if on_github:
            report.say("::endgroup::")


# What is written ----------------------------------------------------------------------


def _outcome(outcome: suite.Outcome) -> dict[str, Any]:
    told = asdict(outcome)
    # Each file's figures are in reports/tests.json.
    return {name: told[name] for name in told if name not in ("files", "said")}


def _over(parts: Mapping[str, Mapping[str, Any]], total: float) -> list[str]:
    over = [name for name, part in parts.items() if part["seconds"] > part["budget"]]
    return over + (["whole"] if total > WHOLE else [])


def _beside(root: Path, document: Mapping[str, Any]) -> None:
    """Write gates.json beside the artefact: what was asked of it, and the answers."""
    digest = document["parts"]["build"].get("artefact")
    folder = root / "dist" / digest[:12] if digest else None
    if folder is None or not folder.is_dir():
        return
    parts = document["parts"]
    _write(
        folder / "gates.json",
        {
            "schema_version": 1,
            "artefact": digest,
            "commit": document["commit"],
            "dirty": parts["build"]["dirty"],
            "python": document["python"],
            "at": document["at"],
            "ok": document["ok"],
            "parts": {name: part["state"] for name, part in parts.items()},
            "gates": parts["quality"].get("gates", {}),
            "tests": [
                {name: one[name] for name in ("python", "passed", "failed", "skipped")}
                for one in parts["tests"].get("pythons", ())
            ],
        },
    )


def _write(path: Path, document: Mapping[str, Any]) -> None:
    """Put a document in its place by one rename."""
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(document, indent=2, sort_keys=True, default=str) + "\n"
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as scratch:
        scratch.write(text)
    os.chmod(scratch.name, 0o644)
    os.replace(scratch.name, path)


def _remember(document: Mapping[str, Any]) -> None:
    pythons = document["parts"]["tests"].get("pythons", [])
    entry = trend.Entry(
        at=document["at"],
        commit=document["commit"],
        ok=document["ok"],
        seconds=document["seconds"],
        tests=sum(one["passed"] for one in pythons),
        coverage=next((one["coverage"] for one in pythons), None),
        flaky=sum(len(one["flaky"]) for one in pythons),
        over=tuple(document["over"]),
    )
    try:
        trend.append(entry)
    except OSError as error:
        report.say(f"warning: the run is not recorded: {error}", "yellow")


def _commit(root: Path) -> str:
    asked = shell_run(Command(("git", "rev-parse", "HEAD"), cwd=root))
    return asked.out.strip() if asked.ok else ""


# What is found ------------------------------------------------------------------------


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return {}


def _of_gates(root: Path) -> list[github.Finding]:
    found = []
    for gate in _read(root / "reports" / "quality.json").get("gates", ()):
        if gate["state"] == "red":
            found += github.of_gate(gate["gate"], gate["findings"])
        elif gate["state"] == "warned":
            found.append(github.Finding("warning", gate["gate"], gate["findings"]))
    return found


def _of_tests(root: Path) -> list[github.Finding]:
    found = []
    for outcome in _read(root / "reports" / "tests.json").get("tests", ()):
        for node, said in outcome["said"].items():
            file = node.partition("::")[0]
            text = f"{node}: {said}"
            found.append(github.Finding("error", "test failed", text, file))
        for node, said in outcome["flaky"].items():
            file = node.partition("::")[0]
            text = f"{node}: said first: {said}"
            found.append(github.Finding("warning", "flaky test", text, file))
    return found


def _changed(root: Path, environ: Mapping[str, str]) -> list[str]:
    """Return the files of this change: against its base, or the commit before."""
    base = environ.get("GITHUB_BASE_REF")
    against = f"origin/{base}...HEAD" if base else "HEAD~1"
    words = ("git", "diff", "--name-only", against, "--")
    asked = shell_run(Command(words, cwd=root))
    return asked.out.splitlines() if asked.ok else []


def _show(
    document: Mapping[str, Any],
    findings: Sequence[github.Finding],
    environ: Mapping[str, str],
    on_github: bool,
) -> None:
    parts, total = document["parts"], document["seconds"]
    rows = [(n, p["state"], p["seconds"], p["budget"]) for n, p in parts.items()]
    rows.append(("whole", "green" if document["ok"] else "red", total, WHOLE))
    cells = [
        (
            name,
            state,
            report.seconds(took),
            report.seconds(budget),
            "OVER BUDGET" if took > budget else "",
        )
        for name, state, took, budget in rows
    ]
    head = ("part", "state", "took", "budget", "")
    tones = {i: "red" for i, row in enumerate(cells) if row[1] == "red" or row[4]}
    report.say("\n" + report.table(cells, head, right=(2, 3), tones=tones))
    if on_github:
        for line in github.annotations(findings):
            report.say(line)
    if environ.get("GITHUB_STEP_SUMMARY"):
        facts = _facts(document)
        text = github.summary(cells, head, facts, findings)
        with open(environ["GITHUB_STEP_SUMMARY"], "a", encoding="utf-8") as file:
            file.write(text)


def _facts(document: Mapping[str, Any]) -> dict[str, str]:
    facts = {"commit": document["commit"], "Python": document["python"]}
    digest = document["parts"]["build"].get("artefact")
    facts |= {"artefact": digest[:12]} if digest else {}
    for one in document["parts"]["tests"].get("pythons", ()):
        covered = one["coverage"]
        told = f"{one['passed']} passed, {one['failed']} failed, {one['cached']} files"
        facts["tests"] = f"{told} known" + (f", {covered} % covered" if covered else "")
    return facts
