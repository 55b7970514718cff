"""Slack and mail are told, whatever their servers do; secrets stay unsaid."""

import email
import email.policy
import logging
import ssl
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest

from mltrading_health.watch.book import Book
from mltrading_health.watch.notify import (
    Courier,
    Mail,
    NotTaken,
    Slack,
    letter,
    payload,
)
from tests import certificates
from tests.doubles import slack as doubles
from tests.doubles.mailbox import Server
from tests.health.watch.test_book import Clock, message

FIRING = message(
    labels=(("disk", "data"), ("env", "prod"), ("service", "dashboard")),
    hint="inv logs --env prod",
    runbook="docs/how-to/alerts.md#errors",
    began=1_700_000_000.0,
)
RESOLVED = replace(FIRING, id="m2", firing=False, ended=1_700_000_090.0)


@pytest.fixture
def prod(alerts):
    return alerts.environment("prod")


@pytest.fixture
def double():
    with doubles.serving() as double:
        yield double


def patience(fault):
    """Return a time-out: short where it is what is tested, else never reached."""
    return 0.2 if fault == "silent" else 30.0


# -- Slack ----------------------------------------------------------------------------


def fields(said):
    return {f["title"]: f["value"] for f in said["attachments"][0]["fields"]}


def test_slack_hears_what_fires(double, prod):
    Slack(double.url, prod).send(FIRING)
    (said,) = double.messages
    assert said["text"] == "CRITICAL Errors: dashboard in production"
    assert said["channel"] == "#production-alerts"
    assert said["attachments"][0]["text"] == "they fail"
    assert fields(said) == {
        "value": "7 %",
        "limit": "5 %",
        "since": "2023-11-14 22:13:20 UTC",
        "disk": "data",
        "next": "inv logs --env prod",
        "see": "docs/how-to/alerts.md#errors",
        "urgency": "high",
    }


def test_slack_hears_what_has_ended(double, prod):
    Slack(double.url, prod).send(RESOLVED)
    (said,) = double.messages
    assert said["text"] == "resolved Errors: dashboard in production"
    assert fields(said)["ended"] == "2023-11-14 22:14:50 UTC"
    assert not {"next", "urgency"} & set(fields(said))


def test_a_webhook_without_a_channel_keeps_its_own(prod):
    assert "channel" not in payload(FIRING, replace(prod, channel=""))


def test_nobody_is_called_by_a_label(prod):
    said = payload(replace(FIRING, labels=(("route", "<!channel>"),)), prod)
    assert fields(said)["route"] == "&lt;!channel&gt;"


@pytest.mark.parametrize(
    ("fault", "again", "said"),
    [
        (500, True, "status 500"),
        (503, True, "status 503"),
        (429, True, "status 429"),
        (404, False, "status 404"),
        (302, False, "status 302"),
        (307, False, "status 307"),
        ("cut", True, "without Slack.s ok|Incomplete|Remote"),
        ("silent", True, "TimeoutError"),
    ],
)
def test_slack_that_misbehaves_has_not_taken_it(double, prod, fault, again, said):
    double.misbehave = [fault]
    with pytest.raises(NotTaken, match=said) as caught:
        Slack(double.url, prod, patience(fault)).send(FIRING)
    assert caught.value.again is again
    assert double.asked == 1 and double.messages == []


def test_no_slack_at_all_is_tried_again(prod):
    with doubles.serving() as gone:
        url = gone.url
    with pytest.raises(NotTaken, match="Connection refused") as caught:
        Slack(url, prod).send(FIRING)
    assert caught.value.again


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.slack.com/secret",
        "ftp://127.0.0.1/secret",
        "https:///secret",
        "https://host/sec ret",
        "https://host/secret\n",
        "https://host/sécret",
        "https://[host/secret",
        "https://host:port/secret",
        "secret",
    ],
)
def test_an_address_that_is_no_webhook_is_refused_without_showing_it(prod, url):
    with pytest.raises(ValueError, match="SLACK_WEBHOOK_URL is no") as caught:
        Slack(url, prod)
    assert "secret" not in str(caught.value) and "cret" not in str(caught.value)


# -- mail -----------------------------------------------------------------------------


class Inbox:
    """What arrived at a mail server, and what it answers to whom."""

    def __init__(self):
        self.mails, self.refused, self.sent = [], {}, "250 taken"
        self.encrypted = None

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, server, session, envelope):
        self.encrypted = session.ssl is not None
        if self.sent.startswith("250"):
            found = email.message_from_bytes(
                envelope.content, policy=email.policy.default
            )
            self.mails.append((envelope.rcpt_tos, found))
        return self.sent


