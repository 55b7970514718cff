"""Simulate which jobs of a workflow an event runs, by GitHub's own rules."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Mapping
from typing import Any

_STATUS = ("always()", "success()", "failure()", "cancelled()")
_WORD = re.compile(r"\s*(&&|\|\||==|!=|!|\(|\)|'[^']*'|[\w.-]+(?:\(\))?)")


def simulate(
    workflow: Mapping[Any, Any],
    event: str,
    ref: str,
    *,
    broken: Collection[str] = (),
    ends: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return job to success, failure, cancelled or skipped; {} when nothing starts.

    `broken` jobs fail when they run; `ends` fixes how jobs end.
    """
    if not _triggered(workflow, event, ref):
        return {}
    said: dict[str, str] = dict(ends or {})
    jobs = workflow["jobs"]
    while len(said) < len(jobs):
        for name, job in jobs.items():
            needs = _list(job.get("needs"))
            if name in said or not all(need in said for need in needs):
                continue
            before = _ancestors(jobs, name)
            if _runs(job.get("if"), event, ref, [said[need] for need in before]):
                said[name] = "failure" if name in broken else "success"
            else:
                said[name] = "skipped"
    return said


def _triggered(workflow: Mapping[Any, Any], event: str, ref: str) -> bool:
    # YAML reads the bare word `on` as true.
    triggers = workflow[True]
    if event not in triggers:
        return False
    rules = triggers[event] or {}
    kind, _, name = ref.removeprefix("refs/").partition("/")
    if event != "push" or not rules:
        return True
    wanted = rules.get("branches" if kind == "heads" else "tags", ())
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _ancestors(jobs: Mapping[str, Any], name: str) -> set[str]:
    """Return all jobs before one: `success()` asks every one of them."""
    found: set[str] = set()
    todo = _list(jobs[name].get("needs"))
    while todo:
        need = todo.pop()
        if need not in found:
            found.add(need)
            todo += _list(jobs[need].get("needs"))
    return found


def _runs(condition: Any, event: str, ref: str, before: Collection[str]) -> bool:
    text = str(condition if condition is not None else "success()").strip()
    text = re.sub(r"^\$\{\{(.*)\}\}$", r"\1", text, flags=re.S).strip()
    facts = {
        "github.event_name": event,
        "github.ref": ref,
        "true": True,
        "false": False,
        "always()": True,
        "success()": all(end == "success" for end in before),
        "failure()": "failure" in before,
        "cancelled()": "cancelled" in before,
    }
    value, rest = _or(_words(text), facts)
    assert not rest, f"not understood: {rest}"
    # Without a word about the jobs before, GitHub puts `success() &&` in front.
    asked = any(status in text for status in _STATUS)
    return bool(value) and (asked or bool(facts["success()"]))


def _words(text: str) -> list[str]:
    words, at = [], 0
    while at < len(text):
        found = _WORD.match(text, at)
        assert found, f"not understood: {text[at:]}"
        words.append(found[1])
        at = found.end()
    return words


def _or(words: list[str], facts: Mapping[str, Any]) -> tuple[Any, list[str]]:
    value, rest = _and(words, facts)
    while rest[:1] == ["||"]:
        other, rest = _and(rest[1:], facts)
        value = value or other
    return value, rest


def _and(words: list[str], facts: Mapping[str, Any]) -> tuple[Any, list[str]]:
    value, rest = _equal(words, facts)
    while rest[:1] == ["&&"]:
        other, rest = _equal(rest[1:], facts)
        value = value and other
    return value, rest


def _equal(words: list[str], facts: Mapping[str, Any]) -> tuple[Any, list[str]]:
    value, rest = _one(words, facts)
    if rest[:1] in (["=="], ["!="]):
        other, after = _one(rest[1:], facts)
        return (value == other) == (rest[0] == "=="), after
    return value, rest


def _one(words: list[str], facts: Mapping[str, Any]) -> tuple[Any, list[str]]:
    first, *rest = words
    if first == "!":
        value, rest = _one(rest, facts)
        return not value, rest
    if first == "(":
        value, rest = _or(rest, facts)
        assert rest[:1] == [")"], "a bracket is not closed"
        return value, rest[1:]
    if first.startswith("'"):
        return first[1:-1], rest
    return facts[first], rest
