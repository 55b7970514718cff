"""Notices: what they say, that they arrive, and that they never change a verdict."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops.alerts import mail, outbox, slack
from ops.alerts.notice import Happening, Notice, compose, webhook
from ops.alerts.outbox import Outbox, around
from ops.command import Secret
from ops.errors import GateFailed, RevertFailed
from ops.plan import Plan, Step
from tests.doubles import slack as slack_double
from tests.doubles import smtp as smtp_double
from tests.ops import worlds

CASES = json.loads(
    (Path(__file__).parent.parent / "cases" / "notices.json").read_text()
)
PEOPLE = {
    "MAIL_FROM": "deploys@example.org",
    "MAIL_TO_TEAM": "team@example.org",
    "MAIL_TO_ONCALL": "oncall@example.org, ",
    "MAIL_TO_DEVOPS": "devops@example.org,team@example.org",
}
PLAN = Plan("deploy", "staging", (Step("boot", "here", "start v8", 8),), 8, 7)
STAGING = replace(worlds.ENVIRONMENT, name="staging")


def notice(**more: Any) -> Notice:
    happening = Happening("success", "deploy", "ann@laptop", 1_800_000_000.0, 8, 7)
    found = compose("staging", replace(happening, **more), PEOPLE)
    assert found is not None
    return found


@pytest.fixture
def slacking() -> Iterator[slack_double.Slack]:
    with slack_double.serving() as double:
        yield double


@pytest.fixture
def mailing() -> Iterator[smtp_double.MailServer]:
    with smtp_double.serving() as double:
        yield double


@pytest.fixture
def box(tmp_path: Path, slacking: slack_double.Slack) -> Outbox:
    return Outbox(tmp_path / "outbox", {"SLACK_WEBHOOK_URL": slacking.url})


# What they say ------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_notice_of_a_case(case: dict[str, Any]) -> None:
    said = {"at": 0.0, **case["happening"]}
    said["notes"] = tuple(map(tuple, said.get("notes", ())))
    found = compose(case["environment"], Happening(**said), PEOPLE, [Secret("key-2")])
    if case["expect"] is None:
        assert found is None
        return
    for name, wanted in case["expect"].items():
        there = getattr(found, name)
        there = dict(there) if name == "fields" else there
        assert (list(there) if name == "recipients" else there) == wanted


def test_an_environments_own_webhook_comes_before_the_common_one() -> None:
    environ = {"SLACK_WEBHOOK_URL": "a", "SLACK_WEBHOOK_URL_PRODUCTION": "b"}
    assert webhook("prod", environ) == Secret("b")
    assert webhook("staging", environ) == Secret("a")
    assert webhook("local", environ) is None


def test_slack_text_can_call_nobody_and_link_nowhere() -> None:
    found = slack.payload(notice(event="failure", reason="<!channel> & <http://x|y>"))
    assert found["attachments"][0]["text"] == (
        "&lt;!channel&gt; &amp; &lt;http://x|y&gt;"
    )


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://hooks.slack.com/services/x", ""),
        ("http://127.0.0.1:1/x", ""),
        ("http://hooks.slack.com/services/x", "the webhook is no https address"),
        ("hooks.slack.com", "the webhook is no https address"),
        ("https://[x/secret", "the webhook is no address"),
    ],
)
def test_a_webhook_travels_encrypted_or_not_at_all(url: str, problem: str) -> None:
    assert slack.unfit(Secret(url)) == problem


# Slack --------------------------------------------------------------------------------


@pytest.mark.integration
def test_slack_takes_a_notice(slacking: slack_double.Slack) -> None:
    assert slack.send(notice(), Secret(slacking.url), 2.0) == ""
    (message,) = slacking.messages
    assert message["channel"] == "#staging-alerts"
    assert message["text"] == "staging: v8 serves"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (500, "status 500: server_error"),
        (429, "status 429: server_error"),
        (302, "status 302: server_error"),
    ],
)
def test_a_status_of_slack_is_said(
    slacking: slack_double.Slack, fault: int, said: str
) -> None:
    slacking.misbehave = [fault]
    assert slack.send(notice(), Secret(slacking.url), 2.0) == said
    assert slacking.asked == 1


@pytest.mark.integration
def test_a_webhook_that_was_revoked_is_said_without_its_address(
    slacking: slack_double.Slack,
) -> None:
    wrong = Secret(slacking.url + "-old")
    assert slack.send(notice(), wrong, 2.0) == "status 404: no_service"


@pytest.mark.integration
@pytest.mark.parametrize("fault", ["silent", "cut"])
def test_a_slack_that_hangs_or_hangs_up_is_a_sentence(
    slacking: slack_double.Slack, fault: str
) -> None:
    slacking.misbehave = [fault]
    problem = slack.send(notice(), Secret(slacking.url), 0.1)
    assert problem and "secret-token" not in problem


@pytest.mark.integration
def test_a_slack_that_is_not_there_is_a_sentence(
    slacking: slack_double.Slack,
) -> None:
    free = Secret(slacking.url.replace(str(slacking.port), "1"))
    assert "refused" in slack.send(notice(), free, 0.5).lower()


# Mail ---------------------------------------------------------------------------------


def smtp(double: smtp_double.MailServer, who: str = "") -> Secret:
    return Secret(f"smtp://{who}127.0.0.1:{double.port}")


@pytest.mark.integration
def test_the_mail_server_takes_a_notice(mailing: smtp_double.MailServer) -> None:
    assert mail.send(notice(), smtp(mailing), 2.0) == ""
    (found,) = mailing.mails
    assert (found.sender, found.recipients) == (
        "deploys@example.org",
        ["team@example.org"],
    )
    assert found.message["Subject"] == "staging: v8 serves"
    assert "by: ann@laptop" in found.message.get_content()


def test_an_urgent_mail_says_so_in_its_head() -> None:
    urgent = mail.message(replace(notice(), urgent=True))
    assert (urgent["X-Priority"], urgent["Importance"]) == ("1", "high")


@pytest.mark.integration
def test_a_login_uses_the_account_of_the_address(
    mailing: smtp_double.MailServer,
) -> None:
    mailing.accounts = {"app": "p/w"}
    assert mail.send(notice(), smtp(mailing, "app:p%2Fw@"), 2.0) == ""
    assert mailing.logins == ["app"]


@pytest.mark.integration
@pytest.mark.parametrize("fault", ["silent", "cut", 421])
def test_what_a_mail_server_says_to_a_good_bye_takes_nothing_back(
    mailing: smtp_double.MailServer, fault: Any
) -> None:
    mailing.misbehave = {"QUIT": fault}
    assert mail.send(notice(), smtp(mailing), 0.3) == ""
    assert len(mailing.mails) == 1


@pytest.mark.integration
def test_a_wrong_password_is_said_without_it(mailing: smtp_double.MailServer) -> None:
    mailing.accounts = {"app": "right"}
    problem = mail.send(notice(), smtp(mailing, "app:wrong@"), 2.0)
    assert problem == "status 535: not you"


@pytest.mark.integration
@pytest.mark.parametrize(
    "fault",
    [{"DATA": 451}, {"RCPT": 550}, {"CONNECT": 421}, {"SENT": "cut"}, {"MAIL": "cut"}],
    ids=str,
)
def test_a_mail_server_that_refuses_or_hangs_up_is_a_sentence(
    mailing: smtp_double.MailServer, fault: dict[str, Any]
) -> None:
    mailing.misbehave = fault
    assert mail.send(notice(), smtp(mailing), 2.0)
    assert not mailing.mails


@pytest.mark.integration
def test_a_silent_mail_server_is_a_sentence(mailing: smtp_double.MailServer) -> None:
    mailing.misbehave = {"CONNECT": "silent"}
    assert "timed out" in mail.send(notice(), smtp(mailing), 0.1)


@pytest.mark.parametrize(
    "url", ["mail.example.org", "http://mail", "smtp://", "smtp://a:b"]
)
def test_an_address_that_names_no_mail_server_is_said(url: str) -> None:
    assert mail.send(notice(), Secret(url), 0.1) == (
        "SMTP_URL is no smtp:// or smtps:// address"
    )


def test_the_ports_are_those_of_submission() -> None:
    plain, wrapped = mail.server(Secret("smtp://m")), mail.server(Secret("smtps://m"))
    assert plain and (plain.port, plain.tls) == (587, False)
    assert wrapped and (wrapped.port, wrapped.tls) == (465, True)


# The outbox ---------------------------------------------------------------------------


@pytest.mark.integration
def test_a_notice_is_sent_and_its_file_goes(
    box: Outbox, slacking: slack_double.Slack
) -> None:
    box.post(notice())
    assert box.flush(2.0) == []
    assert len(slacking.messages) == 1 and not box.waiting()


@pytest.mark.integration
def test_a_notice_waits_in_a_file_of_this_user_without_an_address(
    box: Outbox, slacking: slack_double.Slack
) -> None:
    slacking.misbehave = [500]
    box.post(notice())
    assert box.flush(2.0) == ["slack: status 500: server_error"]
    (path,) = box.waiting()
    assert path.stat().st_mode & 0o777 == 0o600
    assert "secret-token" not in path.read_text()


@pytest.mark.integration
def test_the_next_command_tries_again(
    box: Outbox, slacking: slack_double.Slack
) -> None:
    slacking.misbehave = [503]
    box.post(notice())
    box.flush(2.0)
    later = Outbox(box.folder, box.environ)
    assert later.flush(2.0) == []
    assert len(slacking.messages) == 1 and not later.waiting()


@pytest.mark.integration
def test_a_command_tries_each_notice_once(
    box: Outbox, slacking: slack_double.Slack
) -> None:
    slacking.misbehave = [500]
    box.post(notice())
    box.flush(2.0)
    assert box.flush(2.0) == [] and slacking.asked == 1


@pytest.mark.integration
def test_a_slack_that_hangs_holds_a_command_for_its_seconds_only(
    tmp_path: Path, slacking: slack_double.Slack
) -> None:
    slacking.misbehave = ["silent"]
    environ = {"SLACK_WEBHOOK_URL": slacking.url}
    box = Outbox(tmp_path / "outbox", environ, each=30.0)
    box.post(notice())
    assert box.flush(0.05) == ["no answer within 0.05 s"]
    assert len(box.waiting()) == 1


@pytest.mark.integration
def test_what_a_command_could_not_send_is_sent_when_it_has_ended(
    tmp_path: Path,
    slacking: slack_double.Slack,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLTRADING_STATE", str(tmp_path))
    monkeypatch.setenv("SLACK_WEBHOOK_URL", slacking.url)
    hangs = threading.Event()

    def never(*_: Any) -> str:
        hangs.wait()
        return "gave up"

    box = Outbox(tmp_path / "outbox", os.environ, channels={"slack": never})
    monkeypatch.setattr(outbox, "_boxes", [box])
    monkeypatch.setattr(outbox, "PATIENT", 0.05)
    box.post(notice())
    outbox.flush({})
    # The command ends here, and the lock on its notice with it.
    hangs.set()
    until = time.monotonic() + 20
    while not slacking.messages and time.monotonic() < until:
        threading.Event().wait(0.02)
    assert [said["text"] for said in slacking.messages] == ["staging: v8 serves"]
    assert capsys.readouterr().err == ""


@pytest.mark.integration
def test_one_channel_that_fails_does_not_keep_the_other_back(
    tmp_path: Path, slacking: slack_double.Slack, mailing: smtp_double.MailServer
) -> None:
    slacking.misbehave = [500]
    environ = {"SLACK_WEBHOOK_URL": slacking.url, "SMTP_URL": smtp(mailing).value}
    box = Outbox(tmp_path / "outbox", {**PEOPLE, **environ})
    box.post(notice())
    box.flush(2.0)
    assert (len(mailing.mails), len(box.waiting())) == (1, 1)


def test_without_a_channel_nothing_is_kept(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "outbox", {})
    box.post(notice())
    assert not box.folder.exists() and box.flush(0.1) == []


@pytest.mark.integration
def test_yesterdays_notice_is_dropped(
    box: Outbox, slacking: slack_double.Slack
) -> None:
    slacking.misbehave = [500]
    box.post(notice())
    box.flush(2.0)
    tomorrow = Outbox(box.folder, box.environ, clock=lambda: notice().at + 86_401)
    assert tomorrow.flush(2.0) == [] and not tomorrow.waiting()
    assert slacking.asked == 1


def test_a_torn_file_is_dropped(box: Outbox) -> None:
    box.folder.mkdir()
    (box.folder / "1-a.json").write_text('{"channel": "sl')
    assert box.flush(2.0) == [] and not box.waiting()


def test_two_commands_send_a_notice_once(tmp_path: Path) -> None:
    reached, go_on, sent = threading.Event(), threading.Event(), []

    def slow(*_: Any) -> str:
        sent.append(1)
        reached.set()
        go_on.wait()
        return ""

    environ = {"SLACK_WEBHOOK_URL": "http://127.0.0.1:1/"}
    one, two = (
        Outbox(tmp_path / "o", environ, channels={"slack": slow}) for _ in range(2)
    )
    one.post(notice())
    reached.wait()
    assert two.flush(2.0) == []
    go_on.set()
    one.flush(2.0)
    assert sent == [1] and not one.waiting()


# Around a plan ------------------------------------------------------------------------


@pytest.mark.integration
def test_a_deploy_is_told_at_its_begin_and_its_end(
    box: Outbox, slacking: slack_double.Slack
) -> None:
    with around(STAGING, PLAN, "ann", worlds.release(8), box=box):
        pass
    box.flush(2.0)
    assert [message["text"] for message in slacking.messages] == [
        "staging: deploy of v8 begins",
        "staging: v8 serves",
    ]


@pytest.mark.integration
def test_what_to_type_next_is_told_with_a_failure(
    box: Outbox, slacking: slack_double.Slack
) -> None:
    failed = GateFailed("smoke said no", next="inv logs --release v8")
    with pytest.raises(GateFailed), around(STAGING, PLAN, "ann", box=box):
        raise failed
    box.flush(2.0)
    fields = slacking.messages[-1]["attachments"][0]["fields"]
    typed = "inv logs --env staging --release v8"
    assert {"title": "next", "value": typed, "short": True} in fields


@pytest.mark.integration
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (GateFailed("gate said no; v7 serves"), "gate said no; v7 serves"),
        (KeyboardInterrupt(), "interrupted"),
        (ZeroDivisionError("x"), "a defect of the engine: ZeroDivisionError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_ends_a_deploy_is_told_and_passed_on(
    box: Outbox, slacking: slack_double.Slack, error: BaseException, said: str
) -> None:
    with pytest.raises(type(error)) as raised:
        with around(STAGING, PLAN, "ann", box=box):
            raise error
    assert raised.value is error
    box.flush(2.0)
    assert slacking.messages[-1]["attachments"][0]["text"] == said


def test_a_failed_revert_is_critical(tmp_path: Path) -> None:
    box = Outbox(tmp_path, {**PEOPLE, "SMTP_URL": "smtp://127.0.0.1:1"}, each=0.1)
    prod = replace(worlds.ENVIRONMENT, name="prod")
    with pytest.raises(RevertFailed):
        with around(prod, PLAN, "ann", box=box):
            raise RevertFailed("both are down")
    last = json.loads(box.waiting()[-1].read_text())["notice"]
    assert last["recipients"][0] == "oncall@example.org"


@pytest.mark.integration
def test_a_plan_without_steps_tells_nothing(
    box: Outbox, slacking: slack_double.Slack
) -> None:
    with around(STAGING, replace(PLAN, steps=()), "ann", box=box):
        pass
    assert box.flush(1.0) == [] and slacking.asked == 0


@pytest.mark.parametrize(
    "fault", [OSError(28, "No space left on device"), ValueError("a defect")], ids=repr
)
def test_an_outbox_that_fails_changes_no_verdict(
    box: Outbox, fault: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def post(_: Notice) -> None:
        raise fault

    box.post = post
    with around(STAGING, PLAN, "ann", box=box):
        pass
    assert "not told" in capsys.readouterr().err


def test_a_command_that_told_nothing_waits_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox, "_boxes", [])
    outbox.flush()
    assert outbox._boxes == []


def test_the_commands_outbox_is_below_the_state_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(outbox, "_boxes", [])
    monkeypatch.setitem(os.environ, "MLTRADING_STATE", str(tmp_path))
    assert outbox.opened().folder == tmp_path / "outbox"


def test_ctrl_c_while_a_notice_is_on_its_way_changes_no_verdict(
    monkeypatch: pytest.MonkeyPatch, box: Outbox, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(seconds: float) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(outbox, "_boxes", [box])
    monkeypatch.setattr(box, "flush", interrupted)
    outbox.flush()
    assert "not told: interrupted" in capsys.readouterr().err
