"""Start a gate's tool once and read what it says.

Only what was understood becomes a verdict that is kept: a tool that crashed, was
killed or ran out of time has said nothing about the tree.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ops import errors, findings, migrations
from ops.cache import Verdict
from ops.command import Command
from ops.gates import Gate
from ops.shell import Result
from ops.shell import run as shell_run
from ops.tree import Tree

# What could change a tool's answer without being among the grounds of a verdict.
_UNSET = ("PYTHONPATH", "PYTHONWARNINGS", "PYTHONOPTIMIZE", "PYTHONDEVMODE")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a start said: a verdict per file ("" for the tree); kept or not."""

    verdicts: Mapping[str, Verdict]
    keep: bool
    seconds: float


def ask(
    gate: Gate,
    paths: tuple[str, ...],
    tree: Tree,
    versions: Mapping[str, str],
    environ: Mapping[str, str],
) -> Answer:
    """Start a gate's tool once, about some files or (none) the tree, and read it."""
    begun = time.monotonic()
    absent = [tool for tool in gate.tools if tool not in versions]
    paths = paths or ("",)
    if absent:
        text = f"{', '.join(absent)} is not installed"
        verdict = Verdict(gate.name, "red", findings=text, fix="uv sync")
        return Answer(dict.fromkeys(paths, verdict), False, 0.0)
    try:
        if gate.per_file:
            return _ask_files(gate, paths, tree)
        verdict, keep = WHOLE[gate.name](gate, tree, environ)
    except errors.OpsError as error:
        verdict = Verdict(gate.name, "red", findings=error.what, fix=error.next)
        return Answer(dict.fromkeys(paths, verdict), False, 0.0)
    seconds = time.monotonic() - begun
    return Answer({"": replace(verdict, seconds=seconds)}, keep, seconds)


def _ask_files(gate: Gate, paths: tuple[str, ...], tree: Tree) -> Answer:
    result = tool(gate.argv + paths, tree.root, gate.timeout)
    found = getattr(findings, gate.name)(result, paths, str(tree.root))
    if not found.understood:
        verdict = _crashed(gate, result)
        return Answer(dict.fromkeys(paths, verdict), False, result.seconds)
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
    return Answer(verdicts, True, result.seconds)


def _crashed(gate: Gate, result: Result) -> Verdict:
    text = f"{gate.name} ended with {result.code}:\n{result.tail()}"
    return Verdict(gate.name, "red", findings=text, fix="inv doctor")


Whole = Callable[[Gate, Tree, Mapping[str, str]], tuple[Verdict, bool]]


def _imports(
    gate: Gate, tree: Tree, environ: Mapping[str, str]
) -> tuple[Verdict, bool]:
    # The checkout's own packages, not those some environment points to.
    places = [tree.root, *sorted(tree.root.glob("*/*/src"))]
    python_path = os.pathsep.join(str(place) for place in places)
    result = tool(
        gate.argv, tree.root, gate.timeout, PYTHONPATH=python_path, NO_COLOR="1"
    )
    if result.ok:
        return Verdict(gate.name, "green"), True
    text = result.out.strip()
    broken = text.find("Broken contracts")
    if result.code != 1 or broken < 0:
        return _crashed(gate, result), False
    return Verdict(gate.name, "red", findings=text[broken:], fix=gate.fix), True


def _dependencies(
    gate: Gate, tree: Tree, environ: Mapping[str, str]
) -> tuple[Verdict, bool]:
    from ops import advisories

    said = advisories.check(tree.root, environ)
    verdict = Verdict(
        gate.name,
        said.state,
        findings=said.findings,
        fix=gate.fix if said.result == "VULNERABLE" else advisories.fix(said),
        data=said.as_json(),
    )
    return verdict, said.state != "red" or said.result != "ERROR"


def _licences(
    gate: Gate, tree: Tree, environ: Mapping[str, str]
) -> tuple[Verdict, bool]:
    from ops import licences

    policy = tree.config("pyproject.toml#tool.licences")
    names, found = licences.read(tree.root / "uv.lock")
    said = licences.problems(
        names,
        found,
        policy.get("allowed", ()),
        policy.get("known", {}),
        policy.get("accepted", {}),
    )
    data = {"locked": len(names), "read": len(found)}
    if said:
        text = "\n".join(said)
        red = Verdict(gate.name, "red", findings=text, fix=gate.fix, data=data)
        return red, True
    return Verdict(gate.name, "green", data=data), True


