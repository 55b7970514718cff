"""What a release must answer: the gate on its own socket, the smoke list outside.

The questions and the judgement are values and pure functions; asking is the target's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ops.command import Answer, Request

# A release that answers once may have been lucky.
IN_A_ROW = 3
HEADERS = {"x-content-type-options": "nosniff", "x-frame-options": "DENY"}


@dataclass(frozen=True, slots=True)
class Probe:
    """A question and how to judge its answer: "" is a yes, else what is wrong."""

    name: str
    request: Request
    judge: Callable[[Answer], str]


def gate(release: str, artefact: str) -> tuple[Probe, ...]:
    """Return the boot gate: live, ready, and the very release that was staged."""
    return (
        Probe("live", Request("GET", "/livez"), _status),
        Probe("ready", Request("GET", "/readyz"), _status),
        *version(release, artefact),
    )


def version(release: str, artefact: str) -> tuple[Probe, ...]:
    """Return the one question that tells which release answers."""
    return (Probe("version", Request("GET", "/version"), _version(release, artefact)),)


def pages(paths: Sequence[str]) -> tuple[Probe, ...]:
    """Return one question a page: it comes, with its security headers."""
    return tuple(Probe(path, Request("GET", path, timeout=10), _page) for path in paths)


def described() -> tuple[Probe, ...]:
    """Return the one question whose answer `callbacks` reads, whatever it is."""
    return (Probe("callbacks", Request("GET", "/_dash-dependencies"), lambda _: ""),)


def callbacks(dependencies: Answer, paths: Sequence[str]) -> tuple[Probe, ...]:
    """Return one callback probe a page: what a browser posts to draw that page.

    `dependencies` is the answer of `/_dash-dependencies`, the app's own description
    of its callbacks; the one that listens to the path draws the page.
    """
    described = parsed(dependencies)
    if not isinstance(described, list):
        return ()
    for callback in filter(lambda each: isinstance(each, dict), described):
        inputs = callback.get("inputs", ())
        served = not callback.get("clientside_function")
        if served and any(each.get("property") == "pathname" for each in inputs):
            return tuple(
                Probe(f"draw {path}", _post(callback, path), _drawn) for path in paths
            )
    return ()


def worst(probes: Sequence[Probe], answers: Sequence[Answer]) -> str:
    """Return the first problem found, with the question that found it, or ""."""
    for probe, answer in zip(probes, answers, strict=True):
        problem = probe.judge(answer)
        if problem:
            return f"{probe.request.method} {probe.request.path}: {problem}"
    return ""


def _status(answer: Answer) -> str:
    if answer.status == 200:
        return ""
    said = answer.body[:200].decode(errors="replace").strip().replace("\n", " ")
    return (
        answer.error
        or f"status {answer.status}, wanted 200{': ' + said if said else ''}"
    )


def _version(release: str, artefact: str) -> Callable[[Answer], str]:
    def judge(answer: Answer) -> str:
        problem = _status(answer)
        if problem:
            return problem
        said = parsed(answer) or {}
        for name, wanted in (("release", release), ("artefact", artefact)):
            if said.get(name) != wanted:
                return f"{name} is {said.get(name)!r}, wanted {wanted!r}"
        return ""

    return judge


def _page(answer: Answer) -> str:
    problem = _status(answer)
    if problem:
        return problem
    if not answer.headers.get("content-type", "").startswith("text/html"):
        return f"content type {answer.headers.get('content-type')!r}, wanted text/html"
    for name, wanted in HEADERS.items():
        if answer.headers.get(name) != wanted:
            return f"header {name} is {answer.headers.get(name)!r}, wanted {wanted!r}"
    return ""


def _drawn(answer: Answer) -> str:
    problem = _status(answer)
    if problem:
        return problem
    said = parsed(answer)
    if not isinstance(said, Mapping) or not said.get("response"):
        return "the callback answered without a page"
    return ""


def parsed(answer: Answer) -> Any:
    """Return the JSON body of an answer, None where it is not JSON."""
    try:
        return json.loads(answer.body)
    except ValueError:
        return None


def _post(callback: Mapping[str, Any], page: str) -> Request:
    """Return the request with which Dash's renderer asks a callback for a page."""
    path, _, query = page.partition("?")
    known = {"pathname": path, "search": f"?{query}" if query else ""}

    def filled(parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{**part, "value": known.get(part["property"])} for part in parts]

    output = callback["output"]
    if output.startswith(".."):
        outputs: Any = [_target(part) for part in output.strip(".").split("...")]
    else:
        outputs = _target(output)
    body = {
        "output": output,
        "outputs": outputs,
        "inputs": filled(callback["inputs"]),
        "changedPropIds": [
            f"{part['id']}.{part['property']}" for part in callback["inputs"]
        ],
        "state": filled(callback.get("state", ())),
    }
    return Request(
        "POST",
        "/_dash-update-component",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
        timeout=10,
    )


def _target(text: str) -> dict[str, str]:
    name, _, prop = text.rpartition(".")
    return {"id": name, "property": prop.partition("@")[0]}
