"""Take a service out of traffic and put it back: python -m mltrading_health drain.

For a preStop hook, or a person on the host. /readyz answers 503 from then on, all else
as before; give balancers time to see it before the service is ended.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from mltrading_health.checks import Health

RUNTIME = "MLTRADING_RUNTIME_DIR"


def main(
    arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ
) -> int:
    """Do what is asked; return 0, 1 if it could not be done, 2 if it is no question."""
    parser = argparse.ArgumentParser(prog="python -m mltrading_health")
    parser.add_argument("verb", choices=("drain", "undrain"))
    parser.add_argument(
        "--runtime-dir",
        default=environ.get(RUNTIME),
        help=f"the folder that the service shares with its workers (${RUNTIME})",
    )
    asked = parser.parse_args(arguments)
    if not asked.runtime_dir:
        parser.error(f"no runtime folder: set {RUNTIME} or give --runtime-dir")
    health = Health("", runtime_dir=asked.runtime_dir)
    try:
        health.drain(asked.verb == "drain")
    except OSError as error:
        print(f"{asked.runtime_dir}: {error.strerror}", file=sys.stderr)
        return 1
    answer = "503 draining" if health.draining else "by its checks"
    print(f"/readyz answers {answer} now")
    return 0


if __name__ == "__main__":
    sys.exit(main())
