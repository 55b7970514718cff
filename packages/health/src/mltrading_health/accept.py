"""Choose the representation that an Accept header prefers.

The parsers of frameworks match parameters too, so that they give JSON to a Prometheus
that asks for `application/openmetrics-text;version=1.0.0` first and `*/*` last.
"""

from __future__ import annotations

import functools
import re

#: A longer header is taken for one that says nothing. Prometheus sends about 250.
LONGEST = 2048
_QUALITY = re.compile(r"[01](\.\d{0,3})?")


@functools.lru_cache(maxsize=128)
def choose(header: str, offers: tuple[str, ...]) -> str:
    """Return the offer, like "text/plain", that a header prefers.

    Parameters other than q are not looked at. Among equals the one that is named most
    exactly wins, then the one named first. A header that names none of the offers, as
    an empty one, gets the first offer: a probe wants an answer and not a 406.
    """
    best, chosen = (0.0, 0, 0), offers[0]
    ranges = _ranges(header)
    for offer in offers:
        kind = offer.partition("/")[0]
        ranks = {offer: 2, f"{kind}/*": 1, "*/*": 0}
        matches = [
            (ranks[wanted], quality, -position)
            for position, (wanted, quality) in enumerate(ranges)
            if wanted in ranks
        ]
        if not matches:
            continue
        # What names it most exactly speaks for it, also where it says q=0.
        rank, quality, place = max(matches)
        if quality and (quality, rank, place) > best:
            best, chosen = (quality, rank, place), offer
    return chosen


@functools.lru_cache(maxsize=128)
def naming(header: str, offer: str) -> str:
    """Return the parts of a header that name an offer, the most wanted one first."""
    if len(header) > LONGEST:
        return ""
    parts = [part.strip() for part in header.split(",")]
    named = [part for part in parts if _range(part)[0] == offer and _range(part)[1]]
    return ", ".join(sorted(named, key=lambda part: -_range(part)[1]))


def _ranges(header: str) -> list[tuple[str, float]]:
    if len(header) > LONGEST:
        return []
    return [_range(part) for part in header.split(",")]


def _range(part: str) -> tuple[str, float]:
    """Return a media type and how much it is wanted: 0 to 1, 1 if that is not said."""
    wanted, *parameters = part.split(";")
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q" and _QUALITY.fullmatch(value.strip()):
            quality = min(1.0, float(value))
    return wanted.strip().lower(), quality
