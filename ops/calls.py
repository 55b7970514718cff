"""What pages and workflows say about the menu and the tree, held against both.

Pure but for `menu`, which asks Invoke itself, in a process of its own, what it would
make of each call: the rules of a command line are its, not ours.
"""

from __future__ import annotations

import json
import posixpath
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

# What a workflow may run beside the menu: what brings the menu.
BOOTSTRAP = re.compile(r"pip install uv==\d+\.\d+\.\d+")
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*")
_CALL = re.compile(r"^(?:uv run (?:--locked )?)?inv +([a-z].*)$")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def in_page(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, call) of each call of the menu in a page's code.

    A line that shows a typo says so and is left out.
    """
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
            continue
        if "did you mean" in line or "typo" in line:
            continue
        pieces = [line.partition("#")[0]] if fenced else re.findall(r"`([^`]+)`", line)
        for piece in pieces:
            for part in re.split(r"&&|;|\|\|", piece.strip().removeprefix("$ ")):
                call = of_menu(part.strip())
                if call is not None:
                    yield number, call


def of_menu(command: str) -> str | None:
    """Return the words after `inv` of a command line, None where it calls another."""
    match = _CALL.match(command)
    return match[1].strip() if match else None


def in_workflow(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, command) of each command that a workflow or hook runs."""
    block = -1
    for number, line in enumerate(text.splitlines(), 1):
        indent = len(line) - len(line.lstrip())
        if block >= 0 and line.strip():
            if indent > block:
                yield number, line.strip()
                continue
            block = -1
        match = re.match(r"(\s*(?:- )?)(?:run|entry): *(.*)$", line)
        if match and match[2][:1] in ("|", ">"):
            block = len(match[1])
        elif match:
            yield number, match[2].strip()


def unpinned(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, action) of each action that no full commit and version pin."""
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r"\s*(?:- )?uses: *(.+)$", line)
        if match and not match[1].startswith("./") and not PINNED.fullmatch(match[1]):
            yield number, match[1]


def broken_links(
    page: str, text: str, names: frozenset[str]
) -> Iterator[tuple[int, str]]:
    """Yield (line, target) of each relative link that leads to no file or folder."""
    for number, line in enumerate(text.splitlines(), 1):
        for target in _LINK.findall(line):
            path = target.partition("#")[0]
            if not path or re.match(r"[a-z]+:", path):
                continue
            place = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
            inside = f"{place}/"
            if place not in names and not any(n.startswith(inside) for n in names):
                yield number, target


def menu(calls: Sequence[str]) -> list[str]:
    """Return for each call what Invoke has against it, "" for nothing.

    Reads tasks.py of the current folder. That a call lacks what must be given is no
    fault: a page names tasks too.
    """
    import shlex

    from invoke import Collection
    from invoke.exceptions import ParseError
    from invoke.parser import Parser

    sys.path.insert(0, str(Path.cwd()))
    import tasks

    contexts = Collection.from_module(tasks).to_contexts()
    said = []
    for call in calls:
        try:
            # Cut at what only a reader understands: [--flag], …, a pipe.
            words = shlex.split(re.split(r" [\[…|>]| --help", call)[0])
            Parser(contexts=contexts).parse_argv(words)
            said.append("")
        except ParseError as error:
            lacking = "positional" in str(error) or "needed value" in str(error)
            said.append("" if lacking else str(error).splitlines()[0])
        except ValueError as error:
            said.append(str(error))
    return said


def problems(
    found: Iterable[tuple[str, int, str]], answers: Sequence[str]
) -> list[str]:
    """Return a line for each (file, line, call) that was answered by a fault."""
    return [
        f"{file}:{line}: inv {call}: {answer}"
        for (file, line, call), answer in zip(found, answers, strict=True)
        if answer
    ]


if __name__ == "__main__":
    print(json.dumps(menu(json.loads(sys.argv[1]))))
