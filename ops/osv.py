"""Turn the public OSV records of Python packages into the safety client's database.

Pure: records in, two documents (`insecure.json`, `insecure_full.json`, schema 2.0.0)
out. Their date is that of the newest record, not that of the download.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ops.toolchain import normal

SCHEMA = "2.0.0"
# PEP 440, as far as a comparison of versions needs it.
_VERSION = re.compile(
    r"v?(\d+!)?\d+(\.\d+)*([-_.]?(a|b|c|rc|alpha|beta|pre|preview)[-_.]?\d*)?"
    r"([-_.]?(post|rev|r)[-_.]?\d*|-\d+)?([-_.]?dev[-_.]?\d*)?",
    re.IGNORECASE,
)


def convert(
    records: Iterable[Mapping[str, Any]],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the two documents of a database.

    Raises:
        ValueError: a record is not one, or there is none.
    """
    short: dict[str, list[str]] = {}
    full: dict[str, list[dict[str, Any]]] = {}
    newest = 0.0
    for record in records:
        try:
            identity, modified = str(record["id"]), str(record["modified"])
            newest = max(newest, _seconds(modified))
            affected = list(record.get("affected", ()))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not an OSV record: {error!r}") from None
        if record.get("withdrawn"):
            continue
        for item in affected:
            package = item.get("package", {})
            specs = specifiers(item)
            if package.get("ecosystem") != "PyPI" or not specs:
                continue
            name = normal(str(package["name"]))
            short.setdefault(name, []).extend(specs)
            full.setdefault(name, []).append(_advisory(identity, record, specs))
    if not short:
        raise ValueError("no record is about a Python package")
    meta = {
        "advisory": "OSV",
        "timestamp": int(newest),
        "base_domain": "https://osv.dev",
        "schema_version": SCHEMA,
        "attribution": "records of osv.dev, each under the licence of its source",
    }
    known = {
        "insecure_versions": [],
        "secure_versions": [],
        "latest_version": None,
        "latest_secure_version": None,
        "more_info_path": "/",
    }
    packages = {name: known for name in sorted(full)}
    return (
        {"meta": meta, "vulnerable_packages": dict(sorted(short.items()))},
        {
            "meta": {**meta, "packages": packages},
            "vulnerable_packages": dict(sorted(full.items())),
        },
    )


def specifiers(affected: Mapping[str, Any]) -> list[str]:
    """Return which versions of a package are affected, as version specifiers.

    What a range leaves open is open; versions that no tool can compare are left out.
    """
    found: list[str] = []
    for span in affected.get("ranges", ()):
        if span.get("type") != "ECOSYSTEM":
            continue
        lower = ""
        for event in span.get("events", ()):
            if "introduced" in event:
                if lower:
                    found.append(lower)
                lower = _spec(">=", event["introduced"]) or ">=0"
            elif lower and "fixed" in event:
                found.append(_joined(lower, _spec("<", event["fixed"])))
                lower = ""
            elif lower and "last_affected" in event:
                found.append(_joined(lower, _spec("<=", event["last_affected"])))
                lower = ""
        if lower:
            found.append(lower)
    if not found:
        found = [_spec("==", version) for version in affected.get("versions", ())]
    return [spec for spec in dict.fromkeys(found) if spec]


def _spec(sign: str, version: Any) -> str:
    text = str(version)
    return f"{sign}{text}" if _VERSION.fullmatch(text) else ""


def _joined(lower: str, upper: str) -> str:
    return ",".join(part for part in (lower, upper) if part)


def _advisory(
    identity: str, record: Mapping[str, Any], specs: list[str]
) -> dict[str, Any]:
    ids = [{"type": "pyup", "id": identity}]
    names = [str(name) for name in record.get("aliases", ())]
    ids += [{"type": "cve", "id": name} for name in names if name.startswith("CVE-")]
    return {
        "specs": specs,
        "advisory": str(record.get("summary") or identity),
        "transitive": False,
        "more_info_path": f"/vulnerability/{identity}",
        "ids": ids,
    }


def _seconds(moment: str) -> float:
    return datetime.datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
