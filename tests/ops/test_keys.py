"""A job's keys: in their places, readable by us alone, never over another's."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops import errors, keys

GIVEN = {
    "MLTRADING_SSH_PRIVATE_KEY": "-----BEGIN X-----\r\nsecret\r\n-----END X-----",
    "MLTRADING_SSH_KNOWN_HOSTS": "192.0.2.1 ssh-ed25519 AAAA\n",
}


def test_the_keys_are_put_where_ssh_looks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        keys.install(GIVEN, tmp_path)
    private = tmp_path / ".ssh/id_ed25519"
    assert private.read_text() == "-----BEGIN X-----\nsecret\n-----END X-----\n"
    assert private.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".ssh").stat().st_mode & 0o777 == 0o700
    assert "secret" not in capsys.readouterr().err


def test_a_key_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_ed25519").write_text("mine")
    with pytest.raises(errors.Refused, match="is there and is another one"):
        keys.install(GIVEN, tmp_path)
    assert (tmp_path / ".ssh/id_ed25519").read_text() == "mine"


@pytest.mark.parametrize("name", list(keys.FILES))
def test_a_key_that_is_not_given_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(errors.Usage, match=f"{name} is not set"):
        keys.install({**GIVEN, name: " "}, tmp_path)
    assert not (tmp_path / ".ssh").exists()
