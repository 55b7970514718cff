"""What `inv doctor` says of an environment's variables, keys and hosts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ops import doctor, environment, machine
from ops.environment import Address
from ops.errors import Refused
from ops.targets import link, ssh
from tests.ops.fleets import Fleet, fleet

__all__ = ["fleet"]

SECRET = "postgresql://u:hunter2@db.internal/x"


def test_variables_are_named_without_their_values() -> None:
    environ = {"DATABASE_URL_STAGING": SECRET, "SLACK_WEBHOOK_URL": "https://hunter2"}
    checks = doctor.variables(environment.load("staging"), environ)
    found = {check.name: check.state for check in checks}
    assert found["MLTRADING_STAGING_HOSTS"] == found["STAGING_URL"] == "failed"
    assert found["DATABASE_URL_STAGING"] == found["SLACK_WEBHOOK_URL"] == "ok"
    assert found["SMTP_URL"] == "warned"
    assert "hunter2" not in str(checks) and "db.internal" not in str(checks)


def test_a_variable_with_a_default_need_not_be_set() -> None:
    checks = doctor.variables(environment.load("local"), {})
    assert {check.name: check.state for check in checks} == {
        "DATABASE_URL": "ok",
        "CACHE_URL": "ok",
        "HEALTH_TOKEN": "ok",
    }
    assert "default" in checks[0].said


def test_a_key_that_others_may_read_or_that_is_not_there_is_named(
    tmp_path: Path,
) -> None:
    key = tmp_path / "key"
    environ = {"MLTRADING_SSH_KEY": str(key)}
    assert link.identity_problem(environ)[0] == "MLTRADING_SSH_KEY names no file"
    key.write_text("")
    key.chmod(0o644)
    assert link.identity_problem(environ)[1] == f"chmod 600 {key}"
    key.chmod(0o600)
    assert link.identity_problem(environ) == ("", "")
    assert link.identity_problem({"HOME": str(tmp_path)})[1].startswith("ssh-keygen")


def test_a_host_that_nobody_introduced_is_found_without_asking_it(
    tmp_path: Path,
) -> None:
    file = tmp_path / "known"
    blob = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ"
    file.write_text(f"[10.0.0.1]:2222 ssh-ed25519 {blob}\n")
    environ = {"MLTRADING_KNOWN_HOSTS": str(file)}
    assert link.introduced(Address("", "10.0.0.1", 2222), environ) is None
    refused = link.introduced(Address("", "10.0.0.2"), environ)
    assert refused is not None and refused.next.startswith("ssh-keyscan")


def test_hosts_are_judged_one_by_one_whoever_is_away(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.pull("b")
    monkeypatch.setattr(doctor, "open_target", lambda _: fleet.target())
    checks = doctor._hosts(fleet.environment, {})
    assert {c.where for c in checks if c.name == "disk"} == {"a", "c"}
    (away,) = [c for c in checks if c.name == "reach" and c.state == "failed"]
    assert (away.where, away.mend) == ("b", "ssh -p 22 b")


def test_a_host_that_nobody_has_prepared_is_sent_to_the_setup(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet["b"].bare = True
    target = fleet.target()
    monkeypatch.setattr(ssh, "AGAIN", 60.0)
    monkeypatch.setattr(doctor, "open_target", lambda _: target)
    # Also when it is not asked again, as it was asked a moment ago.
    target.observe()
    checks = doctor._hosts(fleet.environment, {})
    (away,) = [c for c in checks if c.name == "reach" and c.state == "failed"]
    assert away.mend == "inv host-setup --env staging; or ssh -p 22 b"


def test_hosts_that_nobody_named_are_one_check_that_failed() -> None:
    (check,) = doctor._hosts(environment.load("staging"), {})
    assert (check.name, check.state) == ("hosts", "failed")
    assert "MLTRADING_STAGING_HOSTS" in check.said


def test_the_whole_is_one_document_and_ends_with_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "checks", lambda env, **facts: ())
    for name in ("MLTRADING_STAGING_HOSTS", "STAGING_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL_STAGING", SECRET)
    with pytest.raises(Refused, match="not ready for staging: MLTRADING_STAGING_HOSTS"):
        doctor.look("staging", as_json=True)
    said = capsys.readouterr().out
    names = {check["name"] for check in json.loads(said)["checks"]}
    assert {"STAGING_URL", "SSH key", "hosts"} <= names and "hunter2" not in said
