"""Notices by mail: plain text over SMTP, with a checked certificate.

Rules:
- Message-ID is made of the notice's id: a mail that comes twice is shown once.
- What came from outside is in no header but the subject, and there it is one line of text.
- A refusal for good (5xx) ends it; a passing one, or no answer, is worth another attempt.
- Not a word of the server's answer is in an error: it may repeat what was sent.
"""

from __future__ import annotations

import smtplib
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as POLICY
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from handrail.adapters.notify_http import Deadline, is_here, reason, refused, trusting
from handrail.errors import NotifyError, sanitise
from handrail.ports import Clock

_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_LONGEST_SUBJECT_CHARACTERS = 200
_LONGEST_CHARACTERS = 20_000
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Mail:
    """A mail server, and who is written to.

    Attributes:
        server: `host` or `host:port`.
        tls: `starttls`, `tls` or `none`.
        user: empty for nobody.
        authority: file of the certificates that are trusted besides the system's; None for none.
    """

    server: str
    sender: str
    to: tuple[str, ...]
    tls: str = "starttls"
    user: str = ""
    password: str = ""
    authority: Path | None = None
    timeout_s: float = TIMEOUT_S


class _Connection(smtplib.SMTP):
    """A connection that the deadline sees from its first byte: a greeting may drip, too."""

    def __init__(self, mail: Mail, host: str, deadline: Deadline) -> None:
        # Without a name of our own the library would ask the resolver for one.
        super().__init__(local_hostname="handrail.invalid", timeout=mail.timeout_s)
        self._host = host  # what STARTTLS checks the certificate against
        self._mail = mail
        self._deadline = deadline

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        opened = socket.create_connection((host, port), timeout)
        self._deadline.watch(opened)
        if self._mail.tls != "tls":
            return opened
        secured = trusting(self._mail.authority).wrap_socket(
            opened, server_hostname=host, do_handshake_on_connect=False
        )
        self._deadline.watch(secured)
        secured.do_handshake()
        return secured


class EmailNotifier:
    """`ports.Notifier` by mail."""

    def __init__(self, mail: Mail, clock: Clock) -> None:
        self._mail = mail
        self._clock = clock

    def send(self, notice: Mapping[str, Any]) -> None:
        """Send one notice; see `ports.Notifier`."""
        mail = self._mail
        try:
            message = letter(mail, notice)
            message["Date"] = format_datetime(self._clock.now())
        except (ValueError, IndexError) as error:
            raise refused("an address in it cannot be read", is_passing=False) from error
        with Deadline(mail.timeout_s) as deadline:
            try:
                with self._connected(deadline) as connection:
                    self._secure(connection, deadline)
                    _deliver(connection, mail, message)
            except NotifyError:
                raise
            except smtplib.SMTPException as error:
                raise _refused(error, is_late=deadline.is_over) from None
            except OSError as error:
                why = "no answer in time" if deadline.is_over else reason(error)
                raise refused(why, is_passing=True) from None

    def _connected(self, deadline: Deadline) -> smtplib.SMTP:
        mail = self._mail
        host, _, port = mail.server.partition(":")
        number = int(port) if port else _PORTS[mail.tls]
        if mail.tls == "none" and mail.password and not is_here(host):
            raise refused("a password is not sent without TLS", is_passing=False)
        made = _Connection(mail, host, deadline)
        made.connect(host, number)
        return made

    def _secure(self, connection: smtplib.SMTP, deadline: Deadline) -> None:
        if self._mail.tls == "starttls":
            connection.starttls(context=trusting(self._mail.authority))
            deadline.watch(connection.sock)
        if self._mail.user:
            connection.login(self._mail.user, self._mail.password)


def _deliver(connection: smtplib.SMTP, mail: Mail, message: EmailMessage) -> None:
    left = connection.send_message(message, from_addr=mail.sender, to_addrs=list(mail.to))
    if left:
        raise refused(f"{len(left)} of {len(mail.to)} recipients are refused", is_passing=False)


def letter(mail: Mail, notice: Mapping[str, Any]) -> EmailMessage:
    """Return a notice as a mail.

    Raises:
        ValueError: an address is none.
    """
    message = EmailMessage(policy=POLICY)
    message["From"] = Address("Handrail", addr_spec=mail.sender)
    message["To"] = tuple(Address(addr_spec=one) for one in mail.to)
    subject = " ".join(sanitise(str(notice["title"])[:_LONGEST_SUBJECT_CHARACTERS]).split())
    message["Subject"] = f"[{notice['severity']}] {subject}"
    domain = mail.sender.rpartition("@")[2]
    message["Message-ID"] = f"<{notice['id']}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text(notice))
    return message


def text(notice: Mapping[str, Any]) -> str:
    """Return a notice as plain text."""
    lines = [sanitise(str(notice["title"])), ""]
    if notice.get("text"):
        said = sanitise(str(notice["text"])[:_LONGEST_CHARACTERS], keep_lines=True)
        lines += [said, ""]
    names = {"run": "run", "resource": "on", "person": "by", "time": "at", "next": "next"}
    lines += [
        f"{word + ':':<7}{sanitise(str(notice[key]))}"
        for key, word in names.items()
        if notice.get(key)
    ]
    if notice.get("link"):
        lines.append(f"{'more:':<7}{sanitise(str(notice['link']))}")
    return "\n".join([*lines, "", f"notice {notice['id']}"]) + "\n"


def _refused(error: smtplib.SMTPException, *, is_late: bool) -> NotifyError:
    """Return what an answer of the mail server means."""
    return refused("no answer in time", is_passing=True) if is_late else _said(error)


def _said(error: smtplib.SMTPException) -> NotifyError:
    match error:
        case smtplib.SMTPAuthenticationError():
            return refused("it does not let this user in", is_passing=True)
        case smtplib.SMTPRecipientsRefused():
            codes = [code for code, _ in error.recipients.values()]
            is_passing = any(code < 500 for code in codes)  # noqa: PLR2004  SMTP: 5xx is a no for good
            return refused("it refuses every recipient", is_passing=is_passing)
        case smtplib.SMTPNotSupportedError():
            return refused("it does not offer what is declared (TLS, login)", is_passing=False)
        case smtplib.SMTPServerDisconnected():
            return refused("the connection was cut", is_passing=True)
        case smtplib.SMTPResponseException():
            is_passing = error.smtp_code < 500  # noqa: PLR2004  SMTP: 5xx is a no for good
            return refused(f"it answers {error.smtp_code}", is_passing=is_passing)
        case _:
            return refused("its answer is not SMTP", is_passing=True)
