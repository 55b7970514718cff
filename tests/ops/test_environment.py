"""environments.toml: read, validated, refused with the path of what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops import environment
from ops.command import Secret
from ops.errors import Usage

FILE = environment.FILE.read_text()


def load(tmp_path: Path, text: str) -> environment.Environment:
    path = tmp_path / "environments.toml"
    path.write_text(text)
    return environment.load("local", path)


def test_the_file_that_ships_is_valid() -> None:
    for name in environment.names():
        assert environment.load(name).name == name


def test_an_unknown_environment_names_the_known_ones() -> None:
    with pytest.raises(Usage, match='no environment "lcoal"') as refused:
        environment.load("lcoal")
    assert "local" in refused.value.allowed
    assert refused.value.next == "use --env local"


WRONG = [
    ("workers = 2", "wrokers = 2", 'unknown key "wrokers"', "[local.web] wrokers"),
    ("workers = 2", 'workers = "2"', "has the value '2'", "[local.web] workers"),
    ("workers = 2", "workers = true", "has the value True", "[local.web] workers"),
    ("workers = 2", "workers = 0", "has the value 0", "[local.web] workers"),
    ("port = 8050", "port = 99999", "has the value 99999", "[local] port"),
    ('target = "local"', 'target = "moon"', "has the value 'moon'", "[local] target"),
    ("boot = 30", "", 'key "boot" is missing', "[local.budget] boot"),
    ("keep = 5", "keeep = 5", 'unknown key "keeep"', "[local] keeep"),
    ('LOG_LEVEL = "info"', "LOG_LEVEL = 3", "LOG_LEVEL has the value 3", "config"),
]


@pytest.mark.parametrize(("old", "new", "what", "where"), WRONG)
def test_a_wrong_key_or_value_is_refused_with_its_path(
    tmp_path: Path, old: str, new: str, what: str, where: str
) -> None:
    assert old in FILE
    with pytest.raises(Usage) as refused:
        load(tmp_path, FILE.replace(old, new, 1))
    assert what in refused.value.what
    assert where in refused.value.where
    assert refused.value.code == 2


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Usage, match="not valid TOML"):
        load(tmp_path, "[local\n")


def test_the_deployers_variable_wins_and_becomes_a_secret() -> None:
    values = environment.load("local").resolved({"DATABASE_URL": "postgresql://x:y@h"})
    assert values["DATABASE_URL"] == Secret("postgresql://x:y@h")
    assert "y@h" not in repr(values)


def test_the_embedded_database_lives_in_the_state_folder() -> None:
    local = environment.load("local")
    url = local.resolved({})["DATABASE_URL"]
    assert url == f"sqlite:///{local.state}/data/mltrading.db"


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({"MLTRADING_STATE": "/a"}, Path("/a")),
        ({"XDG_STATE_HOME": "/b"}, Path("/b/mltrading")),
        ({"MLTRADING_STATE": "/a", "XDG_STATE_HOME": "/b"}, Path("/a")),
    ],
)
def test_state_follows_the_xdg_convention(environ: dict, wanted: Path) -> None:
    assert environment.state_home(environ) == wanted
