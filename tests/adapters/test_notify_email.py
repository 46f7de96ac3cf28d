"""Notices by mail, to a real mail server on loopback: with TLS, with log-in, and with trouble."""

from __future__ import annotations

import email
import email.policy
import socket
import threading
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from handrail.adapters.notify_email import EmailNotifier, Mail, letter, text
from handrail.errors import NotifyError
from handrail.testing.clock import FakeClock
from support.hooks import Mails, make_certificate, run_mails, serving

SENDER, OPS, ANA = "handrail@example.org", "ops@example.org", "ana@example.org"
PASSWORD = "a s3cret word"
NOTICE: dict[str, Any] = {
    "id": "5d0c7e1f5d0c7e1f5d0c7e1f",
    "kind": "failed",
    "severity": "warning",
    "title": "run 7 was undone: trim on store/pilot-db",
    "text": "the script ended with exit 1; undone",
    "time": "2026-01-05T06:00:00.000000Z",
    "operation": "trim",
    "run": 7,
    "resource": "store/pilot-db",
    "environment": "pilot",
    "person": "ana@example.org",
    "next": "handrail runs show 7",
    "link": "https://handrail.internal/runs/7",
}


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1."""
    return make_certificate(tmp_path / "mail.pem")


def make(port: int, **said: Any) -> Mail:
    rest: dict[str, Any] = {"tls": "none", "timeout_s": 5.0, **said}
    return Mail(f"127.0.0.1:{port}", SENDER, (OPS, ANA), **rest)


def send(mail: Mail, notice: dict[str, Any] = NOTICE) -> None:
    EmailNotifier(mail, FakeClock()).send(notice)


def fail(mail: Mail, notice: dict[str, Any] = NOTICE) -> NotifyError:
    with pytest.raises(NotifyError) as raised:
        send(mail, notice)
    assert PASSWORD not in str(raised.value.as_json())
    return raised.value


def read(mails: Mails) -> EmailMessage:
    content = mails.came[-1].content
    assert isinstance(content, bytes)
    found = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    return found


def test_a_notice_is_a_mail_of_plain_text() -> None:
    """It says what, where, by whom and what comes next; its id is the notice's."""
    with run_mails() as mails:
        send(make(mails.port))
    mail = read(mails)
    assert mails.came[0].rcpt_tos == [OPS, ANA]
    assert mail["Subject"] == "[warning] run 7 was undone: trim on store/pilot-db"
    assert mail["Message-ID"] == f"<{NOTICE['id']}@example.org>"
    assert mail["Date"] == "Mon, 05 Jan 2026 09:00:00 +0000"
    assert mail["Auto-Submitted"] == "auto-generated"
    body = mail.get_content()
    for said in ("the script ended with exit 1", "on:    store/pilot-db", "handrail runs show 7"):
        assert said in body


# The library does not see that a connection which begins with TLS has it.
@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
@pytest.mark.parametrize("is_tls_first", [False, True], ids=["starttls", "tls"])
def test_a_mail_is_sent_over_tls_by_a_known_user(certificate: Path, is_tls_first: bool) -> None:
    """The password goes over a connection whose certificate was checked, and no other."""
    with run_mails(
        serving(certificate), is_tls_first=is_tls_first, users={"handrail": PASSWORD}
    ) as mails:
        tls = "tls" if is_tls_first else "starttls"
        known: dict[str, Any] = {"tls": tls, "user": "handrail", "password": PASSWORD}
        send(make(mails.port, authority=certificate, **known))
        assert (mails.logged_in, len(mails.came)) == (["handrail"], 1)
        error = fail(make(mails.port, **known))
        assert "certificate is not trusted" in error.message
        assert mails.logged_in == ["handrail"]


def test_a_wrong_password_is_told_without_it(certificate: Path) -> None:
    """Somebody may set it right within the hour: it is tried again."""
    with run_mails(serving(certificate), users={"handrail": "another"}) as mails:
        error = fail(
            make(
                mails.port,
                tls="starttls",
                user="handrail",
                password=PASSWORD,
                authority=certificate,
            )
        )
    assert (error.is_passing, mails.came) == (True, [])