@contextmanager
def serving(**options):
    inbox = Inbox()
    server = Server(inbox, hostname="127.0.0.1", port=0, **options)
    server.start()
    inbox.url = f"smtp://127.0.0.1:{server.port}"
    inbox.at = f"127.0.0.1:{server.port}"
    try:
        yield inbox
    finally:
        server.stop()


@pytest.fixture
def inbox():
    with serving() as inbox:
        yield inbox


TO = ("oncall@example.org", "devops@example.org")
CALL = replace(FIRING, channel="mail", to=TO)


def test_mail_reaches_all_who_are_named(inbox, prod):
    Mail(inbox.url, prod).send(CALL)
    ((to, mail),) = inbox.mails
    assert to == list(TO)
    assert mail["Subject"] == "CRITICAL Errors: dashboard in production"
    assert (mail["From"], mail["To"]) == ("alerts@example.org", ", ".join(TO))
    assert mail["Importance"] == "high"
    assert mail["Message-ID"] == "<m1@mltrading.invalid>"
    text = mail.get_content()
    assert (
        text.startswith("they fail\r\n") and "next:       inv logs --env prod" in text
    )


def test_people_are_chosen_by_severity(prod):
    mail = Mail("smtp://127.0.0.1", prod)
    assert mail.people("critical") == TO
    assert mail.people("warning") == ("team@example.org",)


def test_what_has_ended_is_not_urgent(prod):
    mail = letter(replace(RESOLVED, to=TO), prod)
    assert mail["Subject"] == "resolved Errors: dashboard in production"
    assert mail["Importance"] is None


def test_a_line_break_in_a_label_makes_no_header(prod):
    labels = (("service", "a\r\nBcc: everybody@example.org"),)
    mail = letter(replace(CALL, labels=labels), prod)
    assert mail["Bcc"] is None


def test_the_password_goes_over_tls_only(tmp_path, prod):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate, key = certificates.make(tmp_path, "127.0.0.1")
    tls.load_cert_chain(certificate, key)
    seen = []

    def known(server, session, envelope, mechanism, data):
        from aiosmtpd.smtp import AuthResult

        seen.append((data.login, data.password))
        # "handled" leaves the client without an answer.
        silent = data.password == b"silent"
        return AuthResult(success=data.password == b"pa@ss", handled=silent)

    trusting = ssl.create_default_context(cafile=str(certificate))
    options = {"tls_context": tls, "authenticator": known, "auth_required": True}
    with serving(require_starttls=True, **options) as inbox:
        url = f"smtp://me:pa%40ss@{inbox.at}"
        Mail(url, prod, tls=trusting).send(CALL)
        assert len(inbox.mails) == 1 and inbox.encrypted
        with pytest.raises(NotTaken, match="status 535") as caught:
            Mail(f"smtp://me:wrong@{inbox.at}", prod, tls=trusting).send(CALL)
        assert not caught.value.again
        with pytest.raises(NotTaken, match="did not answer the log-in") as caught:
            Mail(f"smtp://me:silent@{inbox.at}", prod, 0.2, trusting).send(CALL)
        assert caught.value.again
        # A server that nobody vouches for gets no password.
        before = len(seen)
        with pytest.raises(NotTaken, match="certificate"):
            Mail(url, prod).send(CALL)
    assert seen[0] == (b"me", b"pa@ss") and len(seen) == before


def test_a_server_without_tls_gets_no_password(inbox, prod, monkeypatch):
    monkeypatch.setattr("mltrading_health.watch.notify.LOOPBACK", ())
    with pytest.raises(NotTaken, match="no TLS, so the password") as caught:
        Mail(f"smtp://me:secret@{inbox.at}", prod).send(CALL)
    assert not caught.value.again and inbox.mails == []


def test_some_who_are_refused_do_not_hold_up_the_others(inbox, prod, caplog):
    inbox.refused = {TO[1]: "550 unknown"}
    Mail(inbox.url, prod).send(CALL)
    assert [to for to, _ in inbox.mails] == [[TO[0]]]
    assert f"refused for {TO[1]}; the others have it" in caplog.text


def test_all_who_are_refused_are_not_tried_again(inbox, prod):
    inbox.refused = dict.fromkeys(TO, "550 unknown")
    with pytest.raises(NotTaken, match="refused for devops") as caught:
        Mail(inbox.url, prod).send(CALL)
    assert not caught.value.again and inbox.mails == []


def test_who_is_put_off_is_tried_again_alone(inbox, prod):
    inbox.refused = {TO[1]: "451 come back later"}
    with pytest.raises(NotTaken, match="not now for devops") as caught:
        Mail(inbox.url, prod).send(CALL)
    assert caught.value.again and caught.value.left == (TO[1],)
    inbox.refused = {}
    Mail(inbox.url, prod).send(replace(CALL, to=caught.value.left))
    assert [to for to, _ in inbox.mails] == [[TO[0]], [TO[1]]]


