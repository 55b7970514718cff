"""What may go where: tests/cases/promotion.json holds one history a rule."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops import environment as environments
from ops import promotion, proof
from ops.environment import Environment
from ops.errors import Refused, Usage
from ops.history import History, fold
from ops.promotion import Judgement, find, judge, note, reason, require
from ops.world import World

CASES = Path(__file__).parent.parent / "cases" / "promotion.json"
PROD = environments.load("prod")
STAGING = environments.load("staging")
DIGEST = "ab" * 32


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep proofs and keys of a test to itself."""
    monkeypatch.setenv("MLTRADING_STATE", str(tmp_path / "state"))
    monkeypatch.delenv(proof.SHARED, raising=False)
    monkeypatch.setattr(promotion, "ROOT", tmp_path)
    (tmp_path / "dist" / DIGEST[:12]).mkdir(parents=True)
    return tmp_path


def events(said: str, at: float) -> Iterator[dict[str, Any]]:
    """Yield the journal of "deploy 2 a good [commit]" or "rollback 1 from 2 good"."""
    op, number, what, *rest = said.split(" ")
    outcome = rest[0] if op == "deploy" else rest[1]
    facts: dict[str, Any] = {"by": "ann"}
    if op == "deploy":
        facts |= {"artefact": what, "commit": rest[1] if rest[1:] else ""}
    else:
        facts["previous"] = int(rest[0])
    base = {"run": f"r{at:g}", "op": op, "release": int(number)}
    yield {**base, "phase": "begin", "at": at, "facts": facts}
    if outcome:
        yield {**base, "phase": "end", "at": at + 1, "facts": {"outcome": outcome}}


def told(*runs: str) -> History:
    lines = (line for at, run in enumerate(runs) for line in events(run, at * 10.0))
    return fold(lines)


def passed(source: Environment) -> History:
    return told(f"deploy 4 {DIGEST} good")


def away(source: Environment) -> History:
    raise Refused("no host of staging can be reached")


@pytest.mark.parametrize(
    "case", json.loads(CASES.read_text()), ids=lambda case: case["name"]
)
def test_what_an_environment_has_passed(case: dict[str, Any]) -> None:
    found = judge(told(*case["runs"]), "staging", "a", case.get("commit", ""))
    assert (found.passage.release if found.passage else None) == case.get("passed")
    assert case.get("why", "") in found.why


def test_the_journal_decides_where_it_can_be_read() -> None:
    note(STAGING, DIGEST, World("staging", (), passed(STAGING)))
    found = find(PROD, DIGEST, read=lambda _: told(f"deploy 4 {DIGEST} reverted"))
    assert found == Judgement(None, "v4 of it was put back on staging")


def test_a_proof_travels_where_the_journal_can_not_be_read() -> None:
    note(STAGING, DIGEST, World("staging", (), passed(STAGING)))
    found = find(PROD, DIGEST, read=away)
    assert found.passage is not None
    assert (found.passage.release, found.passage.how) == (4, "proof")
    assert "its proof says" in str(found.passage)


def test_without_journal_and_proof_both_are_named() -> None:
    found = find(PROD, DIGEST, read=away)
    assert found.passage is None
    assert "no host of staging can be reached, and no proof" in found.why


def test_hosts_that_are_not_known_here_leave_the_proof(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLTRADING_STAGING_HOSTS", raising=False)
    assert "MLTRADING_STAGING_HOSTS is not set, and no proof" in find(PROD, DIGEST).why


def test_what_is_rolled_back_loses_its_proof(root: Path) -> None:
    note(STAGING, DIGEST, World("staging", (), passed(STAGING)))
    assert list(root.glob("dist/*/passed-staging.proof"))
    rolled = told(f"deploy 4 {DIGEST} good", "rollback 3 from 4 good")
    note(STAGING, DIGEST, World("staging", (), rolled))
    assert not list(root.glob("dist/*/passed-staging.proof"))


def test_an_environment_that_nothing_promotes_from_leaves_no_proof(root: Path) -> None:
    note(PROD, DIGEST, World("prod", (), passed(PROD)))
    assert not list(root.glob("dist/*/*.proof"))


def test_a_proof_that_was_changed_is_none(root: Path) -> None:
    note(STAGING, DIGEST, World("staging", (), passed(STAGING)))
    (path,) = root.glob("dist/*/passed-staging.proof")
    path.write_text(path.read_text().replace('"ann"', '"bob"'))
    assert "a proof was changed" in find(PROD, DIGEST, read=away).why


def test_jobs_on_two_machines_share_a_key(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(proof.SHARED, "of both jobs")
    note(STAGING, DIGEST, World("staging", (), passed(STAGING)))
    monkeypatch.setenv("MLTRADING_STATE", str(root / "another machine"))
    assert find(PROD, DIGEST, read=away).passage
    monkeypatch.delenv(proof.SHARED)
    why = find(PROD, DIGEST, read=away).why
    assert f"set {proof.SHARED} alike" in why


def test_what_staging_passed_may_come_and_the_journal_gets_to_know_why() -> None:
    granted = require(PROD, DIGEST, read=passed)
    assert granted["promotion"]["environment"] == "staging"
    assert (granted["promotion"]["release"], granted["promotion"]["by"]) == (4, "ann")


def test_what_it_did_not_is_refused_with_both_ways_on() -> None:
    with pytest.raises(Refused, match="prod takes what staging has passed") as refused:
        require(PROD, DIGEST, read=lambda _: History())
    assert "inv deploy --env staging" in refused.value.next
    assert "--emergency" in refused.value.next


def test_an_emergency_lets_it_come_and_says_what_it_lifted() -> None:
    granted = require(PROD, DIGEST, emergency="site down", read=lambda _: History())
    assert granted["promotion"]["how"] == "emergency"
    assert "was never given" in granted["promotion"]["why"]


def test_an_environment_that_takes_anything_asks_nobody() -> None:
    assert require(STAGING, DIGEST, read=away) == {}


@pytest.mark.parametrize(("row", "said"), [(PROD, " "), (STAGING, "why")])
def test_an_emergency_needs_a_reason_and_something_to_lift(
    row: Environment, said: str
) -> None:
    with pytest.raises(Usage, match="nobody will know why|takes any artefact"):
        reason(row, said)
    assert reason(row, None) is None
    assert reason(PROD, " the site is down ") == "the site is down"


@pytest.mark.parametrize("value", ["stagin", "prod", "", "staging"])
def test_a_row_promotes_from_another_row_or_none(tmp_path: Path, value: str) -> None:
    text = environments.FILE.read_text()
    file = tmp_path / "environments.toml"
    file.write_text(text.replace('from = "staging"', f'from = "{value}"'))
    if value in ("", "staging"):
        assert environments.load("prod", file).promotes_from == value
        return
    with pytest.raises(Usage, match=f"\"promotes_from\" has the value '{value}'"):
        environments.load("prod", file)
