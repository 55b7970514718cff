"""What depends on what: modules of ours, by what they import or name.

Pure: sources come in, names and paths go out. Where a name could mean a module, it
does: a dependency too many costs seconds, one too few a wrong answer.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping

# Where the modules of a checkout begin.
_ROOT = re.compile(r"^(?:packages|services)/[^/]+/src/")
_WORDS = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
# A module that imports by a name made at run time may import all of its package.
ALL_BESIDE = ".*"


def modules(paths: Iterable[str]) -> dict[str, str]:
    """Return dotted name to path of every module among the paths of a checkout."""
    return {_dotted(path): path for path in paths if path.endswith(".py")}


def _dotted(path: str) -> str:
    name = _ROOT.sub("", path).removesuffix(".py").removesuffix("/__init__")
    return name.replace("/", ".")


def names(source: bytes) -> tuple[str, ...]:
    """Return what a module imports, anywhere, or names in a string, sorted.

    Relative imports begin with a dot for each level. A module that can't be parsed
    names nothing.
    """
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return ()
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            joint = "" if base.endswith(".") else "."
            found.add(base)
            found.update(f"{base}{joint}{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # Such as "mltrading_dashboard.wsgi:server" or a name to be replaced.
            found.update(_WORDS.findall(node.value) if len(node.value) < 200 else ())
        elif isinstance(node, ast.Call) and _imports_by_value(node):
            found.add(ALL_BESIDE)
    return tuple(sorted(found))


def _imports_by_value(call: ast.Call) -> bool:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    by_value = bool(call.args) and not isinstance(call.args[0], ast.Constant)
    return name in ("import_module", "__import__") and by_value


def direct(path: str, known: Mapping[str, str], names: Iterable[str]) -> frozenset[str]:
    """Return the paths that a module of ours names, and the packages around it.

    `known` is dotted name to path, as `modules` returns it; `names` what `names` said
    of the module.
    """
    module = _dotted(path)
    package = module if path.endswith("/__init__.py") else module.rpartition(".")[0]
    found = {known[package]} if package in known else set()
    for name in names:
        if name == ALL_BESIDE:
            folder = path.rpartition("/")[0] + "/"
            found |= {other for other in known.values() if other.startswith(folder)}
        else:
            found.update(_paths(_absolute(name, package), known))
    return frozenset(found)


def closure(
    starts: Iterable[str], direct_of: Callable[[str], Iterable[str]]
) -> frozenset[str]:
    """Return the paths that some paths depend on, themselves among them."""
    seen: set[str] = set()
    todo = list(starts)
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo += direct_of(path)
    return frozenset(seen)


def _absolute(name: str, package: str) -> str:
    if not name.startswith("."):
        return name
    inner = name.lstrip(".")
    parts = package.split(".")
    parts = parts[: len(parts) - (len(name) - len(inner) - 1)]
    return ".".join([*parts, inner] if inner else parts)


def _paths(name: str, known: Mapping[str, str]) -> list[str]:
    """Return the module of a name and the packages around it, as far as they exist."""
    parts = name.split(".")
    prefixes = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
    return [known[prefix] for prefix in prefixes if prefix in known]


def around(path: str, paths: frozenset[str], name: str = "conftest.py") -> list[str]:
    """Return the files of a name in the folders of a path, outermost first."""
    parts = path.split("/")[:-1]
    folders = ("/".join(parts[:end]) for end in range(len(parts) + 1))
    found = (f"{folder}/{name}" if folder else name for folder in folders)
    return [file for file in found if file in paths]