@pytest.mark.parametrize(("answer", "again"), [("452 full", True), ("554 spam", False)])
def test_a_message_that_is_not_taken_says_so(inbox, prod, answer, again):
    inbox.sent = answer
    with pytest.raises(NotTaken, match=f"status {answer[:3]}") as caught:
        Mail(inbox.url, prod).send(CALL)
    assert caught.value.again is again


@pytest.mark.parametrize("fault", ["silent", "cut", 421])
def test_what_a_mail_server_says_to_a_good_bye_takes_nothing_back(prod, fault):
    from tests.doubles import smtp

    with smtp.serving() as server:
        server.misbehave = {"QUIT": fault}
        Mail(f"smtp://127.0.0.1:{server.port}", prod, patience(fault)).send(CALL)
        assert len(server.mails) == 1


@pytest.mark.parametrize("fault", ["silent", "cut", 421])
@pytest.mark.parametrize("at", ["CONNECT", "MAIL", "RCPT", "DATA", "SENT"])
def test_a_mail_server_that_misbehaves_is_tried_again(prod, at, fault):
    from tests.doubles import smtp

    with smtp.serving() as server:
        server.misbehave = {at: fault}
        with pytest.raises(NotTaken) as caught:
            url = f"smtp://127.0.0.1:{server.port}"
            Mail(url, prod, patience(fault)).send(CALL)
        assert caught.value.again and server.mails == []


@pytest.mark.parametrize("url", ["http://host/secret", "smtp:///secret", "secret"])
def test_an_address_that_is_no_mail_server_is_refused(prod, url):
    with pytest.raises(ValueError, match="SMTP_URL is no") as caught:
        Mail(url, prod)
    assert "secret" not in str(caught.value)


def test_nobody_as_sender_is_refused(alerts):
    with pytest.raises(ValueError, match="environments.local.mail.sender"):
        Mail("smtp://127.0.0.1", alerts.environment("local"))


# -- couriers -------------------------------------------------------------------------


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def book(tmp_path, clock):
    return Book(tmp_path / "watch.json", clock)


def test_a_message_is_tried_until_it_is_taken_and_then_no_more(
    double, prod, book, clock, caplog
):
    caplog.set_level(logging.INFO)
    book.record({}, {}, [FIRING])
    for fault, pause in ((500, 5.0), ("silent", 10.0), (200, 0.0)):
        double.misbehave = [fault] if fault != 200 else []
        channel = Slack(double.url, prod, patience(fault))
        Courier(channel, book).carry(book.next("slack")[0])
        clock.now += pause
    assert book.waiting == () and len(double.messages) == 1
    assert "trying again: status 500" in caplog.text
    assert "slack has taken Errors (firing)" in caplog.text
    assert "secret" not in caplog.text


def test_a_refusal_for_good_ends_it(double, prod, book, caplog):
    double.misbehave = [404]
    book.record({}, {}, [FIRING])
    Courier(Slack(double.url, prod), book).carry(FIRING)
    assert book.waiting == ()
    assert "slack refused Errors (firing): status 404" in caplog.text
    assert "secret" not in caplog.text


def test_a_defect_of_a_channel_is_a_try_like_others(book, caplog):
    class Broken:
        name = "slack"

        def send(self, message):
            raise RuntimeError("https://host/secret")

    book.record({}, {}, [FIRING])
    Courier(Broken(), book).carry(FIRING)
    assert book.waiting[0].tries == 1
    assert "trying again: RuntimeError" in caplog.text and "secret" not in caplog.text


def test_a_channel_that_hangs_holds_up_no_other(double, prod, book):
    class Hanging:
        name = "mail"
        asked, free = threading.Event(), threading.Event()

        def send(self, message):
            self.asked.set()
            self.free.wait()

    couriers = [Courier(Hanging(), book), Courier(Slack(double.url, prod), book)]
    for courier in couriers:
        courier.start()
    try:
        book.record({}, {}, [replace(FIRING, id="hung", channel="mail"), FIRING])
        assert Hanging.asked.wait(10)
        with book.changed:
            assert book.changed.wait_for(lambda: len(book.waiting) == 1, 10)
        book.record({}, {}, [RESOLVED])
        with book.changed:
            assert book.changed.wait_for(lambda: len(book.waiting) == 1, 10)
        assert [m["text"].split()[0] for m in double.messages] == [
            "CRITICAL",
            "resolved",
        ]
    finally:
        Hanging.free.set()
        for courier in couriers:
            courier.stop()
