"""Approvals: bound to one environment and one artefact, used once, soon over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops import approval
from ops.approval import Approval, Store, approve, consume, judge, require, resolve
from ops.errors import Refused, Usage
from ops.promotion import Judgement, Passage
from tests.ops import worlds

CASES = json.loads(
    (Path(__file__).parent.parent / "cases" / "approval.json").read_text()
)
DIGEST = "1234abcd" + "0" * 56
PROD = replace(worlds.ENVIRONMENT, name="prod")
PASSAGE = Passage("staging", DIGEST, 4, "r1", 0.0, "ann@laptop")
NOBODY: Mapping[str, str] = {}


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr("ops.environment.state_home", lambda: tmp_path)
    return tmp_path


def said_yes(now: float = 0.0, name: str = "local", **more: Any) -> Approval:
    return approve(name, DIGEST, by="ann@laptop", now=now, **more)


def asked(now: float = 60.0, **more: Any) -> Approval:
    words = {"interactive": False, "environ": NOBODY, **more}
    return require(worlds.ENVIRONMENT, DIGEST, now=now, **words)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_judgement_of_a_case(case: dict[str, Any]) -> None:
    usual = {"environment": "prod", "artefact": "aaaaaaaaaaaa", "by": "ann", "at": 0}
    given = [Approval(**{**usual, "expires": 14400, **row}) for row in case["given"]]
    found = judge(
        given,
        "prod",
        "aaaaaaaaaaaa",
        case["ask"]["now"],
        sealed=lambda each: each.seal != "broken",
    )
    assert (found.approval.by if found.approval else None) == case.get("yes")
    assert case.get("why", "") in found.why


def test_a_yes_lets_its_artefact_through_once() -> None:
    said_yes()
    found = asked()
    consume(found, now=61.0)
    with pytest.raises(Refused, match="used before"):
        asked()


def test_two_deploys_cannot_use_the_same_yes() -> None:
    said_yes()
    one, two = asked(), asked()
    consume(one, now=61.0)
    with pytest.raises(Refused, match="used by another deploy"):
        consume(two, now=62.0)


def test_of_deploys_that_race_for_a_yes_one_gets_it() -> None:
    said_yes()
    found = asked()

    def use(_: int) -> bool:
        try:
            consume(found, now=61.0)
        except Refused:
            return False
        return True

    with ThreadPoolExecutor(8) as racers:
        assert sum(racers.map(use, range(8))) == 1


def test_a_yes_that_nothing_came_of_is_given_back() -> None:
    said_yes()
    consume(asked(), now=61.0)
    (used,) = Store().read()
    approval.give_back(used)
    assert asked().by == "ann@laptop"


def test_a_refusal_names_the_command_that_mends_it() -> None:
    with pytest.raises(Refused, match="needs an approval") as refused:
        asked()
    assert refused.value.next == "inv approve --env local --artefact 1234abcd"


def test_a_yes_is_over_after_its_hours() -> None:
    said_yes(hours=1.0)
    assert asked(now=3599.0).by == "ann@laptop"
    with pytest.raises(Refused, match="expired"):
        asked(now=3600.0)


@pytest.mark.parametrize("change", [{"expires": 9e9}, {"used": 0.0}, {"by": "bob"}])
def test_a_yes_that_was_changed_by_hand_does_not_count(
    state: Path, change: dict[str, Any]
) -> None:
    said_yes()
    consume(asked(), now=61.0)
    rows = json.loads((state / "approvals.json").read_text())
    (state / "approvals.json").write_text(json.dumps([{**rows[0], **change}]))
    with pytest.raises(Refused, match="changed after it was given"):
        asked()


def test_approvals_and_key_are_readable_by_this_user_only(state: Path) -> None:
    said_yes()
    for name in ("approvals.json", "approvals.key", "approvals.lock"):
        assert (state / name).stat().st_mode & 0o777 == 0o600


def test_a_file_that_others_may_write_is_not_believed(state: Path) -> None:
    said_yes()
    (state / "approvals.json").chmod(0o666)
    with pytest.raises(Refused, match="others may") as refused:
        asked()
    assert refused.value.next.startswith("chmod 600")


@pytest.mark.parametrize("text", ["[", "{}", '[{"by": 1}]', "[1]"])
def test_a_damaged_file_is_a_refusal_and_no_yes(state: Path, text: str) -> None:
    (state / "approvals.json").write_text(text)
    (state / "approvals.json").chmod(0o600)
    with pytest.raises(Refused):
        asked()


def test_an_old_yes_is_forgotten_when_a_new_one_is_given() -> None:
    said_yes()
    said_yes(now=91 * 86_400.0)
    assert len(Store().read()) == 1


# At the prompt ------------------------------------------------------------------------


def test_the_artefacts_name_typed_at_the_prompt_is_a_yes() -> None:
    found = asked(interactive=True, typed=lambda _: " 1234abcd\n", by="ann@laptop")
    assert (found.how, found.by, found.artefact) == ("typed", "ann@laptop", DIGEST)
    consume(found)


@pytest.mark.parametrize("typed", ["", "yes", "local", "1234abce"])
def test_anything_else_typed_is_a_no(typed: str) -> None:
    with pytest.raises(Refused, match="nothing was touched"):
        asked(interactive=True, typed=lambda _: typed)


def test_the_prompt_says_why_it_asks() -> None:
    said: list[str] = []

    def typed(prompt: str) -> str:
        said.append(prompt)
        return "1234abcd"

    asked(interactive=True, typed=typed)
    assert "nobody has approved anything for local" in said[0]


# In the workflow ----------------------------------------------------------------------

JOB = {
    "GITHUB_ACTIONS": "true",
    "MLTRADING_APPROVED_BY": "production",
    "GITHUB_ACTOR": "ann",
    "GITHUB_RUN_ID": "7",
}


def test_the_protected_environment_of_the_workflow_is_a_yes() -> None:
    found = require(PROD, DIGEST, interactive=False, environ=JOB, now=1.0)
    assert (found.how, found.by) == ("workflow", "production (run 7 of ann)")
    consume(found)


@pytest.mark.parametrize(
    "change",
    [
        {"GITHUB_ACTIONS": ""},
        {"MLTRADING_APPROVED_BY": ""},
        {"MLTRADING_APPROVED_BY": "staging"},
        {"MLTRADING_APPROVED_BY": "true"},
    ],
    ids=str,
)
def test_another_job_or_another_environment_is_none(change: dict[str, str]) -> None:
    with pytest.raises(Refused, match="needs an approval"):
        require(PROD, DIGEST, interactive=False, environ={**JOB, **change}, now=1.0)


# Which artefact -----------------------------------------------------------------------


def test_a_short_name_means_the_artefact_that_was_built_here() -> None:
    assert resolve("1234ABCD", [DIGEST, "f" * 64]) == DIGEST


def test_a_whole_digest_needs_no_artefact_here() -> None:
    assert resolve("e" * 64, []) == "e" * 64


@pytest.mark.parametrize("text", ["", "1234abc", "v7", "1234abcg", "a" * 65])
def test_what_is_no_digest_is_said(text: str) -> None:
    with pytest.raises(Usage, match="is no artefact"):
        resolve(text, [DIGEST])


def test_a_short_name_of_two_artefacts_names_both() -> None:
    with pytest.raises(Usage, match="means 2 artefacts") as usage:
        resolve("1234abcd", [DIGEST, "1234abcd" + "1" * 56])
    assert "1234abcd11111111" in usage.value.allowed


def test_an_unknown_short_name_says_what_is_known() -> None:
    with pytest.raises(Refused, match="no artefact ffffffff") as refused:
        resolve("ffffffff", [DIGEST])
    assert refused.value.allowed == "1234abcd"


def test_artefacts_are_found_where_they_are_built(tmp_path: Path) -> None:
    (tmp_path / "dist" / "half").mkdir(parents=True)
    (tmp_path / "dist" / "half" / "manifest.json").write_text("{")
    (tmp_path / "dist" / "1234abcd0000").mkdir()
    manifest = json.dumps({"digest": DIGEST})
    (tmp_path / "dist" / "1234abcd0000" / "manifest.json").write_text(manifest)
    assert approval.known_artefacts(tmp_path) == [DIGEST]


@pytest.mark.parametrize("passage", [None, PASSAGE])
def test_an_approval_says_whether_the_environment_before_passed_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    passage: Passage | None,
) -> None:
    judged = Judgement(passage, "" if passage else "staging was never given it")
    monkeypatch.setattr(approval.promotion, "find", lambda *_: judged)
    said_yes(name="prod")
    said = capsys.readouterr().err
    if passage is None:
        assert "a deploy will be refused: staging was never given it" in said
        assert "next: inv deploy --env staging" in said
    else:
        assert "staging passed it as v4" in said
        assert "next: inv deploy --env prod" in said


def test_json_shows_neither_seal_nor_nonce(capsys: pytest.CaptureFixture[str]) -> None:
    said_yes(as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown["artefact"] == DIGEST and not {"seal", "nonce"} & set(shown)


@pytest.mark.parametrize("hours", [0.0, -1.0, 169.0])
def test_a_yes_for_ever_is_refused(hours: float) -> None:
    with pytest.raises(Usage, match="hours"):
        said_yes(hours=hours)
