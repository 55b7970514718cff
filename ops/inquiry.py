"""Ask the gates: what is known of this very content, what must be asked, what is kept.

A verdict is kept under the hash of its grounds, so what did not change is not judged
again; per-file gates keep one verdict for each file. What changed while a tool read
it is judged, and forgotten.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ops import board, cache, errors, grounds, scheduler, toolchain
from ops.cache import Store, Verdict
from ops.environment import ROOT
from ops.gates import Gate
from ops.grounds import Grounds
from ops.judges import Answer, ask
from ops.scheduler import Job
from ops.tree import Tree, imported

# Bytes and files of one start of a per-file tool: enough to pay for the start, few
# enough to use every processor and to keep the command line short.
BATCH = (262_144, 400)
# Files whose change may change everything.
EVERYTHING = ("uv.lock", ".python-version")


@dataclass(slots=True)
class Question:
    """A gate in one run: its grounds, what is known, what must be asked.

    `paths`, `known` and `missing` are about files, or "" for the tree; `whole` says
    that no path was left out. `verdict` is set where one look-up answered for all;
    `also` is another key of a green one. `seconds` is what asking took, and
    `forgotten` says that some of the answers are not kept.
    """

    gate: Gate
    grounds: Grounds
    paths: tuple[str, ...]
    known: dict[str, Verdict] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    verdict: Verdict | None = None
    also: str = ""
    whole: bool = True
    seconds: float | None = None
    forgotten: bool = False


@dataclass(frozen=True, slots=True)
class Asking:
    """How a run asks; the fields are the options of `inv quality`.

    At most `jobs` tools run at once (default: one per processor). `since` asks only
    about what differs from a revision; `fail_fast` ends the run at the first red gate.
    `shown` draws the progress.
    """

    root: Path = ROOT
    use_cache: bool = True
    jobs: int | None = None
    since: str = ""
    fail_fast: bool = False
    shown: bool = False
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)


def look_up(
    gates: Sequence[Gate], tree: Tree, store: Store, asking: Asking
) -> list[Question]:
    """Return each gate's question, with what earlier runs said of the same content.

    Where the store turns out not to be true, nothing of it is believed.
    """
    renewed = store.renewed
    changed = _changed(tree.root, asking.since) if asking.since else None
    questions = [_look_up(gate, tree, store, asking, changed) for gate in gates]
    if store.renewed != renewed:
        return look_up(gates, tree, store, asking)
    return questions


def _look_up(
    gate: Gate,
    tree: Tree,
    store: Store,
    asking: Asking,
    changed: frozenset[str] | None,
) -> Question:
    found = grounds.of(gate, tree, _tools(gate, store), asking.environ)
    paths = tuple(found.inputs) if gate.per_file else ("",)
    question = Question(gate, found, paths)
    if changed is not None:
        question.paths = _affected(gate, paths, found, changed)
        question.whole = question.paths == paths
    ask_store = asking.use_cache and bool(question.paths)
    if ask_store and question.whole:
        # Nothing at all changed: one look-up instead of one per file.
        question.verdict = store.get(found.key)
    if ask_store and question.verdict is None and gate.name == "imports":
        question.also = _by_imports(tree, found, store)
        question.verdict = store.get(question.also)
    if question.verdict is not None:
        return question
    if gate.per_file and ask_store:
        for path in question.paths:
            verdict = store.get(found.file_key(path))
            if verdict is not None:
                question.known[path] = verdict
    question.missing = tuple(p for p in question.paths if p not in question.known)
    return question


def _affected(
    gate: Gate, paths: tuple[str, ...], found: Grounds, changed: frozenset[str]
) -> tuple[str, ...]:
    """Return which of a gate's files a change concerns, all where it is not sure."""
    settings = {name.partition("#")[0] for name in gate.config}
    ours = {f"ops/{name}.py" for name in (*gate.read_by, "gates")}
    if changed & (settings | ours | set(EVERYTHING)) or gate.asks_world:
        return paths
    touched = changed & set(found.inputs)
    if gate.per_file:
        return tuple(path for path in paths if path in touched)
    # A file that is gone can't be among the inputs any more.
    gone = [path for path in changed if path not in found.inputs]
    return paths if touched or _matches(gate, gone) else ()


def _matches(gate: Gate, paths: Iterable[str]) -> bool:
    import fnmatch

    return any(
        fnmatch.fnmatchcase(path, glob) for path in paths for glob in gate.inputs
    )


