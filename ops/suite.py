"""Run the tests: only those whose verdict is not known, side by side.

What a test file's verdict rests on is decided in `ops.tested`; here files are chosen,
pytest is run on those that must be asked, and what was said is kept and shown.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ops import errors, flaky, junit, pythons, report, shards, tested
from ops.cache import Store, Verdict
from ops.command import Command
from ops.environment import ROOT
from ops.shell import run as shell_run
from ops.tested import Ground, Question

KINDS = ("unit", "smoke", "regression", "integration", "e2e")
UNIT = "not (regression or integration or e2e)"
# Tests that ask a service at an address, deployed by us or started for them.
DEPLOYED = "tests/deployed"
# How long fixtures may take to put away what they made, when tests are ended.
GRACE = 25


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the tests went on one Python; `failing` are pytest node ids.

    `seconds` is what this run took, `saved` what the `cached` files took when they
    were run. `files` is what each file said; `flaky` is node id to what was said
    first. `coverage` is in percent, None where it was not measured.
    """

    python: str
    code: int
    passed: int
    failed: int
    skipped: int
    seconds: float
    failing: tuple[str, ...]
    cached: int = 0
    saved: float = 0.0
    coverage: float | None = None
    flaky: Mapping[str, str] = field(default_factory=dict)
    said: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """True when tests ran and none failed."""
        return self.code == 0 and self.passed > 0


@dataclass(frozen=True, slots=True)
class Asked:
    """What one call of `inv test` asks for."""

    kinds: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    coverage: bool = True
    fail_fast: bool = False
    stream: bool = True
    use_cache: bool = True
    explain: bool = False
    jobs: int = 0
    shard: str = ""
    url: str = ""

    @property
    def whole(self) -> bool:
        """True when no test is left out."""
        return not (self.kinds or self.paths or self.shard or self.url)


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
    use_cache: bool = True,
    explain: bool = False,
    jobs: int = 0,
    shard: str = "",
    url: str = "",
    record: bool = False,
    root: Path = ROOT,
) -> tuple[Outcome, ...]:
    """Run tests of some kinds or all, here or on each Python named ("3.11,3.12").

    Files whose verdict is known are not run again. Coverage is measured when nothing
    is left out. `url` asks the service there; such answers are not kept. `record`
    writes the seconds of each file into the tree, by which shards are parted.

    Raises:
        Usage: no such kind of tests, shard or address; or a Python is not found.
        StepFailed: a test failed, or none ran.
    """
    named = python.split(",") if isinstance(python, str) else list(python or ())
    named = [name.strip() for name in named if name.strip()]
    marks = markers(kinds)
    if shard:
        shards.parse(shard)
    if url:
        _address(url, kinds)
        paths = paths or (DEPLOYED,)
    asked = Asked(
        kinds=tuple(kinds),
        paths=tuple(paths),
        coverage=coverage and not (kinds or paths or shard),
        fail_fast=fail_fast,
        stream=not as_json,
        use_cache=use_cache and not url,
        explain=explain,
        jobs=jobs or _workers(len(os.sched_getaffinity(0))),
        shard=shard,
        url=url,
    )
    (root / "reports").mkdir(exist_ok=True)
    if not named:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        outcomes = [_on(version, sys.executable, "", marks, asked, root)]
    else:
        # One after another: each uses all processors, and budgets stay what they are.
        outcomes = []
        for name, executable in [pythons.interpreter(name, root) for name in named]:
            report.say(f"Python {name}", "bold")
            outcomes.append(_on(name, executable, f"-{name}", marks, asked, root))
    document = {"schema_version": 2, "tests": [asdict(o) for o in outcomes]}
    text = json.dumps(document, indent=2, sort_keys=True)
    (root / "reports" / "tests.json").write_text(text + "\n")
    if as_json:
        report.as_json(document)
    if record:
        _record(outcomes, root)
    _judge(outcomes, root)
    return tuple(outcomes)


