"""The table of quality gates, and how they are run side by side.

A verdict is kept under the hash of everything that can change it, so what did not
change is not judged again; per-file gates keep one verdict for each file.
"""

from __future__ import annotations

import ast
import fnmatch
import hashlib
import json
import os
import re
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ops import cache, errors, findings, report
from ops.cache import Store, Verdict
from ops.command import Command
from ops.environment import ROOT
from ops.shell import Result
from ops.shell import run as shell_run

# Files in one start of a per-file tool: enough to pay for the start, few enough to
# use every processor.
BATCH = 60
# Folders at the root whose content is made by tasks.
MADE = ("build", "dist", "reports")
COMMIT = re.compile(
    r"(build|chore|ci|docs|feat|fix|perf|refactor|revert|style|test)"
    r"(\([a-z0-9][a-z0-9./-]*\))?!?: \S.{0,99}"
)


@dataclass(frozen=True, slots=True)
class Gate:
    """A question about the tree.

    `argv` is a template: {python} and {bin} are this interpreter and its folder. A
    `per_file` gate gets file names added and is read by the function of its name in
    `ops.findings`; the others are judged by `_<name>` here. `config` names files, or
    a table in one (`pyproject.toml#tool.black`). `cost` is CPU seconds, for order.
    """

    name: str
    argv: tuple[str, ...]
    inputs: tuple[str, ...]
    config: tuple[str, ...]
    tools: tuple[str, ...]
    fix: str
    excluded: tuple[str, ...] = ()
    per_file: bool = False
    layout: bool = False
    fixer: tuple[str, ...] = ()
    cost: float = 0.5


TABLE = (
    Gate(
        name="black",
        argv=(
            *("{python}", "-m", "black", "--check", "--diff", "--quiet"),
            *("--config", "pyproject.toml", "--no-cache", "--workers", "1"),
        ),
        inputs=("*.py",),
        config=("pyproject.toml#tool.black",),
        tools=("black",),
        fix="inv fmt",
        per_file=True,
        fixer=(
            *("{python}", "-m", "black", "--quiet", "--config", "pyproject.toml"),
            "--no-cache",
        ),
    ),
    Gate(
        name="isort",
        argv=(
            *("{python}", "-m", "isort", "--check-only", "--diff"),
            *("--settings-path", "."),
        ),
        inputs=("*.py",),
        config=("pyproject.toml#tool.isort",),
        tools=("isort",),
        fix="inv fmt",
        per_file=True,
        layout=True,
        fixer=("{python}", "-m", "isort", "--quiet", "--settings-path", "."),
        cost=0.2,
    ),
    Gate(
        name="flake8",
        argv=("{python}", "-m", "flake8", "--config", ".flake8", "--jobs", "1"),
        inputs=("*.py",),
        config=(".flake8",),
        tools=("flake8", "pycodestyle", "pyflakes", "mccabe"),
        fix="edit the lines named above",
        per_file=True,
        cost=0.6,
    ),
    Gate(
        name="bandit",
        argv=("{python}", "-m", "bandit", "-q", "-f", "json", "-c", "pyproject.toml"),
        inputs=("*.py",),
        excluded=("tests/*", "bench/*"),
        config=("pyproject.toml#tool.bandit",),
        tools=("bandit", "stevedore"),
        fix="edit the lines, or end one with `# nosec B…`, the reason above it",
        per_file=True,
        cost=0.8,
    ),
    Gate(
        name="imports",
        argv=("{bin}/lint-imports", "--config", "pyproject.toml", "--no-cache"),
        inputs=("ops/*.py", "packages/*.py", "services/*.py"),
        config=("pyproject.toml#tool.importlinter",),
        tools=("import-linter", "grimp"),
        fix="move the import to a layer that may have it (docs/reference/pipeline.md)",
        cost=0.7,
    ),
    Gate(
        name="dependencies",
        argv=(),
        inputs=("uv.lock",),
        config=(),
        tools=("safety",),
        fix="uv lock --upgrade-package NAME && inv lock",
        cost=2.0,
    ),
    Gate(
        name="lock",
        argv=("uv", "lock", "--check", "--offline"),
        inputs=("*pyproject.toml", "uv.lock", "requirements.txt"),
        config=(),
        tools=(),
        fix="inv lock",
        cost=0.3,
    ),
)
BY_NAME = {gate.name: gate for gate in TABLE}


