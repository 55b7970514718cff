"""Where an artefact comes from, as an in-toto statement with SLSA's predicate.

Pure, and without a clock: the same commit, lock and tools give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

NAME = "provenance.json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
# What `inv build` does, as docs/reference/pipeline.md describes it.
BUILD_TYPE = "urn:mltrading:inv-build:1"


def statement(manifest: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    """Return the statement about every file that a manifest names, itself left out.

    On GitHub the builder is the workflow's run; elsewhere it is the menu, which
    nobody vouches for.
    """
    files = manifest["files"]
    subject = [
        {"name": name, "digest": {"sha256": files[name]["sha256"]}}
        for name in sorted(files)
        if name != NAME
    ]
    builders = manifest["builders"]
    dependencies = [
        {"name": "source", "digest": {"gitCommit": manifest["commit"]}},
        {"name": "uv.lock", "digest": {"sha256": manifest["lock_sha256"]}},
        *({"name": n, "uri": f"pkg:pypi/{n}@{builders[n]}"} for n in sorted(builders)),
    ]
    document = {
        "_type": STATEMENT,
        "subject": subject,
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"artefact": manifest["digest"]},
                "internalParameters": {
                    "uncommittedChanges": manifest["dirty"],
                    "python": manifest["python"],
                },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {"builder": {"id": _builder(environ)}},
        },
    }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _builder(environ: Mapping[str, str]) -> str:
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_WORKFLOW_REF")
    server, repository, workflow = (environ.get(name, "") for name in names)
    if server and repository:
        return f"{server}/{workflow or repository}"
    return "urn:mltrading:inv-build"
