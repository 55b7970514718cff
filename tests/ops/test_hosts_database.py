"""What a database host lacks, and the password that never goes there."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest

from ops import environment, errors, hosts
from ops.environment import Address
from ops.hosts import database, password, plan
from ops.hosts.plan import Facts, Wish

NAME = "mltrading_staging"
WISH = Wish(
    "staging",
    "",
    "mltrading/staging",
    port=5432,
    role="database",
    listen="10.0.0.5",
    clients=("10.0.0.1/32", "10.0.0.2/32"),
    account=NAME,
    verifier="SCRAM-SHA-256$4096:c2FsdA==$a:b",
)
OTHERS = "# kept\nlocal all all peer\n"


def ready(**changes: object) -> Facts:
    facts: dict[str, object] = {
        "python": (3, 11, 2),
        "system": "debian",
        "active": True,
        "listens": "localhost, 10.0.0.5",
        "tls": True,
        "rules": database.rules(WISH, OTHERS),
        "cluster": "/etc/postgresql/15/main/postgresql.conf",
        "account": True,
        "database": True,
    }
    return Facts(**{**facts, **changes})


@pytest.mark.parametrize(
    ("facts", "todo"),
    [
        ({}, []),
        ({"listens": "*"}, []),
        ({"missing": ("postgresql",)}, ["packages"]),
        ({"active": False}, ["postgresql"]),
        ({"tls": False}, ["tls", "tls"]),
        ({"listens": "localhost"}, ["address", "address"]),
        ({"rules": OTHERS}, ["access", "access"]),
        ({"account": False}, ["role"]),
        ({"database": False}, ["database"]),
    ],
)
def test_what_differs_is_mended(facts: dict[str, object], todo: list[str]) -> None:
    assert [step.name for step in database.steps(WISH, ready(**facts))] == todo


def test_what_the_cluster_listens_on_and_lets_in_stays() -> None:
    alter, restart = database.steps(WISH, ready(listens="localhost,10.9.9.9"))
    assert alter.text.endswith("= 'localhost,10.9.9.9,10.0.0.5';")
    assert restart.argv[-1] == "postgresql@15-main.service"
    text = database.rules(WISH, OTHERS)
    assert text.endswith(OTHERS)
    ours = [
        line.split() for line in text.splitlines() if NAME in line and "#" not in line
    ]
    # Over TLS and by password, whatever a client asks for.
    assert {(line[0], line[-1]) for line in ours} == {("hostssl", "scram-sha-256")}
    assert database.rules(WISH, text) == text


def test_nobody_is_shown_what_proves_the_password() -> None:
    (role,) = database.steps(WISH, ready(account=False))
    assert WISH.verifier in role.text
    assert WISH.verifier not in repr(role) + role.said + repr(WISH) + str(role.argv)


def test_a_cluster_that_is_not_debians_is_refused() -> None:
    with pytest.raises(errors.Refused, match="/srv/pg.conf"):
        database.steps(WISH, ready(cluster="/srv/pg.conf"), "db1")


def test_the_answer_of_postgresql_is_read() -> None:
    seen = database.seen("*|5432|on|/a/hba|/a/conf|t|f\n")
    assert seen["account"] is True and seen["database"] is False
    assert seen["tls"] is True
    assert (seen["listens"], seen["rules_path"]) == ("*", "/a/hba")


def test_the_hosts_of_the_environment_may_come_and_it_has_one_database() -> None:
    row = environment.load("staging")
    variables = {"MLTRADING_STAGING_HOSTS": "deploy@10.0.0.2,deploy@10.0.0.1"}
    one = Address("root", "10.0.0.5")
    wish = hosts._database(plan.Wish("staging", "", "a"), row, [one], "", variables)
    assert (wish.clients, wish.listen) == (WISH.clients[:2], "10.0.0.5")
    with pytest.raises(errors.Usage, match="one database"):
        hosts._database(wish, row, [one, one], "", variables)


# The password -------------------------------------------------------------------------


def test_the_verifier_is_that_of_the_standard() -> None:
    """The example of RFC 7677: user "user", password "pencil"."""
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    assert password.verifier("pencil", salt) == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
        "$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
        ":wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


def test_a_password_is_kept_where_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "staging" / "database.env"
    made = password.keep(path, "DATABASE_URL_STAGING", NAME, "10.0.0.5:5432")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    url = f"postgresql://{NAME}:{made}@10.0.0.5:5432/{NAME}"
    assert path.read_text() == f"export DATABASE_URL_STAGING='{url}'\n"
    assert password.keep(path, "DATABASE_URL_STAGING", NAME, "elsewhere") == made


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://postgres:long-enough@db/mltrading_staging",
        "postgresql://mltrading_staging:long-enough@db/other",
        "postgresql://mltrading_staging:short@db/mltrading_staging",
        "postgresql://mltrading_staging@db/mltrading_staging",
    ],
)
def test_an_address_that_does_not_fit_the_role_is_refused(url: str) -> None:
    with pytest.raises(errors.Usage, match="DATABASE_URL_X does not fit") as refused:
        password.of_url(url, "DATABASE_URL_X", NAME)
    assert "long-enough" not in str(refused.value.as_json())


def test_a_file_that_holds_something_else_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("dear diary\n")
    with pytest.raises(errors.Usage, match="does not export"):
        password.keep(path, "DATABASE_URL_X", NAME, "db")
    assert path.read_text() == "dear diary\n"
