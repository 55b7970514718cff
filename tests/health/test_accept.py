"""The representation is the one that the Accept header prefers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrading_health import accept
from mltrading_health.accept import choose, naming

OFFERS = ("application/json", "application/health+json", "text/plain")


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("image/png", "application/json"),
        ("application/*", "application/json"),
        ("text/*", "text/plain"),
        ("TEXT/Plain", "text/plain"),
        ("text/plain;charset=utf-8", "text/plain"),
        ("text/plain;q=0.5, application/json;q=0.4", "text/plain"),
        ("application/json;q=0, */*", "application/health+json"),
        ("application/json;q=0", "application/json"),
        ("*/*, text/plain", "text/plain"),
        ("text/plain, application/json", "text/plain"),
        ("text/plain;q=0.2, */*;q=0.1", "text/plain"),
        ("*/*;q=0.9, text/plain;q=0.1", "application/json"),
        ("text/plain;q=nan, application/json;q=0.9", "text/plain"),
        ("text/plain;q=1.5, application/json;q=0.9", "text/plain"),
        (",;,=;q", "application/json"),
    ],
)
def test_the_wanted_offer_is_chosen(header, chosen):
    assert choose(header, OFFERS) == chosen


def test_a_header_without_end_says_nothing():
    header = "text/plain," * 1000
    assert choose(header, OFFERS) == "application/json"
    assert naming(header, "text/plain") == ""


def test_what_is_remembered_has_an_end():
    for number in range(1000):
        choose(f"text/x{number}", OFFERS)
        naming(f"text/x{number}", "text/plain")
    for remembering in (accept.choose, accept.naming):
        assert remembering.cache_info().currsize <= 128


def test_the_parts_that_name_an_offer_are_in_the_order_of_wishes():
    header = "text/plain;version=1;q=0.2, */*, text/plain;version=2, text/plain;q=0"
    assert (
        naming(header, "text/plain")
        == "text/plain;version=2, text/plain;version=1;q=0.2"
    )


@given(st.text(alphabet=" ,;=*/q.01textplainjson+\x00é", max_size=60))
def test_any_header_gets_one_of_the_offers(header):
    assert choose(header, OFFERS) in OFFERS
    for part in filter(None, naming(header, "text/plain").split(", ")):
        assert part in header
