"""A mail server on a loopback port: the part of RFC 5321 that a client needs.

Commands out of order are refused as they are by a real one. `misbehave` maps a command
(CONNECT, EHLO, AUTH, MAIL, RCPT, DATA, the message's end: SENT) to what happens there:
a status, or "cut" (the connection ends) or "silent" (no answer until the double ends).
"""

from __future__ import annotations

import base64
import email
import email.message
import email.policy
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Mail:
    """One message as it arrived."""

    sender: str
    recipients: list[str]
    message: email.message.EmailMessage


@dataclass
class MailServer:
    """What arrived, whom it lets in, and what is to go wrong."""

    port: int = 0
    mails: list[Mail] = field(default_factory=list)
    accounts: dict[str, str] = field(default_factory=dict)
    logins: list[str] = field(default_factory=list)
    misbehave: dict[str, int | str] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)


class _Cut(Exception):
    """The connection ends here."""


@contextmanager
def serving() -> Iterator[MailServer]:
    """Serve mail while the block runs."""
    mails = MailServer()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            try:
                self.talk()
            except (_Cut, OSError):
                return

        def talk(self) -> None:
            self.known = not mails.accounts
            self.sender, self.recipients = "", []
            self.reply("CONNECT", 220, "double ready")
            while line := self.rfile.readline().decode().rstrip("\r\n"):
                word, _, rest = line.partition(" ")
                answer = getattr(self, f"on_{word.lower()}", None)
                if answer is None:
                    self.reply(word, 502, "no such command")
                elif answer(rest) is False:
                    return

        def reply(self, at: str, status: int, text: str) -> bool:
            """Answer, or do what is to go wrong here; say whether it went well."""
            fault = mails.misbehave.get(at)
            if fault == "silent":
                mails.ended.wait()
            if fault in ("silent", "cut"):
                raise _Cut
            if isinstance(fault, int):
                status, text = fault, "asked to misbehave"
            self.wfile.write(f"{status} {text}\r\n".encode())
            return status < 400

        def on_ehlo(self, rest: str) -> None:
            if mails.accounts and "EHLO" not in mails.misbehave:
                self.wfile.write(b"250-double\r\n250 AUTH PLAIN\r\n")
            else:
                self.reply("EHLO", 250, "double")

        def on_auth(self, rest: str) -> None:
            kind, _, coded = rest.partition(" ")
            _, user, password = base64.b64decode(coded).decode().split("\0")
            if kind != "PLAIN" or mails.accounts.get(user) != password:
                self.reply("AUTH", 535, "not you")
                return
            if self.reply("AUTH", 235, "welcome"):
                mails.logins.append(user)
                self.known = True

        def on_mail(self, rest: str) -> None:
            if not self.known:
                self.reply("MAIL", 530, "log in first")
            elif self.reply("MAIL", 250, "ok"):
                self.sender = rest.partition("<")[2].partition(">")[0]

        def on_rcpt(self, rest: str) -> None:
            if not self.sender:
                self.reply("RCPT", 503, "MAIL first")
            elif self.reply("RCPT", 250, "ok"):
                self.recipients.append(rest.partition("<")[2].partition(">")[0])

        def on_data(self, rest: str) -> None:
            if not self.recipients:
                self.reply("DATA", 503, "RCPT first")
                return
            if not self.reply("DATA", 354, "go on"):
                return
            lines = []
            while (line := self.rfile.readline()) != b".\r\n":
                if not line:
                    raise _Cut
                lines.append(line.removeprefix(b"."))
            found = email.message_from_bytes(
                b"".join(lines), policy=email.policy.default
            )
            if self.reply("SENT", 250, "taken"):
                mails.mails.append(Mail(self.sender, self.recipients, found))
            self.sender, self.recipients = "", []

        def on_rset(self, rest: str) -> None:
            self.sender, self.recipients = "", []
            self.reply("RSET", 250, "ok")

        def on_quit(self, rest: str) -> bool:
            self.reply("QUIT", 221, "bye")
            return False

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        mails.port = server.server_address[1]
        thread = threading.Thread(
            target=server.serve_forever, args=(0.02,), daemon=True
        )
        thread.start()
        try:
            yield mails
        finally:
            mails.ended.set()
            server.shutdown()
            thread.join()
