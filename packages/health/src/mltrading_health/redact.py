"""Cover secrets in text before anybody else reads it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

STARS = "***"
_NAMES = r"password|passwd|pwd|secret|token|api[_-]?key|authorization"
# What gives itself away by its surroundings, and what of it stays.
_SHAPES = (
    # scheme://user:password@host
    (re.compile(r"(?<=://)([^/\s:@'\"]*):[^/\s@'\"]+@"), rf"\1:{STARS}@"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {STARS}"),
    (
        re.compile(
            rf"(?i)\b((?:\w*_)?(?:{_NAMES})['\"]?\s*[=:]\s*['\"]?)(?!{_NAMES}\b)"
            r"(?!bearer\b|basic\b)[^\s'\"&,;]+"
        ),
        rf"\1{STARS}",
    ),
    (re.compile(r"(hooks\.slack\.com/)\S+"), rf"\1{STARS}"),
)


_SECRET = re.compile(rf"(?:.*[_-])?(?:{_NAMES})", re.IGNORECASE)


def names_secret(name: str) -> bool:
    """Tell whether a key like "db_password" says that its value is a secret."""
    return _SECRET.fullmatch(name) is not None


def redact(text: str) -> str:
    """Return a text with stars in place of what looks like a secret."""
    for shape, stays in _SHAPES:
        text = shape.sub(stays, text)
    return text


def redactor(known: Iterable[str] = ()) -> Callable[[str], str]:
    """Return `redact` that also covers values known to be secret, however they look.

    Values shorter than 6 characters are left: they would star out ordinary words.
    """
    found = sorted({value for value in known if len(value) >= 6}, key=len, reverse=True)
    if not found:
        return redact
    exact = re.compile("|".join(map(re.escape, found)))
    return lambda text: redact(exact.sub(STARS, text))