def _workers(processors: int) -> int:
    """Return how many workers keep the processors busy: deploys mostly wait."""
    return processors + max(1, processors // 2)


def _address(url: str, kinds: Sequence[str]) -> None:
    if not url.startswith(("http://", "https://")):
        raise errors.Usage(
            f'"{url}" is no address', where="--url", allowed="https://… or http://…"
        )
    if not kinds or set(kinds) - {"smoke", "integration"}:
        raise errors.Usage(
            "what is deployed is asked by smoke or integration tests",
            where="--url",
            next="inv test --smoke --url ADDRESS",
        )


def _on(
    name: str, executable: str, suffix: str, marks: str, asked: Asked, root: Path
) -> Outcome:
    """Return how the tests went on one Python."""
    begun = time.monotonic()
    version, packages = tested.python_of(executable)
    question = Question(version, packages, marks, asked.coverage)
    with contextlib.closing(Store.open()) as store:
        ground = Ground.of(root, store, question, os.environ)
        if ground is None:
            return _unkept(name, executable, suffix, marks, asked, root)
        keep = asked.whole and not asked.fail_fast
        key = ground.whole() if keep else ""
        stamp = root / "reports" / f"tests{suffix}.stamp"
        if keep and asked.use_cache and not asked.explain:
            known = store.get(key)
            same = known is not None and _text(stamp) == key
            if same and tested.fresh(known):
                taken = time.monotonic() - begun
                return _again(known, name, taken)
        files = _files(ground, root, asked)
        outcome = _ask(name, executable, suffix, files, ground, asked, root, begun)
        if keep and outcome.ok and not outcome.flaky:
            data = {**asdict(outcome), "day": tested.today()}
            store.put(key, Verdict("tests", "green", data=data))
            stamp.write_text(key)
    return outcome


def _text(file: Path) -> str:
    return file.read_text() if file.is_file() else ""


def _again(known: Verdict, name: str, seconds: float) -> Outcome:
    """Return the outcome of a tree in which nothing changed, and say so."""
    data = dict(known.data or {})
    data.pop("day")
    ran = sum(file["seconds"] for file in data["files"].values())
    files = {f: {**said, "state": "cached"} for f, said in data["files"].items()}
    told = {"seconds": seconds, "saved": ran, "cached": len(files), "failing": ()}
    outcome = Outcome(**{**data, **told, "python": name, "files": files})
    _say(outcome)
    return outcome


def _files(ground: Ground, root: Path, asked: Asked) -> list[str]:
    """Return the test files that were asked for and may hold such tests."""
    settings = ground.tree.config("pyproject.toml#tool.pytest.ini_options")
    folders = list(asked.paths) or list(settings.get("testpaths", []))
    files = tested.tests_of(ground.paths, folders)
    words = [kind for kind in asked.kinds if kind != "unit"]
    if words and "unit" not in asked.kinds:
        files = [file for file in files if ground.speaks_of(file, words)]
    if asked.kinds == ("smoke",) and not asked.url:
        # Those start a server, which a commit hook has no time for.
        files = [file for file in files if not file.startswith(f"{DEPLOYED}/")]
    if asked.shard:
        which, count = shards.parse(asked.shard)
        files = shards.part(files, shards.times(root), count)[which - 1]
    return files


def _ask(
    name: str,
    executable: str,
    suffix: str,
    files: Sequence[str],
    ground: Ground,
    asked: Asked,
    root: Path,
    begun: float,
) -> Outcome:
    """Run the files whose verdict is not known; join it with what is known."""
    known: dict[str, Verdict] = {}
    for file in files:
        verdict, inputs = ground.known(file) if asked.use_cache else (None, [])
        if verdict is not None:
            known[file] = verdict
        elif asked.explain:
            report.say(f"{file}: {'; '.join(ground.changed(file, inputs)[:8])}")
    todo = [file for file in files if file not in known]
    run_ = _Run(code=0)
    if todo or not files:
        with tempfile.TemporaryDirectory(prefix="mltrading-test-") as scratch:
            times = ground.times(todo, shards.times(root))
            run_ = _pytest(executable, todo, times, Path(scratch), asked, ground, root)
    fresh = _keep(todo, run_, ground, asked)
    every = {
        file: known.get(file) or fresh[file]
        for file in files
        if file in fresh or file in known
    }
    cases = [
        case
        for file in every
        for case in junit.cases_of((every[file].data or {})["cases"])
    ]
    cases += [case for case in run_.cases if case.file not in every]
    percent = None
    if asked.coverage and run_.code in (0, 1):
        percent = _covered(every.values(), ground, suffix, root)
    said = {
        file: {
            "state": "cached" if file in known else _state(verdict),
            "seconds": round(verdict.seconds, 3),
            **{n: (verdict.data or {})[n] for n in ("passed", "failed", "skipped")},
        }
        for file, verdict in every.items()
    }
    seconds = time.monotonic() - begun
    outcome = _outcome(name, run_.code, cases, seconds)
    properties = {"python": name, "cached files": str(len(known))}
    junit.write(root / "reports" / f"junit{suffix}.xml", cases, properties)
    return _joined(outcome, known, run_, percent, said)


def _state(verdict: Verdict) -> str:
    return "failed" if verdict.state == "red" else "ran"


def _joined(
    outcome: Outcome,
    known: Mapping[str, Verdict],
    run_: _Run,
    percent: float | None,
    said: Mapping[str, Mapping[str, Any]],
) -> Outcome:
    # pytest ends with 5 where it found no test: others may be known.
    code = 0 if run_.code == 5 and (outcome.passed or outcome.skipped) else run_.code
    joined = {
        **{name: getattr(outcome, name) for name in Outcome.__slots__},
        "code": code,
        "cached": len(known),
        "saved": round(sum(verdict.seconds for verdict in known.values()), 3),
        "coverage": percent,
        "flaky": run_.flaky,
        "files": said,
    }
    whole = Outcome(**joined)
    _say(whole)
    return whole


@dataclass
class _Run:
    """What one start of pytest said."""

    code: int
    cases: Sequence[junit.Case] = ()
    told: Mapping[str, Any] = field(default_factory=dict)
    arcs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    flaky: dict[str, str] = field(default_factory=dict)


def _pytest(
    executable: str,
    files: Sequence[str],
    times: Mapping[str, float],
    scratch: Path,
    asked: Asked,
    ground: Ground | None,
    root: Path,
) -> _Run:
    """Run pytest on files, in forked workers, and read all that it wrote."""
    from ops import covered

    written = {
        name: scratch / name for name in ("junit.xml", "said.json", "times.json")
    }
    written["times.json"].write_text(json.dumps(times))
    marks = markers(asked.kinds)
    words = ["-p", "ops.forks", f"--forks={asked.jobs}"]
    words += [f"--forks-times={written['times.json']}"]
    words += [f"--forks-said={written['said.json']}"]
    words += [f"--junitxml={written['junit.xml']}"]
    words += ["-m", marks] if marks else []
    words += ["-x"] if asked.fail_fast else []
    words += ["--cov", "--cov-report="] if asked.coverage else ["-p", "no:cov"]
    extra = {} if root == ROOT else {"PYTHONPATH": str(ROOT)}
    extra |= {"MLTRADING_URL": asked.url} if asked.url else {}
    data = scratch / "coverage"
    result = shell_run(
        Command(
            (executable, "-m", "pytest", *words, *files),
            cwd=root,
            env={**environ(scratch), **extra, "COVERAGE_FILE": str(data)},
            timeout=3600,
            grace=GRACE,
        ),
        stream=asked.stream,
    )
    if not asked.stream:
        report.say(f"{result.out.rstrip()}\n{result.err.rstrip()}")
    told: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        told = json.loads(written["said.json"].read_text())
    arcs = covered.by_context(data, root) if data.is_file() else {}
    cases = junit.read(written["junit.xml"])
    code = result.code if cases is not None else result.code or 1
    found = {
        n: s
        for file in told.get("files", {}).values()
        for n, s in file["flaky"].items()
    }
    return _Run(code, cases or (), told, arcs, found)


def environ(scratch: Path) -> dict[str, str]:
    """Return the variables of the test environment, its database in a folder."""
    return {
        "DATABASE_URL": f"sqlite:///{scratch / 'test.db'}",
        "ENVIRONMENT": "test",
        "TESTING": "True",
        "DASH_DEBUG": "False",
    }


def _keep(
    files: Sequence[str], run_: _Run, ground: Ground, asked: Asked
) -> dict[str, Verdict]:
    """Keep what each file said; note those that said something else before."""
    from ops import covered, reads

    told = run_.told.get("files", {})
    collected = run_.told.get("collected") or {"files": [], "folders": [], "starts": []}
    everyone = [
        collected,
        *(said["reads"] for said in told.values() if "reads" in said),
    ]
    shared = {**reads.merged(everyone), "starts": collected["starts"]}
    by_file: dict[str, list[junit.Case]] = {}
    for case in run_.cases:
        by_file.setdefault(case.file, []).append(case)
    verdicts = {}
    for file in files:
        cases, said = by_file.get(file, []), told.get(file)
        ended = run_.code in (0, 1, 5)
        cut = asked.fail_fast and run_.code == 1
        if said is None and (cases or not ended or cut):
            # It was not asked to its end, so nothing is known of it.
            if cases:
                verdicts[file] = _verdict(file, cases, {}, None)
            continue
        said = said or {}
        arcs = None
        if asked.coverage:
            closure = ground.closure(file)
            own = run_.arcs.get(file, {})
            early = run_.arcs.get("", {})
            arcs = covered.packed(
                {
                    path: [*own.get(path, ()), *early.get(path, ())]
                    for path in {*own, *(p for p in early if p in closure)}
                }
            )
        verdict = _verdict(file, cases, said, arcs)
        verdicts[file] = verdict
        if "reads" not in said and cases:
            continue
        own = said.get("reads") or {"files": [], "folders": [], "starts": []}
        if asked.coverage:
            executed = [["", path] for path in run_.arcs.get(file, {})]
            own = {**own, "files": [*own["files"], *executed]}
        before = ground.keep(file, {**own, "shared": shared}, verdict)
        if verdict.state == "green" and before:
            text = "failed before on the very same files"
            run_.flaky.update(dict.fromkeys(before, text))
    return verdicts


def _verdict(
    file: str, cases: Sequence[junit.Case], said: Mapping[str, Any], arcs: str | None
) -> Verdict:
    states = [case.state for case in cases]
    # A file that failed is asked again whatever is kept, so its text is not.
    data = {
        "passed": states.count("passed"),
        "failed": states.count("failed"),
        "skipped": states.count("skipped"),
        "failing": [case.node for case in cases if case.state == "failed"],
        "cases": [case.text for case in cases],
        "arcs": arcs,
    }
    seconds = float(said.get("seconds", sum(case.seconds for case in cases)))
    red = "failed" in states
    return Verdict(file, "red" if red else "green", seconds=seconds, data=data)


def _covered(
    verdicts: Iterable[Verdict], ground: Ground, suffix: str, root: Path
) -> float:
    from ops import covered

    settings = ground.tree.config("pyproject.toml#tool.coverage.run")
    folders = tuple(f"{folder}/" for folder in settings.get("source", []))
    measured = [
        path
        for path in ground.paths
        if path.endswith(".py") and (path.startswith(folders) or not folders)
    ]
    every = [
        covered.unpacked(verdict.data["arcs"])
        for verdict in verdicts
        if verdict.data and verdict.data["arcs"]
    ]
    return covered.report(root, every, measured, suffix)


def _unkept(
    name: str, executable: str, suffix: str, marks: str, asked: Asked, root: Path
) -> Outcome:
    """Run pytest where git can't say what the files are: nothing is known or kept."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mltrading-test-") as scratch:
        run_ = _pytest(executable, asked.paths, {}, Path(scratch), asked, None, root)
    junit.write(root / "reports" / f"junit{suffix}.xml", run_.cases, {"python": name})
    outcome = _outcome(name, run_.code, run_.cases, time.monotonic() - begun)
    return _joined(outcome, {}, run_, None, {})


def _outcome(
    name: str, code: int, cases: Sequence[junit.Case], seconds: float
) -> Outcome:
    failing = {case.node: case.said for case in cases if case.state == "failed"}
    skipped = sum(case.state == "skipped" for case in cases)
    passed = sum(case.state == "passed" for case in cases)
    return Outcome(
        python=name,
        code=code,
        passed=passed,
        failed=len(failing),
        skipped=skipped,
        seconds=seconds,
        failing=tuple(failing),
        said=failing,
    )


def _say(outcome: Outcome) -> None:
    """Say in a line what was not run, and which files took longest."""
    ran = {f: s["seconds"] for f, s in outcome.files.items() if s["state"] != "cached"}
    if outcome.cached:
        report.say(
            f"{outcome.cached} of {len(outcome.files)} files did not change since they "
            f"passed: {report.seconds(outcome.saved)} saved"
        )
    longest = sorted(ran, key=lambda file: -ran[file])[:5]
    if len(ran) > 1:
        told = ", ".join(f"{file} {report.seconds(ran[file])}" for file in longest)
        report.say(f"longest: {told}")
    percent = "" if outcome.coverage is None else f", {outcome.coverage:.1f} % covered"
    skipped = f", {outcome.skipped} skipped" if outcome.skipped else ""
    failed = f"{outcome.failed} failed, " if outcome.failed else ""
    report.say(
        f"{failed}{outcome.passed} passed{skipped}{percent} "
        f"in {report.seconds(outcome.seconds)}"
    )


def _record(outcomes: Sequence[Outcome], root: Path) -> None:
    taken: dict[str, float] = shards.times(root)
    taken = {file: s for file, s in taken.items() if (root / file).is_file()}
    for outcome in outcomes[:1]:
        taken |= {file: said["seconds"] for file, said in outcome.files.items()}
    shards.record(root, taken)


def _judge(outcomes: Sequence[Outcome], root: Path) -> None:
    """Show how to run again what failed, rule on what is flaky.

    Raises:
        StepFailed: a test failed, none ran, or a flaky one may no longer be.
    """
    many = len(outcomes) > 1
    late = _flaky(outcomes, root)
    bad = [outcome for outcome in outcomes if not outcome.ok]
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
    if said or late:
        raise errors.StepFailed("; ".join(said + late))


def _flaky(outcomes: Sequence[Outcome], root: Path) -> list[str]:
    """Show flaky tests; return what is red about them."""
    seen = {test: said for outcome in outcomes for test, said in outcome.flaky.items()}
    known = flaky.load(root)
    today = datetime.now(UTC).date()
    red = flaky.overdue(known, today)
    if seen:
        with contextlib.closing(Store.open()) as store:
            counts = flaky.counted(store, list(seen))
        for sight in flaky.judge(seen, known, counts, today):
            report.say(f"flaky: {sight.test}", "red" if sight.red else "yellow")
            report.say(f"  said first: {sight.said}\n  {sight.text}")
            red += [f"{sight.test} is flaky: {sight.text}"] if sight.red else []
    return list(dict.fromkeys(red))
