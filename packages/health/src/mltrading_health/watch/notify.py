"""Tell people by Slack and e-mail, with a thread for each that tries until it works.

A channel is anything with a ``name``, ``people(severity)`` (empty: nobody is to hear)
and ``send(message)``, which returns when the channel has taken it and raises NotTaken
when it has not. Addresses that are secrets appear in no message, log or error.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import smtplib
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import datetime, timezone
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from mltrading_health.watch.book import Book, Message
from mltrading_health.watch.rules import Environment

log = logging.getLogger(__name__)
#: Seconds that a server may be silent.
TIMEOUT = 10.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")
COLOURS = {"critical": "#dc2626", "warning": "#d97706", "resolved": "#16a34a"}


class NotTaken(Exception):
    """Say why a channel did not take a message, and whether to try again.

    ``after``: seconds that it asked to wait. ``left``: who has not got it, if others
    have.
    """

    def __init__(
        self,
        reason: str,
        *,
        again: bool = True,
        after: float = 0.0,
        left: tuple[str, ...] = (),
    ) -> None:
        super().__init__(reason)
        self.again, self.after, self.left = again, after, left


class Channel(Protocol):
    """A way to reach people."""

    name: str

    def people(self, severity: str) -> tuple[str, ...]:
        """Return who hears of a severity here."""

    def send(self, message: Message) -> None:
        """Send a message, or raise NotTaken."""


# -- what is said --------------------------------------------------------------------


def title(message: Message, where: Environment) -> str:
    """Return the first line of a message."""
    service = dict(message.labels).get("service", "")
    about = f"{message.alert}: {service} in {where.title}"
    return f"{message.severity.upper() if message.firing else 'resolved'} {about}"


def facts(message: Message, where: Environment) -> list[tuple[str, str]]:
    """Return what else there is to know, name by name."""
    found = [("value" if message.firing else "last value beyond", message.value)]
    found += [("limit", message.limit), ("since", _utc(message.began))]
    if message.ended is not None:
        found.append(("ended", _utc(message.ended)))
    hidden = ("env", "service")
    found += [(name, text) for name, text in message.labels if name not in hidden]
    if message.firing:
        more = (("next", message.hint), ("see", message.runbook))
        found += [(name, text) for name, text in more if text]
    if urgent(message, where):
        found.append(("urgency", "high"))
    return found


def urgent(message: Message, where: Environment) -> bool:
    """Tell whether somebody has to get up."""
    return where.urgent and message.firing and message.severity == "critical"


def _utc(at: float) -> str:
    return f"{datetime.fromtimestamp(at, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


# -- Slack ---------------------------------------------------------------------------


class Slack:
    """Post to an incoming webhook, whose address is a secret.

    Raises:
        ValueError: the address is neither https nor http on loopback.
    """

    name = "slack"

    def __init__(self, url: str, where: Environment, timeout: float = TIMEOUT) -> None:
        host, scheme = _address(url, "SLACK_WEBHOOK_URL")
        if scheme != "https" and not (scheme == "http" and host in LOOPBACK):
            raise ValueError("SLACK_WEBHOOK_URL is no https address")
        self._url, self._where, self._timeout = url, where, timeout
        # A proxy between us and ourselves would be none of ours.
        proxies = [urllib.request.ProxyHandler({})] if host in LOOPBACK else []
        self._opener = urllib.request.build_opener(*proxies, _Stay())

    def people(self, severity: str) -> tuple[str, ...]:
        """Return the channel: it hears of everything."""
        return (self._where.channel or "the webhook's channel",)

    def send(self, message: Message) -> None:
        """Post a message; taken is what Slack answers with its "ok"."""
        request = urllib.request.Request(
            self._url,
            data=json.dumps(payload(message, self._where)).encode(),
            headers={"Content-Type": "application/json"},
            method="POST",
        )
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                said = answer.read(200).decode(errors="replace").strip()
        except urllib.error.HTTPError as error:
            with error:
                again = error.code in (408, 429) or error.code >= 500
                after = error.headers.get("Retry-After", "") if error.headers else ""
            seconds = float(after) if after.isdecimal() else 0.0
            raise NotTaken(f"status {error.code}", again=again, after=seconds) from None
        except urllib.error.URLError as error:
            raise NotTaken(_cause(error.reason)) from None
        except (OSError, http.client.HTTPException) as error:
            raise NotTaken(_cause(error)) from None
        if said != "ok":
            raise NotTaken("an answer without Slack's ok")


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follow no redirect: the address is a secret, and a moved POST becomes a GET."""

    def redirect_request(self, *_: Any) -> None:
        return None


