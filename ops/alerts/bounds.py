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
        "packages/health/src/mltrading_health/timed.py",
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
            found = _numbers(getattr(node, "value", None))
            finite = tuple(number for number in found if math.isfinite(number))
            if not finite or list(finite) != sorted(set(finite)):
                raise ValueError(f"{constant} is no row of growing numbers")
            return finite
    raise ValueError(f"there is no constant {constant}")


def _numbers(node: ast.AST | None) -> tuple[float, ...]:
    """Return the numbers of a tuple or list, of rows that are unpacked in it too.

    Raises:
        ValueError: something else is in it.
    """
    if not isinstance(node, (ast.Tuple, ast.List)):
        raise ValueError("it is no row of numbers")
    found: list[float] = []
    for each in node.elts:
        if isinstance(each, ast.Starred):
            found += _numbers(each.value)
        else:
            found.append(float(ast.literal_eval(each)))
    return tuple(found)
