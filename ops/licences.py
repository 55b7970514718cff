"""The licence gate: may we ship and use what is locked?

A package's licence is read from its installed metadata, or named in
`[tool.licences.known]` of pyproject.toml where it can't be read here; one that nobody
knows is red. Expressions are SPDX, and words of older metadata are translated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ops import advisories, toolchain

# What older metadata says, in lower case, and what it means.
WORDS = {
    "apache 2": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "bsd 2-clause license": "BSD-2-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "expat license": "MIT",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "psfl": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
}


def problems(
    locked: Sequence[str],
    found: Mapping[str, str],
    allowed: Sequence[str],
    known: Mapping[str, str],
    accepted: Mapping[str, str],
) -> list[str]:
    """Return a line for each locked package that the policy does not let in: pure.

    `found` and `known` are licences by package, read here and written down;
    `accepted` are packages let in under another licence, with the reason.
    """
    said = []
    for name in sorted(set(locked)):
        licence = known.get(name) or found.get(name, "")
        if not licence:
            said.append(f"{name}: no licence is known")
        elif not permits(licence, allowed) and name not in accepted:
            said.append(f"{name}: {licence} is not allowed")
    every = set(locked)
    for table, names in (("known", known), ("accepted", accepted)):
        said += [f"{n}: in {table}, but not locked" for n in sorted({*names} - every)]
    return said


def permits(expression: str, allowed: Sequence[str]) -> bool:
    """Say whether an SPDX expression can be met by allowed licences alone.

    Raises nothing: what can't be read is not permitted.
    """
    words = re.findall(r"[()]|[^\s()]+", expression)
    ok, rest = _either(words, frozenset(allowed))
    return ok and not rest


def _either(words: list[str], allowed: frozenset[str]) -> tuple[bool, list[str]]:
    ok, rest = _both(words, allowed)
    while rest[:1] == ["OR"]:
        other, rest = _both(rest[1:], allowed)
        ok = ok or other
    return ok, rest


def _both(words: list[str], allowed: frozenset[str]) -> tuple[bool, list[str]]:
    ok, rest = _one(words, allowed)
    while rest[:1] == ["AND"]:
        other, rest = _one(rest[1:], allowed)
        ok = ok and other
    return ok, rest


def _one(words: list[str], allowed: frozenset[str]) -> tuple[bool, list[str]]:
    if words[:1] == ["("]:
        ok, rest = _either(words[1:], allowed)
        return ok and rest[:1] == [")"], rest[1:]
    return words[:1] != [] and words[0] in allowed, words[1:]


def stated(metadata: str) -> str:
    """Return the SPDX expression of a METADATA file, "" where it states none."""
    head = metadata.partition("\n\n")[0]

    def values(name: str) -> list[str]:
        return re.findall(rf"^{name}: *(.+)$", head, re.M)

    for expression in values("License-Expression"):
        return expression.strip()
    words = [
        value.rpartition(" :: ")[2]
        for value in values("Classifier")
        if value.startswith("License ::")
    ]
    # The field holds the whole text now and then: only a short one is a name.
    words += [word for word in values("License") if len(word) < 60]
    for word in words:
        meant = WORDS.get(word.strip().lower())
        if meant:
            return meant
    spdx = re.compile(r"[A-Za-z0-9.+-]+( (AND|OR) [A-Za-z0-9.+-]+)*")
    return next((w.strip() for w in words if spdx.fullmatch(w.strip())), "")


def read(lock: Path) -> tuple[list[str], dict[str, str]]:
    """Return what is locked, and the licences of what is installed as locked."""
    pins = advisories.locked(lock)
    names = {toolchain.normal(name) for name, _ in pins}
    versions = set(pins)
    found = {}
    for name, version, metadata in toolchain.metadata():
        if name in names and (name, version) in versions:
            found[name] = stated(metadata)
    return sorted(names), found