def payload(message: Message, where: Environment) -> dict[str, Any]:
    """Return what Slack's incoming webhooks read; pure."""
    first = escaped(title(message, where))
    return {
        **({"channel": where.channel} if where.channel else {}),
        "username": "mltrading",
        "text": first,
        "attachments": [
            {
                "fallback": first,
                "color": COLOURS[message.severity if message.firing else "resolved"],
                "text": escaped(message.summary),
                "fields": [
                    {
                        "title": escaped(name),
                        "value": escaped(text),
                        "short": len(text) < 40,
                    }
                    for name, text in facts(message, where)
                ],
                "ts": int(message.began if message.firing else message.ended or 0),
            }
        ],
    }


def escaped(text: str) -> str:
    """Return text in which nothing calls a person or makes a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# -- e-mail --------------------------------------------------------------------------


class Mail:
    """Hand mail to the server of an address, which may hold a password.

    ``smtp://user:password@host:587`` uses STARTTLS where it is offered and sends no
    password without; ``smtps://`` is TLS from the first byte.

    Raises:
        ValueError: the address is of another kind, or nobody is named as sender.
    """

    name = "mail"

    def __init__(
        self,
        url: str,
        where: Environment,
        timeout: float = TIMEOUT,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        host, scheme = _address(url, "SMTP_URL")
        if scheme not in ("smtp", "smtps"):
            raise ValueError("SMTP_URL is no smtp:// or smtps:// address")
        if not where.sender:
            raise ValueError(f"environments.{where.name}.mail.sender: nobody is named")
        self._parts, self._host, self._where = urlsplit(url), host, where
        self._implicit = scheme == "smtps"
        self._timeout, self._tls = timeout, tls

    def people(self, severity: str) -> tuple[str, ...]:
        """Return the addresses that hear of a severity."""
        return self._where.mail.get(severity, ())

    def send(self, message: Message) -> None:
        """Hand a message over; some of those named may have been refused for good."""
        try:
            with contextlib.closing(self._connected()) as session:
                encrypted = self._implicit or self._encrypt(session)
                self._log_in(session, encrypted)
                refused = session.send_message(
                    letter(message, self._where), to_addrs=list(message.to)
                )
                # It has taken the message, whatever it says to a good-bye; smtplib's
                # own way out would raise for that, and people get it twice.
                with contextlib.suppress(OSError):
                    session.quit()
        except smtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
        except smtplib.SMTPResponseException as error:
            # Only the number: the words of a server may repeat what it was given.
            raise NotTaken(
                f"status {error.smtp_code}", again=error.smtp_code < 500
            ) from None
        except (OSError, smtplib.SMTPException) as error:
            raise NotTaken(_cause(error)) from None
        _judge(refused, len(message.to))

    def _connected(self) -> smtplib.SMTP:
        port = self._parts.port or (465 if self._implicit else 587)
        if self._implicit:
            return smtplib.SMTP_SSL(
                self._host, port, timeout=self._timeout, context=self._context()
            )
        return smtplib.SMTP(self._host, port, timeout=self._timeout)

    def _context(self) -> ssl.SSLContext:
        return self._tls or ssl.create_default_context()

    def _encrypt(self, session: smtplib.SMTP) -> bool:
        session.ehlo_or_helo_if_needed()
        if not session.has_extn("starttls"):
            return False
        session.starttls(context=self._context())
        return True

    def _log_in(self, session: smtplib.SMTP, encrypted: bool) -> None:
        user = unquote(self._parts.username or "")
        if not user:
            return
        if not encrypted and self._host not in LOOPBACK:
            raise NotTaken(
                "the server offers no TLS, so the password was not sent", again=False
            )
        try:
            session.login(user, unquote(self._parts.password or ""))
        except smtplib.SMTPServerDisconnected:
            raise NotTaken("the server did not answer the log-in") from None


def _judge(refused: Mapping[str, tuple[int, bytes]], asked: int) -> None:
    """Raise for those who have not got it: later ones are asked again, others not."""
    later = tuple(who for who, (status, _) in refused.items() if status < 500)
    never = sorted(set(refused) - set(later))
    if later:
        raise NotTaken(f"not now for {', '.join(sorted(later))}", left=later)
    if len(never) == asked:
        raise NotTaken(f"refused for {', '.join(never)}", again=False)
    if never:
        log.error("mail: refused for %s; the others have it", ", ".join(never))


def letter(message: Message, where: Environment) -> EmailMessage:
    """Return a message as it travels; pure.

    Its id is the message's own, so that of two copies a reader's program shows one.
    """
    mail = EmailMessage()
    mail["Subject"] = " ".join(title(message, where).split())
    mail["From"] = where.sender
    mail["To"] = ", ".join(where.mail.get(message.severity, ()) or message.to)
    at = message.began if message.ended is None else message.ended
    mail["Date"] = format_datetime(datetime.fromtimestamp(at, timezone.utc))
    mail["Message-ID"] = f"<{message.id}@mltrading.invalid>"
    if urgent(message, where):
        mail["X-Priority"] = "1"
        mail["Importance"] = "high"
    lines = [f"{name + ':':<12}{text}" for name, text in facts(message, where)]
    mail.set_content("\n".join([message.summary, "", *lines, ""]))
    return mail


def _address(url: str, name: str) -> tuple[str, str]:
    """Return host and scheme of an address, which is not repeated in an error."""
    try:
        parts: SplitResult = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(f"{name} is no address") from None
    if not host or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{name} is no address")
    return host, parts.scheme


def _cause(error: object) -> str:
    """Return what a socket or TLS said, never a text that may hold an address."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


