"""Shares of the traffic: what is typed, and the weights that give them."""

from __future__ import annotations

import pytest

from ops.canary import HEAVIEST, parse, weights
from ops.errors import Usage


def test_shares_are_read() -> None:
    assert parse("10%,50%") == parse("10, 50") == (10, 50)
    assert parse("") == ()


@pytest.mark.parametrize(
    "text", ["ten", "0%", "100%", "50%,10%", "10%,10%", "10%,,20%"]
)
def test_shares_that_are_none_are_a_usage_error(text: str) -> None:
    with pytest.raises(Usage, match="not a list of shares") as refused:
        parse(text)
    assert refused.value.next == "use --canary 10%,50%"


@pytest.mark.parametrize("share", [1, 5, 10, 25, 50, 90, 99])
@pytest.mark.parametrize("others", [1, 2, 5, 20])
def test_one_host_gets_its_share(share: int, others: int) -> None:
    one, each = weights(share, others)
    assert 1 <= one <= HEAVIEST and 1 <= each <= HEAVIEST
    got = 100 * one / (one + each * others)
    # Whole numbers up to 256 can't say everything: 99 % of 21 hosts is 92.8 %.
    assert got == pytest.approx(share, abs=0.6 if each > 5 else 7)


def test_without_a_share_all_get_the_same() -> None:
    assert weights(None, 3) == weights(10, 0) == (100, 100)