def _changed(root: Path, since: str) -> frozenset[str]:
    """Return the files that differ from where the branch left a revision.

    Raises:
        Usage: git does not know the revision.
    """
    from ops.command import Command
    from ops.shell import run as shell_run

    def git(*words: str) -> Any:
        return shell_run(Command(("git", *words), cwd=root))

    revision = git("rev-parse", "--verify", "--quiet", f"{since}^{{commit}}")
    if not revision.ok:
        raise errors.Usage(
            f'git knows no revision "{since}"',
            where="--since",
            allowed="a commit, branch or tag such as origin/main",
        )
    base = git("merge-base", since, "HEAD")
    from_here = base.out.strip() if base.ok else revision.out.strip()
    names: set[str] = set()
    for words in (
        ("diff", "--name-only", "--no-renames", "-z", "--relative", from_here, "--"),
        ("ls-files", "--others", "--exclude-standard", "-z"),
    ):
        listed = git(*words)
        if not listed.ok:
            raise errors.StepFailed("git can't compare", detail=listed.tail(5))
        names |= set(filter(None, listed.out.split("\0")))
    return frozenset(names)


def _tools(gate: Gate, store: Store) -> dict[str, str]:
    """Return the versions of a gate's tools with all that they need."""
    if not gate.tools:
        return {}
    versions = toolchain.installed()
    key = cache.key(closure=gate.tools, installed=versions)
    known = store.recall(key)
    if known is None:
        known = toolchain.closure(gate.tools)
        store.remember({key: known})
    return dict(known)


def _by_imports(tree: Tree, found: Grounds, store: Store) -> str:
    """Return the key of a green verdict: what is imported, not every line."""
    names, fresh = [], {}
    for path, digest in found.inputs.items():
        key = cache.key(imports_of=digest, python=found.base["python"])
        text = store.recall(key)
        if text is None:
            text = imported((tree.root / path).read_bytes()) or digest
            fresh[key] = text
        names.append([path, text])
    store.remember(fresh)
    return cache.key(**found.base, imports=names)


def answer(questions: Sequence[Question], store: Store, asking: Asking) -> None:
    """Ask what is not known, keep each answer as it comes, fill the questions in."""
    if any(question.missing for question in questions):
        _ask_all(questions, store, asking)
    for question in questions:
        _keep_whole(question, store, asking.root)


def _ask_all(questions: Sequence[Question], store: Store, asking: Asking) -> None:
    versions = toolchain.installed()
    tree = Tree(asking.root)
    pace = store.recall(_PACE) or {}
    jobs: list[Job] = []
    todo = {question.gate.name: question for question in questions if question.missing}
    for question in todo.values():
        gate = question.gate
        for batch, size in _batches(question, tree):
            jobs.append(
                Job(
                    gate.name,
                    partial(_ask, gate, batch, tree, versions, asking.environ),
                    _expected(gate, size, pace),
                    tuple(name for name in gate.after if name in todo),
                )
            )
    paces: dict[str, list[tuple[int, float]]] = {}
    with board.drawn(jobs, asking.shown) as drawn:
        done = scheduler.side_by_side(
            jobs, asking.jobs, begun=drawn.begun, tick=drawn.tick
        )
        with contextlib.closing(done):
            for job, (batch, said_) in done:
                question = todo[job.name]
                _fill_in(question, batch, said_, store, asking)
                size = sum(_size(tree, path) for path in batch)
                paces.setdefault(job.name, []).append((size, said_.seconds))
                states = {verdict.state for verdict in said_.verdicts.values()}
                red = "red" in states
                warned = "warned" if "warned" in states else "ok"
                drawn.ended(job, "failed" if red else warned)
                if red and asking.fail_fast:
                    break
    store.remember({_PACE: {**pace, **_paces(paces)}})


def expected(
    questions: Sequence[Question], store: Store, root: Path
) -> dict[str, float]:
    """Return for each gate the seconds that asking it should take, 0 if not asked."""
    pace, tree = store.recall(_PACE) or {}, Tree(root)
    return {
        q.gate.name: (
            sum(_expected(q.gate, size, pace) for _, size in _batches(q, tree))
            if q.missing
            else 0.0
        )
        for q in questions
    }


def _ask(
    gate: Gate,
    batch: tuple[str, ...],
    tree: Tree,
    versions: Mapping[str, str],
    environ: Mapping[str, str],
) -> tuple[tuple[str, ...], Answer]:
    return batch, ask(gate, batch, tree, versions, environ)


# Under this key: gate to seconds per 100 kB for one that judges files, else seconds.
_PACE = cache.key(pace=1)


def _expected(gate: Gate, size: int, pace: Mapping[str, float]) -> float:
    if gate.name not in pace:
        return gate.cost
    return pace[gate.name] * size / 100_000 if gate.per_file else pace[gate.name]


def _paces(found: Mapping[str, Sequence[tuple[int, float]]]) -> dict[str, float]:
    paces = {}
    for name, pairs in found.items():
        size = sum(size for size, _ in pairs)
        took = sum(seconds for _, seconds in pairs)
        paces[name] = round(took / size * 100_000 if size else took, 4)
    return paces


def _size(tree: Tree, path: str) -> int:
    try:
        return (tree.root / path).stat().st_size if path else 0
    except OSError:
        return 0


def _batches(question: Question, tree: Tree) -> list[tuple[tuple[str, ...], int]]:
    """Return lots of about equal bytes, each for one start, with their bytes."""
    if not question.gate.per_file:
        return [((), 0)]
    return lots(question.missing, tree)


