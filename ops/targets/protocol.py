"""What a deployer and the agent on a host say to each other: one JSON object a line.

    deployer  {"id": 7, "verb": "switch", "args": {...}, "epoch": 3, "at": 51.2}
              {"beat": 4}   {"cancel": 7}   {"id": 7, "data": 65536} + that many bytes
    agent     {"hello": {...}}   {"beat": 4}   {"id": 7, "ok": ...}
              {"id": 7, "error": {"kind": "StepFailed", "what": ...}}

Requests may be sent without waiting for the answers of earlier ones: the agent carries
them out in order. One with "needs": [7] is refused when request 7 went wrong.
Values keep their type on the way; errors arrive as the class that was raised.
Standard library only: this runs on the hosts too.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any

from ops import errors
from ops.command import Answer, Request
from ops.release import Release, Schema
from ops.world import Front, Host, Server, Slot

# Seconds. Who hears nothing for so long is alone: the agent ends, the deployer gives
# the host up. A request that was on its way for longer than LATE is not carried out,
# as nobody waits for its answer any more.
PATIENCE = 15.0
BEAT = 3.0
LATE = 10.0

_KINDS = {
    kind.__name__: kind
    for kind in (Answer, Front, Host, Release, Request, Schema, Server, Slot)
}
_ERRORS: dict[str, type[errors.OpsError]] = {
    kind.__name__: kind for kind in errors.OpsError.__subclasses__()
}


def line(message: Mapping[str, Any]) -> bytes:
    """Return a message as one line."""
    return json.dumps(_encoded(message), separators=(",", ":")).encode() + b"\n"


def parse(text: bytes) -> dict[str, Any]:
    """Return the message in a line.

    Raises:
        ValueError: it is none.
    """
    message = json.loads(text, object_hook=_decoded)
    if not isinstance(message, dict):
        raise ValueError("not a message")
    return message


def _encoded(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if is_dataclass(value) and type(value).__name__ in _KINDS:
        held = {
            each.name: _encoded(getattr(value, each.name)) for each in fields(value)
        }
        return {"$kind": type(value).__name__, **held}
    if isinstance(value, Mapping):
        return {str(key): _encoded(each) for key, each in value.items()}
    if isinstance(value, (set, frozenset)):
        return {"$set": sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_encoded(each) for each in value]
    return str(value) if isinstance(value, PurePath) else value


def _decoded(found: dict[str, Any]) -> Any:
    if "$bytes" in found:
        return base64.b64decode(found["$bytes"])
    if "$set" in found:
        return frozenset(found["$set"])
    if "$kind" in found:
        kind = _KINDS[found.pop("$kind")]
        # An agent of another checkout may know fields that we don't.
        known = {each.name for each in fields(kind)}
        return kind(
            **{
                name: tuple(value) if isinstance(value, list) else value
                for name, value in found.items()
                if name in known
            }
        )
    return found


def error(raised: BaseException) -> dict[str, Any]:
    """Return an exception as values."""
    if isinstance(raised, errors.OpsError):
        return raised.as_json()
    if isinstance(raised, OSError):
        return {
            "kind": "OSError",
            "errno": raised.errno,
            "what": raised.strerror or str(raised),
            "where": str(raised.filename or ""),
        }
    return {"kind": "defect", "what": f"{type(raised).__name__}: {raised}"}


def raised(said: Mapping[str, Any], host: str) -> Exception:
    """Return the exception that values describe, telling on which host it was."""
    if said["kind"] == "OSError":
        return OSError(said["errno"], f"{said['what']} (on {host})", said["where"])
    kind = _ERRORS.get(said["kind"])
    if kind is None:
        return errors.StepFailed(
            f"the agent met what it does not know: {said['what']}",
            where=host,
            detail=said.get("detail", ""),
            next="inv doctor",
        )
    where = f"{host}: {said['where']}" if said.get("where") else host
    named = {key: said.get(key, "") for key in ("allowed", "next", "detail")}
    return kind(said["what"], where=where, **named)
