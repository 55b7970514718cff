"""The record of a release and the digest of its configuration."""

from __future__ import annotations

import pytest

from ops.command import Secret
from ops.errors import Usage
from ops.release import Release, config_digest, environment_hash, parse_number
from tests.ops import worlds

KEY = b"k" * 32


def test_a_record_comes_back_as_it_was() -> None:
    record = worlds.release(7, "abc")
    assert Release.parse(record.as_json()) == record


def test_the_digest_changes_with_any_variable() -> None:
    one = config_digest({"A": "1", "B": "2"}, KEY)
    assert one != config_digest({"A": "1", "B": "3"}, KEY)
    assert one == config_digest({"B": "2", "A": "1"}, KEY)


def test_the_digest_changes_with_a_secret_and_depends_on_the_key() -> None:
    one = config_digest({"A": Secret("s")}, KEY)
    assert one != config_digest({"A": Secret("t")}, KEY)
    assert one != config_digest({"A": Secret("s")}, b"other")


def test_another_interpreter_is_another_environment() -> None:
    assert environment_hash(b"x==1", "3.11") != environment_hash(b"x==1", "3.13")


@pytest.mark.parametrize(("text", "number"), [("7", 7), ("v12", 12)])
def test_a_release_is_named_with_or_without_its_v(text: str, number: int) -> None:
    assert parse_number(text, "--to") == number


@pytest.mark.parametrize("text", ["", "v", "seven", "-1", "0", "7.5"])
def test_what_is_no_release_is_a_usage_error(text: str) -> None:
    with pytest.raises(Usage, match="is not a release"):
        parse_number(text, "--to")
