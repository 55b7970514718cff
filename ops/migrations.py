"""Judge migrations without running them: do they only add, are they numbered so?

A release and the one before it live on one database, so what is shipped before the
switch may only add. What takes away is marked `contract = True` and starts the next
hundred. What builds an index outside a transaction is marked `concurrently = True` and
does nothing else, as it may be run twice. Pure: text in, problems out.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence

PACKAGE = "packages/marketdata/src/mltrading_marketdata"
FOLDER = f"{PACKAGE}/migrations"
# What never takes away from what a release before reads or writes.
_ADDS = frozenset(
    (
        *("add_column", "bulk_insert", "create_index", "create_table", "execute"),
        *("create_table_comment", "f", "get_bind", "get_context"),
    )
)
# A statement that takes away, or forbids the older release what it does.
_TAKES = re.compile(
    r"\b(drop|rename|truncate|delete|update|set\s+not\s+null"
    r"|alter\s+(column\s+)?\w+\s+(set\s+data\s+)?type|add\s+constraint)\b",
    re.IGNORECASE,
)


def problems(files: Mapping[str, str], bounds: str) -> list[str]:
    """Return what is wrong with migrations (file name to text) and their schema.toml.

    Each line names the file, and its line where there is one.
    """
    found = [
        f"{name}: {problem}"
        for name in sorted(files)
        for problem in _of_file(name, files[name])
    ]
    return found + _of_bounds(sorted(files), bounds)


def _of_file(name: str, text: str) -> Iterator[str]:
    numbered = re.fullmatch(r"(\d{4})_\w+\.py", name)
    if not numbered:
        yield "is not named like 0002_what_it_adds.py"
        return
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        yield f"line {error.lineno}: {error.msg}"
        return
    marked, alone = _says(tree, "contract"), _says(tree, "concurrently")
    starts = numbered[1].endswith("00")
    if marked != starts:
        yield (
            "takes away (contract = True), so its number must end with 00"
            if marked
            else "has a number that ends with 00, which only contract = True may have"
        )
    if marked:
        return
    parts = [node for node in tree.body if getattr(node, "name", "") != "downgrade"]
    for part in parts:
        for node in ast.walk(part):
            if not isinstance(node, ast.Call):
                continue
            problem = _of_mark(node, alone) or _of_call(node)
            if problem:
                yield f"line {node.lineno}: {problem}"


def _says(tree: ast.Module, mark: str) -> bool:
    """Say whether a migration holds the line `mark = True`."""
    return any(
        isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == mark
        and isinstance(node.value, ast.Constant)
        and node.value.value is True
        for node in tree.body
    )


def _of_mark(call: ast.Call, alone: bool) -> str:
    """Return what a call has against being, or not being, in a transaction."""
    text = ast.unparse(call.func)
    if text.endswith("build_index") and not alone:
        return "build_index is for a migration that says concurrently = True"
    if text.startswith("op.") and alone:
        return f"{text} beside build_index: concurrently = True allows nothing else"
    return ""


def _of_call(call: ast.Call) -> str:
    """Return how a call takes away, "" where it only adds."""
    if not isinstance(call.func, ast.Attribute):
        return ""
    verb, of = call.func.attr, ast.unparse(call.func.value)
    if verb == "execute":
        return _of_statement(call)
    if of != "op":
        return ""
    if verb not in _ADDS:
        return f"op.{verb} is not among what only adds"
    if verb == "add_column":
        for column in ast.walk(call):
            words = {
                word.arg: ast.unparse(word.value)
                for word in getattr(column, "keywords", ())
            }
            if words.get("nullable") == "False" and "server_default" not in words:
                return (
                    "a new column that must be given (nullable=False) needs a default"
                )
    return ""


def _of_statement(call: ast.Call) -> str:
    """Return what a statement takes away; one that can't be read counts as that."""
    said = call.args[0] if call.args else None
    if isinstance(said, ast.Call) and said.args:
        # sa.text("…")
        said = said.args[0]
    if not isinstance(said, ast.Constant) or not isinstance(said.value, str):
        return "execute without its statement in plain text can't be judged"
    takes = _TAKES.search(said.value)
    return f'"{takes[0]}" takes away or forbids' if takes else ""


def _of_bounds(names: Sequence[str], text: str) -> list[str]:
    where = "schema.toml"
    try:
        said = tomllib.loads(text)
        low, high = str(said["min_supported"]), str(said["max_supported"])
    except (tomllib.TOMLDecodeError, KeyError) as error:
        return [f"{where}: {error}"]
    numbered = [name[:4] for name in names if name[:4].isdecimal()]
    head = numbered[-1] if numbered else ""
    if not re.fullmatch(r"\d{4}", low) or not re.fullmatch(r"\d\d99", high):
        return [f"{where}: min_supported is like 0001, max_supported like 0099"]
    if head and not low <= head <= high:
        return [f"{where}: the newest migration {head} is not within {low} to {high}"]
    return []
