"""Run the tests, and the whole pipeline that CI runs."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
import xml.etree.ElementTree as xml  # nosec B405
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ops import artefact, cache, errors, pythons, quality, report
from ops.command import Command
from ops.environment import ROOT
from ops.shell import run as shell_run
from ops.tree import Tree

KINDS = ("unit", "smoke", "regression", "integration", "e2e")
UNIT = "not (regression or integration or e2e)"
# Seconds that a part of `inv ci` may take before it is reported as over its budget.
BUDGETS = {"quality": 180, "tests": 480, "build": 120}
WHOLE = 900


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the tests went on one Python; `failing` are pytest node ids."""

    python: str
    code: int
    passed: int
    failed: int
    skipped: int
    seconds: float
    failing: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True when tests ran and none failed."""
        return self.code == 0 and self.passed > 0


def markers(kinds: Sequence[str] = ()) -> str:
    """Return pytest's marker expression for kinds of tests; "" is all of them."""
    for kind in kinds:
        if kind not in KINDS:
            raise errors.Usage(f'there are no "{kind}" tests', allowed=", ".join(KINDS))
    return " or ".join(UNIT if kind == "unit" else kind for kind in kinds)


def run(
    kinds: Sequence[str] = (),
    *,
    paths: Sequence[str] = (),
    coverage: bool = True,
    python: str | Sequence[str] | None = None,
    fail_fast: bool = False,
    as_json: bool = False,
    believe: bool = False,
    root: Path = ROOT,
) -> tuple[Outcome, ...]:
    """Run tests of some kinds or all, here or on each Python named ("3.11,3.12").

    One Python streams what pytest prints; several run at once and print whole.
    Coverage is measured when nothing is left out by kind or path. A green run of all
    tests is remembered by the content of every file; `believe` takes that answer,
    which only `inv ci` does, right after or before `inv test`.

    Raises:
        Usage: no such kind of tests, or a Python is not found.
        StepFailed: a test failed, or none ran.
    """
    asked = python.split(",") if isinstance(python, str) else list(python or ())
    named = [name.strip() for name in asked if name.strip()]
    found = [pythons.interpreter(name, root) for name in named]
    coverage = coverage and not kinds and not paths
    arguments = ["-m", markers(kinds)] if kinds else []
    arguments += ["-x"] if fail_fast else []
    arguments += ["--cov", "--cov-report="] if coverage else []

    def on(name: str, executable: str, stream: bool) -> Outcome:
        suffix = f"-{name}" if named else ""
        written = [f"--junitxml=reports/junit{suffix}.xml"]
        if coverage:
            written.append(f"--cov-report=xml:reports/coverage{suffix}.xml")
        return _pytest(
            name, (executable, *arguments, *written, *paths), suffix, stream, root
        )

    (root / "reports").mkdir(exist_ok=True)
    whole = not (kinds or paths or named)
    known = _known(root) if whole and believe else None
    if known is not None:
        report.say(
            f"  {known.passed} tests passed on these very files before, "
            f"in {report.seconds(known.seconds)}; inv test runs them again"
        )
        return (known,)
    if not found:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        outcomes = [on(version, sys.executable, not as_json)]
    elif len(found) == 1:
        outcomes = [on(*found[0], not as_json)]
    else:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(len(found)) as pool:
            pending = [pool.submit(on, *pair, False) for pair in found]
            outcomes = [future.result() for future in pending]
    if as_json:
        report.as_json({"schema_version": 1, "tests": [asdict(o) for o in outcomes]})
    _judge(outcomes)
    if whole:
        _remember(root, outcomes[0])
    return tuple(outcomes)


def _key(root: Path) -> str:
    """Return the key of a run of all tests: every file's content, and this Python.

    "" where git can't list the files: such a run is not remembered.
    """
    listing = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = shell_run(Command(listing, cwd=root))
    if not listed.ok:
        return ""
    tree = Tree(root)
    names = sorted(filter(None, listed.out.split("\0")))
    files = [[name, tree.digest(name)] for name in names]
    return cache.key(suite=files, python=sys.version)


def _known(root: Path) -> Outcome | None:
    """Return what a whole run said of these very files, if it was green."""
    key = _key(root)
    if not key:
        return None
    with contextlib.closing(cache.Store.open()) as store:
        verdict = store.get(key)
    if verdict is None or not verdict.data:
        return None
    return Outcome(**{**verdict.data, "failing": ()})


def _remember(root: Path, outcome: Outcome) -> None:
    """Keep the green outcome of a whole run."""
    key = _key(root)
    if not key:
        return
    said = cache.Verdict("tests", "green", data=asdict(outcome))
    with contextlib.closing(cache.Store.open()) as store:
        store.put(key, said)


