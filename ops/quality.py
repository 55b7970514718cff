"""`inv quality`: the table of what the gates say, its report, its plan, its watch."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ops import errors, inquiry, report
from ops.cache import Store, Verdict
from ops.environment import ROOT
from ops.gates import BY_NAME, expand
from ops.inquiry import Asking, Question
from ops.tree import Tree

# Seconds that the whole of `inv quality` may take.
BUDGET = 180.0
# Seconds between two looks at the files while watching them.
PAUSE = 0.3
# Of the reasons to ask a gate again, so many are shown.
REASONS = 6


def run(
    names: Sequence[str] = ("quality",),
    *,
    root: Path = ROOT,
    use_cache: bool = True,
    jobs: int | None = None,
    environ: Mapping[str, str] = os.environ,
) -> tuple[Verdict, ...]:
    """Judge the tree by the named gates; "quality" is all of them.

    Returns one verdict per gate in the table's order; none hides another.

    Raises:
        Usage: there is no such gate.
    """
    asking = Asking(root, use_cache, jobs, environ=environ)
    verdicts, _ = _ask(names, asking)
    return verdicts


def _ask(
    names: Sequence[str], asking: Asking, explain: bool = False
) -> tuple[tuple[Verdict, ...], dict[str, list[str]]]:
    gates = expand(names)
    with contextlib.closing(Store.open()) as store:
        questions = inquiry.look_up(gates, Tree(asking.root), store, asking)
        reasons = _reasons(questions, store, asking.root) if explain else {}
        if reasons and asking.shown:
            _show_reasons(reasons)
        inquiry.answer(questions, store, asking)
        return tuple(inquiry.said(question) for question in questions), reasons


def quality(
    only: Sequence[str] = ("quality",),
    *,
    use_cache: bool = True,
    as_json: bool = False,
    jobs: int | None = None,
    since: str = "",
    fail_fast: bool = False,
    explain: bool = False,
    reason: str = "",
    root: Path = ROOT,
    environ: Mapping[str, str] = os.environ,
) -> tuple[Verdict, ...]:
    """Ask the gates and show a table, then findings and fixes of what is red.

    `reason` says why an old advisory database may do. `explain` tells what changed
    since each gate's last green run.

    Raises:
        Refused: a gate is red.
        Usage: no such gate or revision.
    """
    from ops import advisories

    begun = time.monotonic()
    if reason:
        environ = {**environ, advisories.ALLOW: reason}
    asking = Asking(root, use_cache, jobs, since, fail_fast, not as_json, environ)
    verdicts, reasons = _ask(only, asking, explain)
    seconds = time.monotonic() - begun
    document = {
        "schema_version": 2,
        "seconds": round(seconds, 3),
        "budget": BUDGET,
        "saved": round(sum(_saved(verdict) for verdict in verdicts), 3),
        "gates": [_as_json(verdict, reasons) for verdict in verdicts],
    }
    _write(root / "reports" / "quality.json", document)
    for verdict in verdicts:
        if verdict.name == "bandit" and verdict.state != "skipped":
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


def plan(
    only: Sequence[str] = ("quality",),
    *,
    use_cache: bool = True,
    as_json: bool = False,
    since: str = "",
    explain: bool = False,
    root: Path = ROOT,
) -> None:
    """Show what `inv quality` would ask, and start no tool.

    Raises:
        Usage: no such gate or revision.
    """
    asking = Asking(root, use_cache, since=since)
    gates = expand(only)
    with contextlib.closing(Store.open()) as store:
        questions = inquiry.look_up(gates, Tree(root), store, asking)
        reasons = _reasons(questions, store, root) if explain else {}
        expected = inquiry.expected(questions, store, root)
    rows = [(q.gate.name, _would(q), expected[q.gate.name]) for q in questions]
    if as_json:
        said = [
            {"gate": name, "would": would, "expected_seconds": round(seconds, 3)}
            | ({"why": reasons[name]} if explain else {})
            for name, would, seconds in rows
        ]
        report.as_json({"schema_version": 2, "plan": said})
        return
    if reasons:
        _show_reasons(reasons)
    cells = [
        (name, would, report.seconds(seconds) if seconds else "")
        for name, would, seconds in rows
    ]
    report.say(report.table(cells, ("gate", "would", "expected"), right=(2,)))


def _would(question: Question) -> str:
    if question.verdict is not None:
        red = " (red)" if question.verdict.state == "red" else ""
        return f"say what is known{red}"
    if question.missing:
        if not question.gate.per_file:
            return "ask"
        return (
            f"ask about {len(question.missing)} of {len(question.grounds.inputs)} files"
        )
    return "say what is known" if question.paths else "be left out: nothing changed"


def watch(
    only: Sequence[str] = ("quality",),
    *,
    root: Path = ROOT,
    rounds: int | None = None,
    **options: Any,
) -> None:
    """Ask again whenever a file that a gate reads changes, until Ctrl-C.

    `options` are those of `quality`; `rounds` ends it after so many runs.
    """
    while rounds is None or rounds > 0:
        before = _marks(root)
        with contextlib.suppress(errors.Refused):
            quality(only, root=root, **options)
        rounds = None if rounds is None else rounds - 1
        if rounds == 0:
            return
        report.say(f"\nwatching {len(before)} files; Ctrl-C ends it", "dim")
        while _marks(root) == before:
            time.sleep(PAUSE)


def _marks(root: Path) -> dict[str, tuple[int, int]]:
    """Return what shows that a file was written: only a hint to look again."""
    found = {}
    for path in (*Tree(root).paths, ".flake8"):
        with contextlib.suppress(OSError):
            stat = (root / path).stat()
            found[path] = (stat.st_mtime_ns, stat.st_size)
    return found


def _reasons(
    questions: Sequence[Question], store: Store, root: Path
) -> dict[str, list[str]]:
    return {q.gate.name: inquiry.why(q, store, root) for q in questions}


def _show_reasons(reasons: Mapping[str, Sequence[str]]) -> None:
    rows = []
    for name, lines in reasons.items():
        more = len(lines) - REASONS
        shown = [*lines[:REASONS], *([f"and {more} more"] if more > 0 else [])]
        rows += [(name if i == 0 else "", line) for i, line in enumerate(shown)]
    report.say(report.table(rows, ("gate", "since its last green run")))
    report.say()


def _saved(verdict: Verdict) -> float:
    """Return the seconds that an earlier run's answers spared this one."""
    if verdict.cached:
        return verdict.seconds
    return float((verdict.data or {}).get("saved", 0.0))