@dataclass(frozen=True)
class Tree:
    """The files of a checkout: relative path to content, read once."""

    root: Path

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Every file that a gate may read, sorted, by relative path."""
        found = []
        skipped = {"__pycache__", "node_modules"}
        top = str(self.root)
        for folder, folders, files in os.walk(top):
            if folder == top:
                folders[:] = [name for name in folders if name not in MADE]
            folders[:] = [
                name for name in folders if name not in skipped and name[0] != "."
            ]
            prefix = f"{folder[len(top) + 1 :]}/" if folder != top else ""
            found += [
                prefix + name
                for name in files
                if name.endswith((".py", ".toml", ".lock", ".txt"))
            ]
        return tuple(sorted(found))

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {}

    def digest(self, path: str) -> str:
        """Return the sha256 of a file's content, "" where there is no file."""
        if path not in self._digests:
            try:
                content = (self.root / path).read_bytes()
                self._digests[path] = hashlib.sha256(content).hexdigest()
            except (FileNotFoundError, IsADirectoryError):
                self._digests[path] = ""
        return self._digests[path]

    def inputs(self, gate: Gate) -> tuple[str, ...]:
        """Return the files that a gate judges."""
        return tuple(
            path
            for path in self.paths
            if any(fnmatch.fnmatchcase(path, glob) for glob in gate.inputs)
            and not any(fnmatch.fnmatchcase(path, glob) for glob in gate.excluded)
        )

    @cached_property
    def _project(self) -> dict[str, Any]:
        return tomllib.loads((self.root / "pyproject.toml").read_text())

    def config(self, name: str) -> Any:
        """Return what identifies a configuration file, or one table of it."""
        file, _, table = name.partition("#")
        if not table:
            return self.digest(file)
        value: Any = self._project
        for part in table.split("."):
            value = value.get(part, {})
        return value

    @cached_property
    def layout(self) -> tuple[str, ...]:
        """The names at the root, by which isort tells our modules from others."""
        return tuple(sorted({path.partition("/")[0] for path in self.paths}))


@dataclass(frozen=True, slots=True)
class _Job:
    """One start of a gate: the files of a batch, or none for the whole tree."""

    gate: Gate
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a start said: a verdict per file ("" for the tree); kept or not."""

    verdicts: Mapping[str, Verdict]
    keep: bool
    seconds: float


def run(
    names: Sequence[str] = ("quality",),
    *,
    root: Path = ROOT,
    use_cache: bool = True,
    jobs: int | None = None,
) -> tuple[Verdict, ...]:
    """Judge the tree by the named gates; "quality" is all of them.

    Returns one verdict per gate in the table's order. At most `jobs` tools run at
    once (default: one per processor), the longest first; none hides another.

    Raises:
        Usage: there is no such gate.
    """
    gates = expand(names)
    store = Store.open()
    try:
        return _run(gates, Tree(root), store, use_cache, jobs)
    finally:
        store.close()


def expand(names: Sequence[str]) -> tuple[Gate, ...]:
    """Return the gates of these names, in the table's order, each once."""
    for name in names:
        if name not in BY_NAME and name != "quality":
            raise errors.Usage(
                f'there is no gate "{name}"', allowed=", ".join(["quality", *BY_NAME])
            )
    return tuple(gate for gate in TABLE if gate.name in names or "quality" in names)