# -- the thread of a channel ---------------------------------------------------------


class Courier:
    """Send what waits for one channel, one message after the other.

    A channel that hangs holds up its own courier and nothing else.
    """

    def __init__(self, channel: Channel, book: Book) -> None:
        self.channel, self.book = channel, book
        self.ended = False
        self._thread = threading.Thread(
            target=self._run, name=f"watch {channel.name}", daemon=True
        )

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the message that is under way; waits for that."""
        with self.book.changed:
            self.ended = True
            self.book.changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self.book.changed:
                message, pause = self.book.next(self.channel.name)
                if self.ended:
                    return
                if message is None:
                    self.book.changed.wait(pause)
                    continue
            self.carry(message)

    def carry(self, message: Message) -> None:
        """Try to send a message once, and note what became of it."""
        what = f"{message.alert} ({'firing' if message.firing else 'resolved'})"
        try:
            self.channel.send(message)
        except NotTaken as error:
            self._not_taken(message, what, error)
        except Exception as error:
            # A defect of ours must not end the courier: later messages may do.
            self._not_taken(message, what, NotTaken(type(error).__name__))
        else:
            self.book.sent(message)
            log.info("%s has taken %s", self.channel.name, what)

    def _not_taken(self, message: Message, what: str, error: NotTaken) -> None:
        name = self.channel.name
        if not error.again:
            self.book.sent(message)
            log.error("%s refused %s: %s", name, what, error)
        elif self.book.put_off(message, error.after, error.left):
            log.warning("%s did not take %s, trying again: %s", name, what, error)
        else:
            log.error("%s did not take %s for a day: %s", name, what, error)