def _took(verdict: Verdict) -> float:
    return 0.0 if verdict.cached else verdict.seconds


def _as_json(verdict: Verdict, reasons: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    data = dict(verdict.data or {})
    data.pop("results", None)
    gate = BY_NAME[verdict.name]
    why = {"why": list(reasons[verdict.name])} if reasons else {}
    return {
        **data,
        "gate": verdict.name,
        "state": verdict.state,
        "cached": verdict.cached,
        "seconds": round(_took(verdict), 3),
        "saved": round(_saved(verdict), 3),
        "budget": gate.budget,
        "over_budget": _took(verdict) > gate.budget,
        "findings": verdict.findings,
        "fix": verdict.fix if verdict.state in ("red", "warned") else "",
        **why,
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
        state = {"red": "failed", "green": ""}.get(verdict.state, verdict.state)
        how = "cached" if verdict.cached else "ran"
        took, saved = _took(verdict), _saved(verdict)
        budget = BY_NAME[verdict.name].budget
        rows.append(
            (
                verdict.name,
                ", ".join(filter(None, (state, how if state != "skipped" else ""))),
                report.seconds(took) if took else "",
                report.seconds(saved) if saved else "",
                report.seconds(budget),
                "OVER BUDGET" if took > budget else _asked(verdict, data),
            )
        )
    tones = {"failed": "red", "warned": "yellow", "cached": "dim", "skipped": "dim"}
    first = [row[1].split(",")[0] for row in rows]
    report.say(
        report.table(
            rows,
            ("gate", "state", "took", "saved", "budget", "judged now"),
            right=(2, 3, 4),
            tones={i: tones[word] for i, word in enumerate(first) if word in tones},
        )
    )
    for verdict in verdicts:
        if verdict.state == "warned":
            report.say(f"\nwarning: {verdict.name}: {verdict.findings}", "yellow")
            report.say(f"fix: {verdict.fix}", "bold")
        elif verdict.state == "red":
            report.say(f"\n{verdict.name}", "red")
            report.say(report.indent(verdict.findings, 2))
            report.say(f"fix: {verdict.fix}", "bold")
    _show_end(verdicts, seconds)


def _asked(verdict: Verdict, data: Mapping[str, Any]) -> str:
    if verdict.state == "skipped":
        return verdict.findings
    return f"{data['judged']} of {data['files']} files" if "files" in data else ""


def _show_end(verdicts: Sequence[Verdict], seconds: float) -> None:
    saved = sum(_saved(verdict) for verdict in verdicts)
    text = f"\n{len(verdicts)} gates in {report.seconds(seconds)}"
    if saved:
        text += f", {report.seconds(saved)} saved by what was known"
    report.say(text)
    if seconds > BUDGET:
        slowest = max(verdicts, key=_took)
        report.say(
            f"OVER BUDGET: {report.seconds(seconds)} of {report.seconds(BUDGET)};"
            f" the most, {report.seconds(_took(slowest))}, was {slowest.name}",
            "red",
        )