def _run(
    gates: tuple[Gate, ...],
    tree: Tree,
    store: Store,
    use_cache: bool,
    jobs: int | None,
) -> tuple[Verdict, ...]:
    versions = installed()
    said: dict[str, Verdict] = {}
    whole: dict[str, str] = {}
    known: dict[tuple[str, str], Verdict] = {}
    keys: dict[tuple[str, str], str] = {}
    todo: list[_Job] = []
    for gate in gates:
        base = _base(gate, tree, versions)
        whole[gate.name] = cache.key(**base, whole=_content(gate, tree))
        verdict = store.get(whole[gate.name]) if use_cache and gate.per_file else None
        if verdict is not None:
            # Nothing at all changed: one look-up instead of one per file.
            said[gate.name] = verdict
            continue
        parts = tree.inputs(gate) if gate.per_file else ("",)
        for path in parts:
            content = [path, tree.digest(path)] if path else _content(gate, tree)
            name = (gate.name, path)
            keys[name] = cache.key(**base, inputs=content)
            verdict = store.get(keys[name]) if use_cache else None
            if verdict is None and use_cache and gate.name == "imports":
                verdict = store.get(_by_imports(tree, gate, base, store))
            if verdict is not None:
                known[name] = verdict
        missing = [path for path in parts if (gate.name, path) not in known]
        if gate.per_file:
            todo += [_Job(gate, batch) for batch in _batches(missing)]
        elif missing:
            todo.append(_Job(gate))
    taken: dict[str, float] = {}
    crashed = set()
    for job, answer in _side_by_side(todo, tree, versions, jobs):
        fresh = {(job.gate.name, path): v for path, v in answer.verdicts.items()}
        known |= fresh
        taken[job.gate.name] = taken.get(job.gate.name, 0.0) + answer.seconds
        if not answer.keep:
            crashed.add(job.gate.name)
        else:
            kept = {keys[name]: verdict for name, verdict in fresh.items()}
            if job.gate.name == "imports" and answer.verdicts[""].state == "green":
                base = _base(job.gate, tree, versions)
                kept[_by_imports(tree, job.gate, base, store)] = answer.verdicts[""]
            store.put_all(kept)
    for gate in gates:
        if gate.name not in said:
            said[gate.name] = _sum(gate, known, taken)
            if gate.per_file and gate.name not in crashed:
                store.put(whole[gate.name], _nothing_new(said[gate.name]))
    return tuple(said[gate.name] for gate in gates)


def _nothing_new(verdict: Verdict) -> Verdict:
    """Return a gate's verdict as the next run shows it when nothing changed."""
    return replace(verdict, data={**(verdict.data or {}), "judged": 0})


