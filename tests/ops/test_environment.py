"""environments.toml: read, validated, refused with the path of what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops import environment
from ops.command import Secret
from ops.environment import Address
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


# Fleets -------------------------------------------------------------------------------

STAGING = {
    "MLTRADING_STAGING_HOSTS": "deploy@10.0.0.1, deploy@10.0.0.2:2222",
    "STAGING_URL": "https://staging.example.org",
    "DATABASE_URL_STAGING": "postgresql://x:y@h/d",
}


def test_hosts_come_from_the_variable_that_the_file_names() -> None:
    hosts = environment.load("staging").hosts(STAGING)
    assert hosts == (
        Address("deploy", "10.0.0.1"),
        Address("deploy", "10.0.0.2", 2222),
    )
    assert [host.name for host in hosts] == ["10.0.0.1", "10.0.0.2:2222"]


@pytest.mark.parametrize(
    "text",
    ["a b", "deploy@", "@host", "-oProxyCommand=x", "h:0", "h:70000", "h;id", "u@-h"],
)
def test_a_host_that_is_none_is_refused_with_its_variable(text: str) -> None:
    with pytest.raises(Usage, match="is not a host") as refused:
        environment.load("prod").hosts({"MLTRADING_PROD_HOSTS": f"ok,{text}"})
    assert "MLTRADING_PROD_HOSTS" in refused.value.where


@pytest.mark.parametrize("text", ["h,h", "a@h,b@h", ","])
def test_no_host_and_a_host_twice_are_refused(text: str) -> None:
    with pytest.raises(Usage, match="MLTRADING_PROD_HOSTS names"):
        environment.load("prod").hosts({"MLTRADING_PROD_HOSTS": text})


@pytest.mark.parametrize("missing", STAGING)
def test_a_variable_that_is_not_set_is_named(missing: str) -> None:
    environ = {name: value for name, value in STAGING.items() if name != missing}
    staging = environment.load("staging")
    with pytest.raises(Usage, match=f"{missing} is not set") as refused:
        staging.hosts(environ)
        staging.public_url(environ)
        staging.resolved(environ)
    assert refused.value.next.startswith(f"export {missing}=")


@pytest.mark.parametrize("url", ["example.org", "ftp://x", "https://", "http://x/?a=b"])
def test_a_public_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Usage, match="STAGING_URL is not an address"):
        environment.load("staging").public_url({"STAGING_URL": url})


def test_a_database_of_another_environment_is_not_taken() -> None:
    with pytest.raises(Usage, match="DATABASE_URL_PRODUCTION is not set"):
        environment.load("prod").resolved({**STAGING, "DATABASE_URL": "sqlite:///x"})
    values = environment.load("staging").resolved(STAGING)
    assert values["DATABASE_URL"] == Secret("postgresql://x:y@h/d")


@pytest.mark.parametrize(
    ("name", "pool", "ttl", "level"),
    [("staging", "5", "300", "info"), ("prod", "20", "900", "warning")],
)
def test_fleets_have_the_numbers_that_were_asked_for(
    name: str, pool: str, ttl: str, level: str
) -> None:
    found = environment.load(name)
    config = found.config
    assert (config["DATABASE_POOL_SIZE"], config["CACHE_TTL_SECONDS"]) == (pool, ttl)
    assert (config["LOG_LEVEL"], config["DASH_DEBUG"]) == (level, "false")
    assert config["DATABASE_SSL_REQUIRE"] == "true"
    assert config["COMPARISON_MODE"] == "true"
    assert config["RATE_LIMIT"] == "1200" and config["TRUSTED_PROXIES"] == "1"
    assert (found.target, found.dirty) == ("ssh", False)


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ('root = "mltrading/staging"', 'root = "/etc"', "[staging.fleet] root"),
        ('root = "mltrading/staging"', 'root = "a/../b"', "[staging.fleet] root"),
        ('hosts = "MLTRADING_STAGING_HOSTS"', 'hosts = "a,b"', "[staging.fleet] hosts"),
        ("memory = 1024", "memory = 1", "[staging.fleet] memory"),
        ("public = 80", "public = 0", "[staging.fleet] public"),
        ("canary = 60", "", "[staging.fleet] canary"),
        ('"MLTRADING_STAGING_BALANCERS"', '"lb-1"', "[staging.fleet] balancers"),
        ("memory = 1024", "memroy = 1024", "[staging.fleet] memroy"),
        ('suffix = "_STAGING"', "suffix = 3", "[staging.secrets] suffix"),
    ],
)
def test_a_wrong_key_of_a_fleet_is_refused_with_its_path(
    tmp_path: Path, old: str, new: str, where: str
) -> None:
    assert old in FILE
    path = tmp_path / "environments.toml"
    path.write_text(FILE.replace(old, new, 1))
    with pytest.raises(Usage) as refused:
        environment.load("staging", path)
    assert where in refused.value.where


def test_balancers_are_none_until_their_variable_is_set() -> None:
    staging = environment.load("staging")
    assert staging.balancers({}) == ()
    (one,) = staging.balancers({"MLTRADING_STAGING_BALANCERS": "deploy@lb1:2222"})
    assert (one.user, one.name) == ("deploy", "lb1:2222")


def test_what_is_common_is_taken_without_the_suffix_too() -> None:
    staging = environment.load("staging")
    own = {"DATABASE_URL_STAGING": "postgresql://a", "DATABASE_URL": "postgresql://b"}
    told = {**own, "SLACK_WEBHOOK_URL": "https://all", "SMTP_URL": "smtp://all"}
    values = staging.resolved({**told, "SMTP_URL_STAGING": "smtp://own"})
    assert values["DATABASE_URL"] == Secret("postgresql://a")
    assert values["SLACK_WEBHOOK_URL"] == Secret("https://all")
    assert values["SMTP_URL"] == Secret("smtp://own")
