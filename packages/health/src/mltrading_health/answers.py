"""Write a report as JSON, as application/health+json, as lines. Pure.

One state has one HTTP status in all of them. Strangers get names and states; what an
error says, numbers and moments are details, for those who know the token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from mltrading_health.checks import Check, Health, Report, Result, Status

OK = "200 OK"
UNAVAILABLE = "503 Service Unavailable"
BROKEN = "500 Internal Server Error"

JSON = "application/json"
DRAFT = "application/health+json"
TEXT = "text/plain"
CONTENT_TYPES = {JSON: JSON, DRAFT: DRAFT, TEXT: "text/plain; charset=utf-8"}

WORDS = {Status.PASS: "pass", Status.WARN: "warn", Status.FAIL: "fail"}
_SIGNS = {
    Status.PASS: ("[+]", "ok"),
    Status.WARN: ("[!]", "warning"),
    Status.FAIL: ("[-]", "failed"),
}
WITHHELD = "reason withheld"


def code(report: Report) -> str:
    """Return the status line of a report: a warning is still good."""
    return UNAVAILABLE if report.status is Status.FAIL else OK


def as_json(content: Mapping[str, Any]) -> bytes:
    """Return an object as a body of JSON."""
    return json.dumps(content, ensure_ascii=False, default=str).encode() + b"\n"


def moment(at: datetime) -> str:
    """Return a moment in UTC to the millisecond, as RFC 3339 has it."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seed(health: Health, report: Report, detailed: bool) -> tuple[bytes, bytes]:
    """Return the JSON of /health, cut where the moment of the answer comes in.

    `status` is "healthy" or "degraded", `checks` are booleans.
    """
    good = report.status is not Status.FAIL
    rest: dict[str, Any] = {
        "version": health.version,
        "checks": {
            name: result.status is not Status.FAIL
            for name, result in report.checks.items()
        },
    }
    if detailed:
        rest["details"] = {
            name: _details(health.checks[name], result)
            for name, result in report.checks.items()
        }
    status = "healthy" if good else "degraded"
    head = f'{{"status": "{status}", "timestamp": "'.encode()
    return head, b'", ' + as_json(rest)[1:]


def draft(health: Health, report: Report, detailed: bool) -> bytes:
    """Return /health in the form of draft-inadarei-api-health-check-06."""
    content: dict[str, Any] = {
        "status": WORDS[report.status],
        "version": health.version,
        "releaseId": health.release,
        "serviceId": health.service,
        "checks": {
            name: [_component(health.checks[name], result, detailed)]
            for name, result in report.checks.items()
        },
    }
    if report.status is not Status.PASS:
        content["notes"] = [
            f"{name}: {WORDS[result.status]}"
            for name, result in report.checks.items()
            if result.status is not Status.PASS
        ]
    return as_json(content)


def lines(report: Report, name: str, detailed: bool) -> bytes:
    """Return a line for each check, and a last one that says whether all is good."""
    said = [_line(each, result, detailed) for each, result in report.checks.items()]
    verdict = "failed" if report.status is Status.FAIL else "passed"
    return "\n".join([*said, f"{name} check {verdict}", ""]).encode()


def _line(name: str, result: Result, detailed: bool) -> str:
    sign, word = _SIGNS[result.status]
    if result.status is not Status.PASS:
        word += f": {result.output or 'no reason given' if detailed else WITHHELD}"
    elif detailed and result.output:
        word += f": {result.output}"
    return f"{sign}{name} {' '.join(word.split())}"


def _component(check: Check, result: Result, detailed: bool) -> dict[str, Any]:
    said: dict[str, Any] = {
        "componentType": check.kind,
        "status": WORDS[result.status],
    }
    if detailed:
        if result.value is not None:
            said.update(observedValue=result.value, observedUnit=result.unit)
        if result.at is not None:
            said["time"] = moment(result.at)
        if result.output and result.status is not Status.PASS:
            said["output"] = result.output
    return said


def _details(check: Check, result: Result) -> dict[str, Any]:
    return {
        "status": WORDS[result.status],
        "output": result.output,
        "value": result.value,
        "unit": result.unit,
        "time": moment(result.at) if result.at else None,
        "kind": check.kind,
        "critical": check.critical,
    }
