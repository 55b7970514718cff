"""No secret gets into a log or an answer."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrading_health.redact import redact, redactor


@pytest.mark.parametrize(
    ("text", "covered"),
    [
        ("postgresql://me:hunter2@db/x", "postgresql://me:***@db/x"),
        ("Authorization: Bearer abcdef123456", "Authorization: Bearer ***"),
        ("{'Authorization': 'Basic dXNlcjpwYXNz'}", "{'Authorization': 'Basic ***'}"),
        ("password=hunter2 user=me", "password=*** user=me"),
        ('"DB_PASSWORD": "hunter2"', '"DB_PASSWORD": "***"'),
        ("api-key: k123, next", "api-key: ***, next"),
        (
            "POST https://hooks.slack.com/services/T/B/x",
            "POST https://hooks.slack.com/***",
        ),
        ("GET /charts/AAPL?r=3Y took 3 s", "GET /charts/AAPL?r=3Y took 3 s"),
        ("no such token here", "no such token here"),
        ("http://127.0.0.1:8050/x", "http://127.0.0.1:8050/x"),
    ],
)
def test_what_looks_like_a_secret_is_covered(text, covered):
    assert redact(text) == covered


def test_what_is_known_to_be_secret_is_covered_wherever_it_is():
    cover = redactor(["correct-horse", "correct-horse-battery", "abc", ""])
    assert cover("xcorrect-horse-batteryx correct-horse abc") == "x***x *** abc"


@given(st.text(), st.text(alphabet=string.ascii_letters, min_size=6), st.text())
def test_a_known_secret_is_never_left(before, secret, after):
    assert secret not in redactor([secret])(before + secret + after)
