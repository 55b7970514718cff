"""Send a notice by e-mail, through the server that an SMTP_URL names.

smtp://user:password@mail.example.org:587     STARTTLS where the server offers it
smtps://user:password@mail.example.org:465    TLS from the first byte
"""

from __future__ import annotations

import smtplib
import ssl
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from urllib.parse import unquote, urlsplit

from ops.alerts.notice import Notice
from ops.command import Secret

_PORTS = {"smtp": 587, "smtps": 465}
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Server:
    """A mail server: where, with TLS from the beginning or not, as whom."""

    host: str
    port: int
    tls: bool
    user: str = ""
    password: Secret = field(default=Secret(""))


def server(url: Secret) -> Server | None:
    """Return the server that an SMTP_URL names, None where it names none. Pure."""
    try:
        parts = urlsplit(url.value)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not host:
        return None
    return Server(
        host=host,
        port=port or _PORTS[parts.scheme],
        tls=parts.scheme == "smtps",
        user=unquote(parts.username or ""),
        password=Secret(unquote(parts.password or "")),
    )


def send(notice: Notice, url: Secret, timeout: float) -> str:
    """Hand a notice to the mail server; return "" when it took it, else why not."""
    where = server(url)
    if where is None:
        return "SMTP_URL is no smtp:// or smtps:// address"
    if not notice.recipients or not notice.sender:
        return "nobody is named as sender or recipient"
    try:
        if where.tls:
            context = ssl.create_default_context()
            with closing(
                smtplib.SMTP_SSL(
                    where.host, where.port, timeout=timeout, context=context
                )
            ) as session:
                return _deliver(session, where, notice, encrypted=True)
        with closing(smtplib.SMTP(where.host, where.port, timeout=timeout)) as session:
            session.ehlo_or_helo_if_needed()
            encrypted = session.has_extn("starttls")
            if encrypted:
                session.starttls(context=ssl.create_default_context())
            return _deliver(session, where, notice, encrypted=encrypted)
    except (OSError, smtplib.SMTPException) as error:
        return _said(error)


def _deliver(
    session: smtplib.SMTP, where: Server, notice: Notice, *, encrypted: bool
) -> str:
    if where.user:
        if not encrypted and where.host not in _LOOPBACK:
            return "the server offers no TLS, so the password was not sent"
        session.login(where.user, where.password.value)
    # Where all are refused this raises; where some are, the others have it, and trying
    # again would reach those a second time.
    session.send_message(message(notice))
    # It has it, whatever it says to a good-bye; smtplib's own way out would raise for
    # that, and people get it twice.
    with suppress(OSError):
        session.quit()
    return ""


def message(notice: Notice) -> EmailMessage:
    """Return the message as it travels. Pure, but for its random id."""
    mail = EmailMessage()
    mail["Subject"] = notice.title
    mail["From"] = notice.sender
    mail["To"] = ", ".join(notice.recipients)
    mail["Date"] = format_datetime(datetime.fromtimestamp(notice.at, UTC))
    mail["Message-ID"] = make_msgid(domain="mltrading.invalid")
    if notice.urgent:
        mail["X-Priority"] = "1"
        mail["Importance"] = "high"
    width = max((len(name) for name, _ in notice.fields), default=0)
    lines = [f"{name + ':':<{width + 2}}{value}" for name, value in notice.fields]
    mail.set_content("\n".join([notice.body, "", *lines, ""]))
    return mail


def _said(error: Exception) -> str:
    """Return a server's or a socket's words in one line."""
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error
        text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        return f"status {error.smtp_code}: {text.splitlines()[0] if text else ''}"
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return f"refused for {', '.join(sorted(error.recipients))}"
    return str(error) or type(error).__name__
