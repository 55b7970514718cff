"""The grounds of a verdict: everything that can change it, and nothing else.

Contents and relative paths only, never a modification time or an absolute path, so
another checkout shares what is known. What `--explain` tells is a comparison of the
grounds now with those of the last green run.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ops import cache
from ops.gates import Gate, circumstances
from ops.tree import Tree

_OWN = {
    "command": "the gate's command",
    "reader": "our code that reads its answer",
    "layout": "the modules at the root",
}
# Of a digest, enough to tell two contents of one file apart.
_SHORT = 16


@dataclass(frozen=True)
class Grounds:
    """What one gate's verdicts rest on: what all share, and each input's content."""

    gate: Gate
    base: Mapping[str, Any]
    inputs: Mapping[str, str]

    @cached_property
    def key(self) -> str:
        """The key of the verdict about the whole tree."""
        return cache.key(**self.base, whole=list(self.inputs.items()))

    @cached_property
    def _base_key(self) -> str:
        return cache.key(**self.base)

    def file_key(self, path: str) -> str:
        """Return the key of the verdict about one file."""
        return cache.key(base=self._base_key, file=[path, self.inputs[path]])

    def hold(self, path: str, tree: Tree, environ: Mapping[str, str]) -> bool:
        """Say whether a file, or the whole tree (""), is still what was hashed."""
        if path:
            return tree.digest(path) == self.inputs[path]
        tools = self.base["tools"]
        return of(self.gate, tree, tools, environ).key == self.key

    def base_holds(self, tree: Tree, environ: Mapping[str, str]) -> bool:
        """Say whether all that the verdicts share is still what it was."""
        tools = self.base["tools"]
        return _base(self.gate, tree, tools, environ) == self.base

    def record(self) -> dict[str, Any]:
        """Return the grounds as JSON values without a setting's value: no secret."""
        base = self.base
        return {
            "command": _digest(base["argv"]),
            "reader": base["reader"][:_SHORT],
            "python": base["python"],
            "tools": base["tools"],
            "settings": {name: _digest(v) for name, v in base["config"].items()},
            "environment": {n: _digest(v) for n, v in base["environment"].items()},
            "layout": _digest(base["layout"]),
            "inputs": {path: said[:_SHORT] for path, said in self.inputs.items()},
        }


def of(
    gate: Gate, tree: Tree, tools: Mapping[str, str], environ: Mapping[str, str]
) -> Grounds:
    """Return the grounds of a gate's verdicts about a tree."""
    inputs = {path: tree.digest(path) for path in gate.judges(tree)}
    return Grounds(gate, _base(gate, tree, tools, environ), inputs)


def _base(
    gate: Gate, tree: Tree, tools: Mapping[str, str], environ: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "gate": gate.name,
        "argv": gate.argv,
        "reader": _readers(gate),
        "tools": dict(sorted(tools.items())),
        "python": [sys.implementation.name, *sys.version_info, sys.platform],
        "config": {name: tree.config(name) for name in gate.config},
        "layout": tree.layout if gate.layout else (),
        "environment": circumstances(gate, tree, environ),
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in words what is not the same in two records of grounds."""
    said: list[str] = []
    for name, text in _OWN.items():
        if before.get(name) != now.get(name):
            said.append(text)
    if before.get("python") != now.get("python"):
        said.append(f"Python {_python(before)}, now {_python(now)}")
    for kind, word in (("tools", ""), ("settings", ""), ("environment", "variable ")):
        old, new = before.get(kind, {}), now.get(kind, {})
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                change = (
                    f" {old.get(name, 'absent')}, now {new.get(name, 'absent')}"
                    if kind == "tools"
                    else ""
                )
                said.append(f"{word}{name}{change}")
    old, new = before.get("inputs", {}), now.get("inputs", {})
    said += [f"changed: {p}" for p in sorted(new) if p in old and old[p] != new[p]]
    said += [f"new: {path}" for path in sorted(set(new) - set(old))]
    said += [f"gone: {path}" for path in sorted(set(old) - set(new))]
    return said


def _python(record: Mapping[str, Any]) -> str:
    return ".".join(str(part) for part in record.get("python", ["?"])[1:4])


def _readers(gate: Gate) -> str:
    """Return the digest of our own code that reads what the gate's tool says."""
    total = hashlib.sha256()
    for name in gate.read_by:
        total.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return total.hexdigest()


def _digest(value: Any) -> str:
    return cache.key(value=value)[:_SHORT]