def _lock(gate: Gate, tree: Tree, environ: Mapping[str, str]) -> tuple[Verdict, bool]:
    from ops import artefact

    result = tool((*gate.argv, "--python", sys.executable), tree.root, gate.timeout)
    if not result.ok:
        text = f"uv.lock does not fit pyproject.toml:\n{result.tail(5)}"
        # Without its cache uv can't know; that is no verdict about these files.
        told = "needs to be updated" in result.err
        return Verdict(gate.name, "red", findings=text, fix=gate.fix), told
    wanted = artefact.export(tree.root)
    file = tree.root / "requirements.txt"
    if not file.is_file() or file.read_text() != wanted:
        text = "requirements.txt is not what uv.lock says"
        return Verdict(gate.name, "red", findings=text, fix=gate.fix), True
    return Verdict(gate.name, "green"), True


def _migrations(
    gate: Gate, tree: Tree, environ: Mapping[str, str]
) -> tuple[Verdict, bool]:
    """Judge that what is shipped before a switch only adds to the database."""
    folder = tree.root / migrations.FOLDER
    if not folder.is_dir():
        return Verdict(gate.name, "green"), True
    files = {
        path.name: path.read_text()
        for path in (folder / "versions").glob("*.py")
        if path.name != "__init__.py"
    }
    bounds = folder / "schema.toml"
    found = migrations.problems(files, bounds.read_text() if bounds.exists() else "")
    if found:
        text = "\n".join(found)
        return Verdict(gate.name, "red", findings=text, fix=gate.fix), True
    return Verdict(gate.name, "green"), True


def _sql(gate: Gate, tree: Tree, environ: Mapping[str, str]) -> tuple[Verdict, bool]:
    """Judge that no migration keeps those waiting who read and write meanwhile."""
    from ops import offline

    versions = tree.root / migrations.FOLDER / "versions"
    if not versions.is_dir():
        return Verdict(gate.name, "green"), True
    # The checkout's own package: what migrations share is imported from it.
    source = str((tree.root / migrations.PACKAGE).parent)
    argv = ("{python}", "-P", str(Path(offline.__file__)), str(versions))
    written = tool(argv, tree.root, gate.timeout, PYTHONPATH=source)
    if not written.ok:
        text = f"the migrations have no SQL:\n{written.tail(8)}"
        return Verdict(gate.name, "red", findings=text, fix=gate.fix), False
    texts: dict[str, str] = json.loads(written.out)
    if not texts:
        return Verdict(gate.name, "green"), True
    with tempfile.TemporaryDirectory() as name:
        files = {}
        for migration, text in texts.items():
            files[f"{name}/{Path(migration).stem}.sql"] = migration
            (Path(name) / f"{Path(migration).stem}.sql").write_text(text)
        config = tree.root / ".squawk.toml"
        rules = ("--config", str(config)) if config.exists() else ()
        result = tool((*gate.argv, *rules, *files), Path(name), gate.timeout)
    try:
        said = json.loads(result.out)
        found = [
            f"{files[each['file']]}: {each['rule_name']}: {each['message']} "
            f"{each['help'] or ''}".rstrip()
            + f"\n    {_line(texts[files[each['file']]], each['line'])}"
            for each in said
        ]
    except (ValueError, KeyError, TypeError):
        return _crashed(gate, result), False
    if found:
        text = "\n".join(found)
        return Verdict(gate.name, "red", findings=text, fix=gate.fix), True
    if not result.ok:
        return _crashed(gate, result), False
    return Verdict(gate.name, "green"), True


def _line(text: str, number: int) -> str:
    """Return the statement's line, counted from 0."""
    lines = text.splitlines()
    return lines[number].strip() if number < len(lines) else ""