def test_a_server_without_tls_gets_nothing_that_wants_it() -> None:
    """Who strips STARTTLS on the way gets neither mail nor password."""
    with run_mails() as mails:
        error = fail(make(mails.port, tls="starttls", user="handrail", password=PASSWORD))
    assert (error.is_passing, mails.came) == (False, [])


def test_a_password_is_not_sent_in_the_clear_to_another_machine() -> None:
    """Not even where somebody declared it so."""
    mail = Mail("mail.example.org", SENDER, (OPS,), "none", "handrail", PASSWORD)
    assert "without TLS" in fail(mail).message


@pytest.mark.parametrize(
    ("answer", "is_passing"), [("451 try later", True), ("554 never, s3cret reason", False)]
)
def test_a_refusal_says_whether_another_attempt_helps(answer: str, is_passing: bool) -> None:
    """4xx passes, 5xx does not; the server's words are not repeated."""
    with run_mails() as mails:
        mails.refuse = answer
        error = fail(make(mails.port))
    assert (error.is_passing, "s3cret" in error.message) == (is_passing, False)


def test_a_server_that_is_down_is_worth_another_attempt() -> None:
    """Nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    error = fail(make(port))
    assert (error.is_passing, error.message) == (True, "connection refused")


@pytest.mark.parametrize("greeting", [b"", b"2"])
def test_a_server_that_drips_is_left_in_time(greeting: bytes) -> None:
    """One that takes the connection and says nothing, or one byte at a time, holds nobody."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            taken, _ = listening.accept()
            with taken:
                while not over.wait(0.02):
                    try:
                        taken.sendall(greeting)
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            error = fail(make(listening.getsockname()[1], timeout_s=0.5))
        finally:
            over.set()
            thread.join()
    assert (error.is_passing, error.message) == (True, "no answer in time")


def test_what_speaks_another_language_is_told() -> None:
    """An HTTP server is no mail server."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            taken, _ = listening.accept()
            with taken:
                taken.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        error = fail(make(listening.getsockname()[1]))
        thread.join()
    assert error.is_passing


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\u2028", "\x0b", "\x85", "\0"])
def test_no_header_comes_out_of_what_came_from_outside(end: str) -> None:
    """A line end in a title, or in the text, makes neither a header nor a recipient."""
    hostile = f"run 7{end}Bcc: eve@example.org{end}{end}<script>"
    with run_mails() as mails:
        send(make(mails.port), NOTICE | {"title": hostile, "text": f"a{end}.{end}MAIL FROM:<e@e>"})
    mail = read(mails)
    assert mails.came[0].rcpt_tos == [OPS, ANA]
    assert len(mails.came) == 1
    assert mail["Bcc"] is None
    assert "Bcc: eve" in mail["Subject"]
    assert set(mail.keys()) == {
        "From",
        "To",
        "Subject",
        "Message-ID",
        "Auto-Submitted",
        "Content-Type",
        "Content-Transfer-Encoding",
        "MIME-Version",
        "Date",
    }


def test_an_address_that_is_none_is_told_and_not_sent() -> None:
    """A recipient that holds more than an address is refused here."""
    mail = Mail("127.0.0.1:9", SENDER, ("ops@example.org\r\nBcc: eve@example.org",))
    error = fail(mail)
    assert (error.is_passing, "address" in error.message) == (False, True)


def test_a_letter_is_bounded_whatever_comes() -> None:
    """A megabyte of reasons, and every character there is, make a mail that can be read."""
    notice = NOTICE | {"title": "ä" * 10_000, "text": "\ud800\x00ß" * 400_000}
    mail = letter(make(25), notice)
    assert len(mail["Subject"]) <= 220
    assert len(mail.as_bytes()) < 200_000
    assert "\\ud800" in text(notice)