def lots(paths: Sequence[str], tree: Tree) -> list[tuple[tuple[str, ...], int]]:
    """Return files in lots of about equal bytes, with the bytes of each lot."""
    sizes = {path: _size(tree, path) for path in paths}
    cores = os.cpu_count() or 2
    total = sum(sizes.values())
    count = max(min(2 * cores, total // BATCH[0]), -(-len(sizes) // BATCH[1]), 1)
    found: list[list[str]] = [[] for _ in range(min(count, len(sizes)))]
    filled = [0] * len(found)
    for path in sorted(sizes, key=lambda path: -sizes[path]):
        smallest = filled.index(min(filled))
        found[smallest].append(path)
        filled[smallest] += sizes[path] + 1
    return [(tuple(sorted(lot)), size) for lot, size in zip(found, filled, strict=True)]


def _fill_in(
    question: Question,
    batch: tuple[str, ...],
    said_: Answer,
    store: Store,
    asking: Asking,
) -> None:
    """Take an answer; keep what is about content that is still there."""
    question.seconds = (question.seconds or 0.0) + said_.seconds
    question.known |= said_.verdicts
    found, tree = question.grounds, Tree(asking.root)
    kept: dict[str, Verdict] = {}
    if said_.keep and found.base_holds(tree, asking.environ):
        for path, verdict in said_.verdicts.items():
            if found.hold(path, tree, asking.environ):
                kept[found.file_key(path) if path else found.key] = verdict
    question.forgotten |= len(kept) < len(said_.verdicts)
    if not asking.use_cache and not question.gate.asks_world:
        lies = [key for key, verdict in kept.items() if _lied(store, key, verdict)]
        if lies:
            store.distrust(f"{question.gate.name} says otherwise of the same content")
    if question.also and said_.verdicts[""].state == "green" and kept:
        kept[question.also] = said_.verdicts[""]
    store.put_all(kept)


def _lied(store: Store, key: str, verdict: Verdict) -> bool:
    known = store.get(key)
    return known is not None and known.state != verdict.state


def _keep_whole(question: Question, store: Store, root: Path) -> None:
    """Keep what the next run looks up first, and what `--explain` compares with."""
    unasked = any(path not in question.known for path in question.missing)
    if unasked or question.forgotten or not question.whole:
        return
    verdict = said(question)
    key = question.grounds.key
    if question.verdict is None and question.gate.per_file:
        seconds = sum(known.seconds for known in question.known.values())
        data = {**(verdict.data or {}), "judged": 0, "saved": round(seconds, 3)}
        store.put(key, replace(verdict, seconds=seconds, data=data))
    if verdict.state == "red":
        return
    for pointer in _pointers(question.gate, root):
        if store.recall(pointer) != key:
            record = {cache.key(record=key): question.grounds.record()}
            store.remember({**record, pointer: key})


def _pointers(gate: Gate, root: Path) -> tuple[str, str]:
    """Return where the last green run is noted: of this checkout, of any."""
    # A checkout's own place is no ground of a verdict, only of what was last here.
    here = cache.key(last_green=gate.name, checkout=str(root))
    return here, cache.key(last_green=gate.name)


def why(question: Question, store: Store, root: Path) -> list[str]:
    """Return in words what changed since a gate's last green run."""
    now = question.grounds.record()
    for pointer, place in zip(
        _pointers(question.gate, root), ("here", "in another checkout"), strict=True
    ):
        key = store.recall(pointer)
        record = store.recall(cache.key(record=key)) if key else None
        if record is not None:
            found = grounds.differences(record, now)
            return found or [f"nothing changed since the last green run {place}"]
    return ["no green run of this gate is known"]


def said(question: Question) -> Verdict:
    """Return one verdict for a gate out of those of its files."""
    gate = question.gate
    if question.verdict is not None:
        return question.verdict
    known = {
        path: question.known[path] for path in question.paths if path in question.known
    }
    red = [verdict for verdict in known.values() if verdict.state == "red"]
    if not red and len(known) < len(question.paths):
        return Verdict(gate.name, "skipped", findings="the run ended first")
    if not question.paths and not question.whole:
        return Verdict(gate.name, "skipped", findings="nothing that it reads changed")
    if not gate.per_file:
        return known[""]
    return Verdict(
        gate.name,
        "red" if red else "green",
        cached=question.seconds is None,
        seconds=(
            sum(v.seconds for v in known.values())
            if question.seconds is None
            else question.seconds
        ),
        findings="\n".join(dict.fromkeys(v.findings for v in red)),
        fix=red[0].fix if red else gate.fix,
        data={
            "files": len(known),
            "judged": sum(not v.cached for v in known.values()),
            "saved": round(sum(v.seconds for v in known.values() if v.cached), 3),
            "results": [r for v in known.values() for r in (v.data or {}).values()],
        },
    )