def _alerts(gate: Gate, tree: Tree, environ: Mapping[str, str]) -> tuple[Verdict, bool]:
    """Judge that rules, routes and dashboards are what alerts.toml asks for, and work.

    Where promtool is not there only the first is judged, and said to be: a checkout is
    deployed on a machine that was set up for nothing else. `inv test` needs it.
    """
    from ops.alerts import proving

    if not (tree.root / "ops" / "alerts.toml").exists():
        return Verdict(gate.name, "green"), True
    absent = proving.missing()
    try:
        found = proving.differing(tree.root) if absent else proving.problems(tree.root)
    except errors.Usage as error:
        allowed = f" (allowed: {error.allowed})" if error.allowed else ""
        found = [f"{error.where}: {error.what}{allowed}"]
    if found:
        text = "\n".join(found)
        return Verdict(gate.name, "red", findings=text, fix=gate.fix), True
    if absent:
        text = f"rules and routes were not tested: {' and '.join(absent)} missing"
        return Verdict(gate.name, "warned", findings=text, fix="inv setup"), True
    return Verdict(gate.name, "green"), True


def _docs(gate: Gate, tree: Tree, environ: Mapping[str, str]) -> tuple[Verdict, bool]:
    """Judge that pages link to what is there and name calls that the menu knows."""
    from ops import calls

    names, said = frozenset(tree.names), []
    found: list[tuple[str, int, str]] = []
    for page in gate.judges(tree):
        if page.endswith(".md"):
            text = (tree.root / page).read_text()
            broken = calls.broken_links(page, text, names)
            said += [f"{page}:{line}: leads nowhere: {to}" for line, to in broken]
            found += [(page, line, call) for line, call in calls.in_page(text)]
    return _menu(gate, tree, found, said)


def _workflow(
    gate: Gate, tree: Tree, environ: Mapping[str, str]
) -> tuple[Verdict, bool]:
    """Judge that workflows and hooks run the menu only, and actions are pinned."""
    from ops import calls

    said: list[str] = []
    found: list[tuple[str, int, str]] = []
    for file in gate.judges(tree):
        if not file.endswith((".yml", ".yaml")):
            continue
        text = (tree.root / file).read_text()
        loose = calls.unpinned(text)
        said += [f"{file}:{line}: not pinned by a commit: {to}" for line, to in loose]
        for line, command in calls.in_workflow(text):
            call = calls.of_menu(command)
            if call is not None:
                found.append((file, line, call))
            elif not calls.BOOTSTRAP.fullmatch(command):
                said.append(f"{file}:{line}: not a call of the menu: {command}")
    return _menu(gate, tree, found, said)


def _menu(
    gate: Gate, tree: Tree, found: Sequence[tuple[str, int, str]], said: list[str]
) -> tuple[Verdict, bool]:
    """Add what Invoke has against calls to what was found otherwise."""
    from ops import calls

    if found:
        asked = json.dumps([call for _, _, call in found])
        argv = ("{python}", str(Path(calls.__file__)), asked)
        result = tool(argv, tree.root, gate.timeout)
        if not result.ok:
            return _crashed(gate, result), False
        said = said + calls.problems(found, json.loads(result.out))
    if said:
        return Verdict(gate.name, "red", findings="\n".join(said), fix=gate.fix), True
    return Verdict(gate.name, "green"), True


WHOLE: Mapping[str, Whole] = {
    "imports": _imports,
    "dependencies": _dependencies,
    "licences": _licences,
    "lock": _lock,
    "migrations": _migrations,
    "sql": _sql,
    "alerts": _alerts,
    "docs": _docs,
    "workflow": _workflow,
}


def tool(
    argv: Sequence[str], root: Path, timeout: float = 300.0, **env: str | None
) -> Result:
    """Run a gate's tool, its argument template filled."""
    filled = tuple(
        (
            part.format(python=sys.executable, bin=Path(sys.executable).parent)
            if part.startswith("{")
            else part
        )
        for part in argv
    )
    # Bytecode of the tools is kept: without it each start costs twice as much.
    settings = {
        "PYTHONDONTWRITEBYTECODE": None,
        "PYTHONUTF8": "1",
        **dict.fromkeys(_UNSET),
        **env,
    }
    return shell_run(Command(filled, cwd=root, env=settings, timeout=timeout))