def _batches(paths: Sequence[str]) -> list[tuple[str, ...]]:
    count = -(-len(paths) // BATCH)
    return [tuple(paths[first::count]) for first in range(count)]


def _side_by_side(
    todo: Sequence[_Job], tree: Tree, versions: Mapping[str, str], jobs: int | None
) -> Sequence[tuple[_Job, _Answer]]:
    if not todo:
        return ()
    from concurrent.futures import ThreadPoolExecutor

    longest = sorted(todo, key=lambda job: -job.gate.cost)
    pool = ThreadPoolExecutor(jobs or os.cpu_count() or 2)
    try:
        futures = [(job, pool.submit(_ask, job, tree, versions)) for job in longest]
        return [(job, future.result()) for job, future in futures]
    finally:
        pool.shutdown(cancel_futures=True)


def _ask(job: _Job, tree: Tree, versions: Mapping[str, str]) -> _Answer:
    """Start a gate's tool once and read what it says."""
    gate = job.gate
    begun = time.monotonic()
    absent = [tool for tool in gate.tools if tool not in versions]
    paths = job.paths or ("",)
    if absent:
        text = f"{', '.join(absent)} is not installed"
        verdict = Verdict(gate.name, "red", findings=text, fix="uv sync")
        return _Answer(dict.fromkeys(paths, verdict), False, 0.0)
    try:
        if gate.per_file:
            return _ask_files(gate, paths, tree)
        verdict, keep = _WHOLE[gate.name](gate, tree)
    except errors.OpsError as error:
        verdict = Verdict(gate.name, "red", findings=error.what, fix=error.next)
        return _Answer(dict.fromkeys(paths, verdict), False, 0.0)
    seconds = time.monotonic() - begun
    return _Answer({"": replace(verdict, seconds=seconds)}, keep, seconds)


def _ask_files(gate: Gate, paths: tuple[str, ...], tree: Tree) -> _Answer:
    result = _tool(gate.argv + paths, tree.root)
    found = getattr(findings, gate.name)(result, paths, str(tree.root))
    if not found.understood:
        verdict = _crashed(gate, result)
        return _Answer(dict.fromkeys(paths, verdict), False, result.seconds)
    verdicts = {
        path: Verdict(
            gate.name,
            "red" if path in found.text else "green",
            seconds=result.seconds / len(paths),
            findings=found.text.get(path, ""),
            fix=gate.fix,
            data={"results": found.data[path]} if found.data.get(path) else None,
        )
        for path in paths
    }
    return _Answer(verdicts, True, result.seconds)


def _crashed(gate: Gate, result: Result) -> Verdict:
    text = f"{gate.name} ended with {result.code}:\n{result.tail()}"
    return Verdict(gate.name, "red", findings=text, fix="inv doctor")


def _imports(gate: Gate, tree: Tree) -> tuple[Verdict, bool]:
    # The checkout's own packages, not those some environment points to.
    places = [tree.root, *sorted(tree.root.glob("*/*/src"))]
    python_path = os.pathsep.join(str(place) for place in places)
    result = _tool(gate.argv, tree.root, PYTHONPATH=python_path, NO_COLOR="1")
    if result.ok:
        return Verdict(gate.name, "green"), True
    text = result.out.strip()
    broken = text.find("Broken contracts")
    if result.code != 1 or broken < 0:
        return _crashed(gate, result), False
    return Verdict(gate.name, "red", findings=text[broken:], fix=gate.fix), True


def _dependencies(gate: Gate, tree: Tree) -> tuple[Verdict, bool]:
    from ops import advisories

    said = advisories.check(tree.root)
    verdict = Verdict(
        gate.name,
        said.state,
        findings=said.findings,
        fix=gate.fix if said.result == "VULNERABLE" else advisories.fix(said),
        data=said.as_json(),
    )
    return verdict, said.state != "red" or said.result != "ERROR"


def _lock(gate: Gate, tree: Tree) -> tuple[Verdict, bool]:
    from ops import artefact

    result = _tool((*gate.argv, "--python", sys.executable), tree.root)
    if not result.ok:
        text = f"uv.lock does not fit pyproject.toml:\n{result.tail(5)}"
        return Verdict(gate.name, "red", findings=text, fix=gate.fix), True
    wanted = artefact.export(tree.root)
    file = tree.root / "requirements.txt"
    if not file.is_file() or file.read_text() != wanted:
        text = "requirements.txt is not what uv.lock says"
        return Verdict(gate.name, "red", findings=text, fix=gate.fix), True
    return Verdict(gate.name, "green"), True


_WHOLE: Mapping[str, Callable[[Gate, Tree], tuple[Verdict, bool]]] = {
    "imports": _imports,
    "dependencies": _dependencies,
    "lock": _lock,
}


def _tool(argv: Sequence[str], root: Path, **env: str | None) -> Result:
    filled = tuple(
        (
            part.format(python=sys.executable, bin=Path(sys.executable).parent)
            if part.startswith("{")
            else part
        )
        for part in argv
    )
    # Bytecode of the tools is kept: without it each start costs twice as much.
    settings = {"PYTHONDONTWRITEBYTECODE": None, "PYTHONWARNINGS": None, **env}
    return shell_run(Command(filled, cwd=root, env=settings, timeout=900))


def _base(gate: Gate, tree: Tree, versions: Mapping[str, str]) -> dict[str, Any]:
    """Return what the keys of a gate's verdicts have in common."""
    return {
        "gate": gate.name,
        "argv": gate.argv,
        "tools": {tool: versions.get(tool) for tool in gate.tools},
        "python": list(sys.version_info[:3]),
        "config": [tree.config(name) for name in gate.config],
        "layout": tree.layout if gate.layout else (),
        "environment": _environment(gate, tree),
    }


def _environment(gate: Gate, tree: Tree) -> dict[str, str]:
    """Return what a gate reads beside the tree: the day, the database, settings."""
    if gate.name != "dependencies":
        return {}
    from ops import advisories

    values = {name: os.environ.get(name, "") for name in ("CI", advisories.ALLOW)}
    folder = advisories.database(tree.root, os.environ)
    now = time.gmtime()
    if folder is None:
        # Nothing to ask offline: online is tried again after an hour.
        return values | {"hour": time.strftime("%Y-%m-%d %H", now)}
    files = Tree(folder)
    values |= {name: files.digest(name) for name in advisories.FILES}
    return values | {"day": time.strftime("%Y-%m-%d", now)}


def _content(gate: Gate, tree: Tree) -> list[list[str]]:
    return [[path, tree.digest(path)] for path in tree.inputs(gate)]


def _by_imports(tree: Tree, gate: Gate, base: Mapping[str, Any], store: Store) -> str:
    """Return the key of a green verdict: what is imported, not every line."""
    names = []
    for path in tree.inputs(gate):
        key = cache.key(imports_of=tree.digest(path), python=base["python"])
        known = store.get(key)
        if known is None:
            text = imported((tree.root / path).read_bytes()) or tree.digest(path)
            known = Verdict("imports-of", "green", findings=text)
            store.put(key, known)
        names.append([path, known.findings])
    return cache.key(**base, imports=names)


def imported(source: bytes) -> str:
    """Return the import statements of a module, "" where it can't be parsed."""
    try:
        nodes = ast.walk(ast.parse(source))
    except (SyntaxError, ValueError):
        return ""
    statements = [
        ast.unparse(node)
        for node in nodes
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    return "\n".join(["#", *sorted(set(statements))])


def installed() -> dict[str, str]:
    """Return the version of each installed distribution.

    Reads folder names: importlib.metadata costs more than a run without changes.
    """
    versions: dict[str, str] = {}
    for place in sys.path:
        if place.endswith("site-packages") and os.path.isdir(place):
            for name in os.listdir(place):
                if name.endswith(".dist-info"):
                    tool, _, version = name[:-10].partition("-")
                    versions.setdefault(tool.lower().replace("_", "-"), version)
    return versions


def _sum(
    gate: Gate,
    known: Mapping[tuple[str, str], Verdict],
    taken: Mapping[str, float],
) -> Verdict:
    """Return one verdict for a gate out of those of its files."""
    verdicts = {path: v for (name, path), v in known.items() if name == gate.name}
    if not gate.per_file:
        return verdicts[""]
    red = [verdicts[path] for path in sorted(verdicts) if verdicts[path].state == "red"]
    return Verdict(
        gate.name,
        "red" if red else "green",
        cached=gate.name not in taken,
        seconds=taken.get(gate.name, sum(v.seconds for v in verdicts.values())),
        findings="\n".join(dict.fromkeys(v.findings for v in red)),
        fix=red[0].fix if red else gate.fix,
        data={
            "files": len(verdicts),
            "judged": sum(not v.cached for v in verdicts.values()),
            "results": [r for v in verdicts.values() for r in (v.data or {}).values()],
        },
    )


def quality(
    only: Sequence[str] = ("quality",),
    *,
    use_cache: bool = True,
    as_json: bool = False,
    jobs: int | None = None,
    root: Path = ROOT,
) -> tuple[Verdict, ...]:
    """Run the gates and show a table, then findings and fixes of what is red.

    Raises:
        Refused: a gate is red.
    """
    begun = time.monotonic()
    verdicts = run(only, root=root, use_cache=use_cache, jobs=jobs)
    seconds = time.monotonic() - begun
    document = {
        "schema_version": 1,
        "seconds": round(seconds, 3),
        "gates": [_as_json(verdict) for verdict in verdicts],
    }
    _write(root / "reports" / "quality.json", document)
    for verdict in verdicts:
        if verdict.name == "bandit":
            _write(root / "reports" / "bandit.json", _bandit_report(verdict))
    if as_json:
        report.as_json(document)
    else:
        _show(verdicts, seconds)
    red = [verdict.name for verdict in verdicts if verdict.state == "red"]
    if red:
        raise errors.Refused(
            f"{len(red)} of {len(verdicts)} gates are red: {', '.join(red)}",
            next="inv fmt" if set(red) <= {"black", "isort"} else "",
        )
    return verdicts


def _as_json(verdict: Verdict) -> dict[str, Any]:
    data = dict(verdict.data or {})
    data.pop("results", None)
    return {
        "gate": verdict.name,
        "state": verdict.state,
        "cached": verdict.cached,
        "seconds": round(verdict.seconds, 3),
        "findings": verdict.findings,
        "fix": verdict.fix if verdict.state != "green" else "",
        **data,
    }


def _bandit_report(verdict: Verdict) -> dict[str, Any]:
    data = verdict.data or {}
    results = [item for file in data.get("results", ()) for item in file]
    return {"errors": [], "files": data.get("files", 0), "results": results}


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")


def _show(verdicts: Sequence[Verdict], seconds: float) -> None:
    rows = []
    for verdict in verdicts:
        data = verdict.data or {}
        shown = {"red": "failed", "warned": "warned"}.get(verdict.state)
        rows.append(
            (
                verdict.name,
                shown or ("cached" if verdict.cached else "ran"),
                report.seconds(verdict.seconds),
                f"{data['judged']} of {data['files']} files" if "files" in data else "",
            )
        )
    tones = {"failed": "red", "warned": "yellow", "cached": "dim"}
    report.say(
        report.table(
            rows,
            ("gate", "state", "took", "judged now"),
            right=(2,),
            tones={i: tones[row[1]] for i, row in enumerate(rows) if row[1] in tones},
        )
    )
    for verdict in verdicts:
        if verdict.state == "warned":
            report.say(f"\nwarning: {verdict.name}: {verdict.findings}", "yellow")
        elif verdict.state == "red":
            report.say(f"\n{verdict.name}", "red")
            report.say(report.indent(verdict.findings, 2))
            report.say(f"fix: {verdict.fix}", "bold")
    report.say(f"\n{len(verdicts)} gates in {report.seconds(seconds)}")


def fmt(*, root: Path = ROOT) -> tuple[str, ...]:
    """Sort imports and format all Python files; say which changed.

    Raises:
        StepFailed: a file can't be parsed.
    """
    before = Tree(root)
    paths = before.inputs(BY_NAME["black"])
    digests = {path: before.digest(path) for path in paths}
    failed = []
    for name in ("isort", "black"):
        for batch in _batches(paths):
            result = _tool(BY_NAME[name].fixer + batch, root)
            failed += [] if result.ok else [result.tail(10)]
    after = Tree(root)
    changed = tuple(path for path in paths if after.digest(path) != digests[path])
    for path in changed:
        report.data(f"formatted {path}")
    report.say(f"{len(changed)} of {len(paths)} files changed")
    if failed:
        raise errors.StepFailed("a file can't be formatted", detail="\n".join(failed))
    return changed


def relock(*, root: Path = ROOT) -> None:
    """Bring uv.lock and requirements.txt in line with the pyproject.toml files.

    Raises:
        StepFailed: the requirements can't be resolved.
    """
    from ops import artefact

    result = shell_run(Command(("uv", "lock"), cwd=root))
    if not result.ok:
        raise errors.StepFailed("uv lock failed", detail=result.tail())
    (root / "requirements.txt").write_text(artefact.export(root))
    report.say("uv.lock and requirements.txt are in line with pyproject.toml")


def commit_message(file: str | Path) -> None:
    """Check that a commit message's first line is a conventional commit.

    Raises:
        Usage: the file can't be read.
        Refused: it is not; the message holds the form and an example.
    """
    try:
        text = Path(file).read_text()
    except OSError as error:
        raise errors.Usage(f"can't read {file}: {error.strerror}") from None
    lines = [line for line in text.splitlines() if line[:1] != "#"]
    first = next((line for line in lines if line.strip()), "")
    if first.startswith(("Merge ", "Revert ", "fixup! ", "squash! ")):
        return
    if not COMMIT.fullmatch(first):
        raise errors.Refused(
            f"not a conventional commit: {first!r}",
            allowed="type(scope)!: text of at most 100 characters, where type is "
            "build, chore, ci, docs, feat, fix, perf, refactor, revert, style or test",
            next='git commit -m "fix(charts): keep the symbol on a tab change"',
        )