def _pytest(
    name: str, arguments: Sequence[str], suffix: str, stream: bool, root: Path
) -> Outcome:
    executable, *rest = arguments
    junit = root / "reports" / f"junit{suffix}.xml"
    junit.unlink(missing_ok=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mltrading-test-") as scratch:
        result = shell_run(
            Command(
                (executable, "-m", "pytest", *rest),
                cwd=root,
                env={**environ(Path(scratch)), "COVERAGE_FILE": f".coverage{suffix}"},
                timeout=3600,
            ),
            stream=stream,
        )
    if not stream:
        report.say(f"Python {name}\n{result.out.rstrip()}\n{result.err.rstrip()}")
    return _outcome(name, result.code, time.monotonic() - begun, junit)


def environ(scratch: Path) -> dict[str, str]:
    """Return the variables of the test environment, its database in a folder."""
    return {
        "DATABASE_URL": f"sqlite:///{scratch / 'test.db'}",
        "ENVIRONMENT": "test",
        "TESTING": "True",
        "DASH_DEBUG": "False",
    }


def _outcome(name: str, code: int, seconds: float, junit: Path) -> Outcome:
    """Return what the JUnit report says; without one, nothing ran."""
    try:
        # What our own pytest wrote, so no hostile document.
        cases = list(xml.parse(junit).iter("testcase"))  # nosec B314
    except (OSError, xml.ParseError):
        return Outcome(name, code or 1, 0, 0, 0, seconds, ())
    failing = [
        _node(case)
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped = sum(case.find("skipped") is not None for case in cases)
    failing = list(dict.fromkeys(failing))
    passed = len(cases) - len(failing) - skipped
    return Outcome(name, code, passed, len(failing), skipped, seconds, tuple(failing))


def _node(case: xml.Element) -> str:
    """Return the node id by which pytest runs this test again."""
    file, name = case.get("file", ""), case.get("name", "")
    module = file.removesuffix(".py").replace("/", ".")
    inner = case.get("classname", "").removeprefix(module).strip(".")
    return "::".join(part for part in (file, inner.replace(".", "::"), name) if part)


def _judge(outcomes: Sequence[Outcome]) -> None:
    bad = [outcome for outcome in outcomes if not outcome.ok]
    if not bad:
        return
    many = len(outcomes) > 1
    for outcome in bad:
        python = f".venv-{outcome.python}/bin/python -m" if many else "uv run"
        for node in outcome.failing:
            report.say(f"again: {python} pytest '{node}'")
    said = [
        (
            f"{outcome.failed} of {outcome.passed + outcome.failed} tests failed"
            if outcome.failing
            else (
                f"pytest ended with {outcome.code}"
                if outcome.passed or outcome.code not in (0, 5)
                else "0 tests ran, which proves nothing"
            )
        )
        + (f" on Python {outcome.python}" if many else "")
        for outcome in bad
    ]
    raise errors.StepFailed("; ".join(said))


def ci(
    *,
    use_cache: bool = True,
    as_json: bool = False,
    root: Path = ROOT,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, Any]:
    """Run quality, tests and build, all of them also when one is red.

    Writes reports/ci.json and shows each part's seconds against its budget. Changes
    that are not committed are refused where CI is set, elsewhere the artefact is
    marked.

    Raises:
        StepFailed: a part is red.
    """
    strict = environ.get("CI", "").lower() in ("1", "true")

    def build() -> dict[str, Any]:
        made = artefact.build_task(allow_dirty=not strict, root=root)
        return {"artefact": made.digest, "dirty": made.dirty}

    def tests() -> dict[str, Any]:
        outcomes = run(root=root, believe=use_cache)
        return {"pythons": [asdict(outcome) for outcome in outcomes]}

    def asked() -> dict[str, Any]:
        verdicts = quality.quality(use_cache=use_cache, root=root)
        return {"gates": {verdict.name: verdict.state for verdict in verdicts}}

    parts = {
        name: _part(name, act)
        for name, act in (("quality", asked), ("tests", tests), ("build", build))
    }
    total = sum(part["seconds"] for part in parts.values())
    document = {
        "schema_version": 1,
        "seconds": round(total, 3),
        "budget": WHOLE,
        "parts": parts,
    }
    (root / "reports").mkdir(exist_ok=True)
    text = json.dumps(document, indent=2, sort_keys=True, default=str)
    (root / "reports" / "ci.json").write_text(text + "\n")
    _summary(parts, total, environ)
    if as_json:
        report.as_json(document)
    red = [name for name, part in parts.items() if part["state"] != "green"]
    if red:
        raise errors.StepFailed(
            f"{', '.join(red)} red",
            next="; ".join(f"inv {_TASK[name]}" for name in red),
        )
    return document


_TASK = {"quality": "quality", "tests": "test", "build": "build"}


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


def _summary(
    parts: Mapping[str, Mapping[str, Any]], total: float, environ: Mapping[str, str]
) -> None:
    rows = [
        (name, part["state"], part["seconds"], part["budget"])
        for name, part in parts.items()
    ]
    red = any(row[1] == "red" for row in rows)
    rows.append(("whole", "red" if red else "green", total, WHOLE))
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
    if environ.get("GITHUB_STEP_SUMMARY"):
        lines = [head, ("---",) * len(head), *cells]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        with open(environ["GITHUB_STEP_SUMMARY"], "a", encoding="utf-8") as file:
            file.write(text + "\n")
