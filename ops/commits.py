"""Conventional Commits: the form of a commit message's first line."""

from __future__ import annotations

import re
from pathlib import Path

from ops import errors

COMMIT = re.compile(
    r"(build|chore|ci|docs|feat|fix|perf|refactor|revert|style|test)"
    r"(\([a-z0-9][a-z0-9./-]*\))?!?: \S.{0,99}"
)


def check(file: str | Path) -> None:
    """Check that a commit message's first line is a conventional commit.

    Raises:
        Usage: the file can't be read.
        Refused: it is not; the message holds the form and an example.
    """
    try:
        text = Path(file).read_text()
    except OSError as error:
        raise errors.Usage(f"can't read {file}: {error.strerror}") from None
    lines = [line for line in text.splitlines() if line[:1] != "#"]
    first = next((line for line in lines if line.strip()), "")
    if first.startswith(("Merge ", "Revert ", "fixup! ", "squash! ")):
        return
    if not COMMIT.fullmatch(first):
        raise errors.Refused(
            f"not a conventional commit: {first!r}",
            allowed="type(scope)!: text of at most 100 characters, where type is "
            "build, chore, ci, docs, feat, fix, perf, refactor, revert, style or test",
            next='git commit -m "fix(charts): keep the symbol on a tab change"',
        )
