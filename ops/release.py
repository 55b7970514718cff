"""The record of a release: what was shipped, with which configuration, by whom."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from ops.command import Secret
from ops.errors import Usage


@dataclass(frozen=True, slots=True)
class Schema:
    """The revision that a release brings the database to, and those it works on.

    Revisions are four digits; they compare as text.
    """

    head: str
    min_supported: str
    max_supported: str

    def holds(self, revision: str) -> bool:
        """Say whether the release works on a database at this revision."""
        return self.min_supported <= revision <= self.max_supported

    def __str__(self) -> str:
        return f"{self.min_supported} to {self.max_supported}"


@dataclass(frozen=True, slots=True)
class Release:
    """An artefact and a configuration under a number; never edited.

    `environment` is the hash of the locked dependencies and the interpreter: releases
    with the same hash share one installed environment. `secrets` are names only, and
    `sticky` those of them that follow their newest value. `schema` is None where the
    artefact says nothing of a database; `files` is the digest of what it unpacks to.
    """

    number: int
    artefact: str
    commit: str
    dirty: bool
    config: str
    environment: str
    python: str
    by: str
    at: float
    secrets: tuple[str, ...] = ()
    schema: Schema | None = None
    files: str = ""
    sticky: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"v{self.number}"

    def as_json(self) -> str:
        """Return the record's text; what has its default is left out.

        So a record that an older engine wrote comes out as it was.
        """
        said = asdict(self)
        for each in fields(self):
            if each.default is not MISSING and said[each.name] == each.default:
                del said[each.name]
        return json.dumps(said, indent=2, sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Release:
        """Return the release that a record file describes.

        Raises:
            ValueError, TypeError: the file is damaged, or lacks what every record has.
        """
        said: dict[str, Any] = json.loads(text)
        for name in ("secrets", "sticky"):
            said[name] = tuple(said.get(name, ()))
        if said.get("schema"):
            said["schema"] = Schema(**said["schema"])
        # A record of an older engine lacks what has a default here.
        known = {name: said[name] for name in cls.__dataclass_fields__ if name in said}
        return cls(**known)


def parse_number(text: str, flag: str) -> int:
    """Return the number in "7" or "v7".

    Raises:
        Usage: the text is neither.
    """
    digits = text.removeprefix("v")
    if not digits.isdecimal() or int(digits) == 0:
        raise Usage(
            f'"{text}" is not a release', where=flag, allowed="a number such as 7 or v7"
        )
    return int(digits)


def record_digest(record: str) -> str:
    """Return the digest of a record's text, which the journal of its run holds."""
    return hashlib.sha256(record.encode()).hexdigest()


def config_digest(values: Mapping[str, str | Secret], key: bytes) -> str:
    """Return a digest that changes with any variable and gives no secret away."""
    lines = []
    for name in sorted(values):
        value = values[name]
        if isinstance(value, Secret):
            keyed = hmac.new(key, value.value.encode(), hashlib.sha256).hexdigest()
            lines.append(f"{name}=secret:{keyed}")
        else:
            lines.append(f"{name}={value}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def environment_hash(requirements: bytes, python: str) -> str:
    """Return the name of the installed environment for these locked dependencies."""
    return hashlib.sha256(requirements + python.encode()).hexdigest()[:16]
