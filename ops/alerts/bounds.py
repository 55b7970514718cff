"""The bucket bounds of histograms, read from the source of whoever counts. Pure.

The engine imports no package of ours: it works before they are installed.
"""

from __future__ import annotations

import ast
import math

#: Where the bounds of each histogram are: a file of the checkout, and its constant.
HOMES = {
    "http_request_duration_seconds": (
        "packages/health/src/mltrading_health/metrics.py",
        "BUCKETS",
    ),
    "function_duration_seconds": (
        "packages/health/src/mltrading_health/metrics.py",
        "BUCKETS",
    ),
}


def bounds(source: str, constant: str) -> tuple[float, ...]:
    """Return the finite numbers of a constant in a module's source, in seconds.

    Raises:
        ValueError: there is no such constant, or it is no row of growing numbers.
    """
    for node in ast.parse(source).body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if constant in names:
            value = ast.literal_eval(getattr(node, "value"))
            found = tuple(float(number) for number in value)
            finite = tuple(number for number in found if math.isfinite(number))
            if not finite or list(finite) != sorted(set(finite)):
                raise ValueError(f"{constant} is no row of growing numbers")
            return finite
    raise ValueError(f"there is no constant {constant}")
