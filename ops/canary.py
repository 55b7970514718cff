"""Give one host a share of the traffic before all get the new release: pure.

A share is what one host of several gets, in percent. Balancers know weights: whole
numbers up to `HEAVIEST`, each host getting its own part of their sum.
"""

from __future__ import annotations

import re

from ops.errors import Usage

# The weight of a host in the balancers' file, and the greatest that HAProxy takes.
EQUAL = 100
HEAVIEST = 256
_SHARE = re.compile(r"([0-9]{1,2})\s*%?")


def parse(text: str) -> tuple[int, ...]:
    """Return the shares in "10%,50%", each greater than the one before; "" is none.

    Raises:
        Usage: the text is something else.
    """
    words = [word.strip() for word in text.split(",")] if text.strip() else []
    found = [_SHARE.fullmatch(word) for word in words]
    shares = tuple(int(match[1]) for match in found if match)
    rising = all(low < high for low, high in zip((0, *shares), shares, strict=False))
    if len(shares) != len(words) or not rising:
        raise Usage(
            f'"{text}" is not a list of shares',
            where="--canary",
            allowed="whole percents from 1 to 99, each greater than the one before",
            next="use --canary 10%,50%",
        )
    return shares


def weights(share: int | None, others: int) -> tuple[int, int]:
    """Return the weight of one host and that of each of the others.

    The one gets `share` percent of what comes; None is the same as the others get.
    """
    if share is None or others < 1:
        return EQUAL, EQUAL
    wanted = share * EQUAL * others / (100 - share)
    if wanted <= HEAVIEST:
        return max(1, round(wanted)), EQUAL
    return HEAVIEST, max(1, round(HEAVIEST * (100 - share) / (share * others)))
