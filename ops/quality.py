"""Ask the gates, side by side, and show what they say.

A verdict is kept under the hash of everything that can change it, so what did not
change is not judged again; per-file gates keep one verdict for each file.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ops import cache, errors, report, toolchain
from ops.cache import Store, Verdict
from ops.environment import ROOT
from ops.gates import Answer, Gate, Job, ask, batches, environment, expand
from ops.tree import Tree, imported


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


def _run(
    gates: tuple[Gate, ...],
    tree: Tree,
    store: Store,
    use_cache: bool,
    jobs: int | None,
) -> tuple[Verdict, ...]:
    versions = toolchain.installed()
    said: dict[str, Verdict] = {}
    whole: dict[str, str] = {}
    known: dict[tuple[str, str], Verdict] = {}
    keys: dict[tuple[str, str], str] = {}
    todo: list[Job] = []
    for gate in gates:
        base = _base(gate, tree, versions)
        whole[gate.name] = cache.key(**base, whole=_content(gate, tree))
        verdict = store.get(whole[gate.name]) if use_cache and gate.per_file else None
        if verdict is not None:
            # Nothing at all changed: one look-up instead of one per file.
            said[gate.name] = verdict
            continue
        parts = gate.judges(tree) if gate.per_file else ("",)
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
            todo += [Job(gate, batch) for batch in batches(missing)]
        elif missing:
            todo.append(Job(gate))
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


def _side_by_side(
    todo: Sequence[Job], tree: Tree, versions: Mapping[str, str], jobs: int | None
) -> Sequence[tuple[Job, Answer]]:
    if not todo:
        return ()
    from concurrent.futures import ThreadPoolExecutor

    longest = sorted(todo, key=lambda job: -job.gate.cost)
    pool = ThreadPoolExecutor(jobs or os.cpu_count() or 2)
    try:
        futures = [(job, pool.submit(ask, job, tree, versions)) for job in longest]
        return [(job, future.result()) for job, future in futures]
    finally:
        pool.shutdown(cancel_futures=True)


def _base(gate: Gate, tree: Tree, versions: Mapping[str, str]) -> dict[str, Any]:
    """Return what the keys of a gate's verdicts have in common."""
    return {
        "gate": gate.name,
        "argv": gate.argv,
        "tools": {tool: versions.get(tool) for tool in gate.tools},
        "python": list(sys.version_info[:3]),
        "config": [tree.config(name) for name in gate.config],
        "layout": tree.layout if gate.layout else (),
        "environment": environment(gate, tree),
    }


def _content(gate: Gate, tree: Tree) -> list[list[str]]:
    return [[path, tree.digest(path)] for path in gate.judges(tree)]


def _by_imports(tree: Tree, gate: Gate, base: Mapping[str, Any], store: Store) -> str:
    """Return the key of a green verdict: what is imported, not every line."""
    names = []
    for path in gate.judges(tree):
        key = cache.key(imports_of=tree.digest(path), python=base["python"])
        known = store.get(key)
        if known is None:
            text = imported((tree.root / path).read_bytes()) or tree.digest(path)
            known = Verdict("imports-of", "green", findings=text)
            store.put(key, known)
        names.append([path, known.findings])
    return cache.key(**base, imports=names)


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
