"""Notices by POST: a web hook that is well, down, slow, moved, huge, or somebody else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from handrail.adapters.notify_http import Hook, post
from handrail.adapters.notify_slack import SlackNotifier, message
from handrail.adapters.notify_webhook import WebhookNotifier
from handrail.errors import NotifyError
from handrail.testing.clock import START, FakeClock
from support.hooks import Hook as Server
from support.hooks import make_certificate, run_hook, serving

KEY = b"0123456789abcdef0123456789abcdef"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
OLD = "an older key, as it is"
SOON_S = 0.5
NOTICE: dict[str, Any] = {
    "id": "5d0c7e1f5d0c7e1f5d0c7e1f",
    "kind": "incident",
    "severity": "incident",
    "title": "trim has not succeeded",
    "text": "expected by 06:00",
    "time": "2026-01-05T06:00:00.000000Z",
    "operation": "trim",
    "run": 0,
    "resource": "store/pilot-db",
    "environment": "pilot",
    "person": "",
    "next": "handrail schedules",
    "link": "",
}


@pytest.fixture
def hook() -> Iterator[Server]:
    """A web hook that takes what comes."""
    with run_hook() as server:
        yield server


def send(server: Server, secrets: str = SECRET, timeout_s: float = 5.0) -> None:
    hook = Hook(server.url, timeout_s=timeout_s)
    WebhookNotifier(hook, secrets, FakeClock()).send(NOTICE)


def fail(server: Server, timeout_s: float = 5.0) -> NotifyError:
    with pytest.raises(NotifyError) as raised:
        send(server, timeout_s=timeout_s)
    assert "s3cret" not in str(raised.value.as_json())
    return raised.value


def test_a_notice_is_signed_as_standard_webhooks_has_it(hook: Server) -> None:
    """Id, time and body are signed; with two keys there are two signatures."""
    send(hook, f"{SECRET} {OLD.replace(' ', '_')}")
    (sent,) = hook.sent
    headers = {name.lower(): value for name, value in sent.headers.items()}
    assert headers["webhook-id"] == NOTICE["id"]
    assert headers["webhook-timestamp"] == str(int(START.timestamp()))
    signed = f"{NOTICE['id']}.{headers['webhook-timestamp']}.".encode() + sent.body
    expected = [
        "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        for key in (KEY, OLD.replace(" ", "_").encode())
    ]
    assert headers["webhook-signature"].split() == expected
    assert json.loads(sent.body) == {"format": 1, "type": "handrail.incident", "data": NOTICE}
    assert (headers["content-type"], sent.path) == (
        "application/json",
        "/hook?key=s3cret-in-the-address",
    )


def test_without_a_secret_nothing_is_signed(hook: Server) -> None:
    """The id is there all the same."""
    send(hook, "")
    assert "webhook-signature" not in {name.lower() for name in hook.sent[0].headers}


def test_a_secret_that_is_no_base64_is_told_without_it() -> None:
    """What is wrong is said; the secret is not."""
    with pytest.raises(NotifyError) as raised:
        WebhookNotifier(Hook("http://127.0.0.1:9/"), "whsec_%%%not-base64", FakeClock())
    assert "%%%" not in str(raised.value.as_json())


@pytest.mark.parametrize(
    ("status", "is_passing"),
    [
        (408, True),
        (429, True),
        (500, True),
        (502, True),
        (503, True),
        (400, False),
        (401, False),
        (404, False),
        (410, False),
        (301, False),
        (307, False),
    ],
)
def test_an_answer_says_whether_another_attempt_helps(
    hook: Server, status: int, is_passing: bool
) -> None:
    """Too busy and broken pass; wrong, gone and moved do not."""
    hook.answers = [status]
    hook.headers = {"Location": "http://127.0.0.1:1/elsewhere"}
    error = fail(hook)
    assert (error.is_passing, str(status) in error.message) == (is_passing, True)
    assert len(hook.sent) == 1


def test_a_redirect_is_not_followed() -> None:
    """Where it leads to hears nothing."""
    with run_hook() as elsewhere, run_hook() as moved:
        moved.answers = [307]
        moved.headers = {"Location": elsewhere.url}
        fail(moved)
        assert elsewhere.sent == []


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("120", 120),
        ("Mon, 05 Jan 2026 09:10:00 GMT", 600),
        ("Mon, 05 Jan 2026 08:00:00 GMT", 0),
        ("soon", 0),
        ("-5", 0),
        ("9" * 400, 999_999_999),
    ],
)
def test_retry_after_is_heard(hook: Server, said: str, seconds: float) -> None:
    """As seconds or as a date; nonsense counts as nothing."""
    hook.answers = [503]
    hook.headers = {"Retry-After": said}
    assert fail(hook).retry_after_s == seconds


def test_a_server_that_is_down_is_worth_another_attempt() -> None:
    """Nobody listens: told in words of ours, without the address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    error = fail(Server(f"http://127.0.0.1:{port}/s3cret"))
    assert (error.is_passing, error.message) == (True, "connection refused")


@pytest.mark.parametrize("sending", ["nothing", "drops"])
def test_a_server_that_is_slow_is_left_in_time(hook: Server, sending: str) -> None:
    """One that says nothing, and one that says a byte now and then, hold nobody."""
    over = threading.Event()

    def slow(handler: BaseHTTPRequestHandler) -> None:
        while not over.wait(0.02):
            if sending == "drops":
                try:
                    handler.wfile.write(b"H")
                except OSError:
                    return

    hook.answers = [slow]
    try:
        error = fail(hook, timeout_s=SOON_S)
    finally:
        over.set()
    assert (error.is_passing, error.message) == (True, "no answer in time")


def test_a_huge_answer_is_not_read(hook: Server) -> None:
    """A status is all that counts: what else comes is left where it is."""
    written = [0]
    ended = threading.Event()

    def huge(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while written[0] < 1 << 30:
                written[0] += handler.wfile.write(b"x" * 65536)
        except OSError:
            pass
        ended.set()

    hook.answers = [huge]
    send(hook)
    assert ended.wait(10)
    assert written[0] < 64 << 20


def test_an_answer_that_is_not_http_is_told(hook: Server) -> None:
    """Whatever it is, it is not repeated."""
    hook.answers = [lambda handler: (handler.wfile.write(b"s3cret garbage\r\n"), None)[1]]
    error = fail(hook)
    assert (error.is_passing, error.message) == (True, "its answer is not HTTP")


def test_a_certificate_that_nobody_declared_is_refused(tmp_path: Path) -> None:
    """Not sent: the notice stays here. Declared, the same server takes it."""
    certificate = make_certificate(tmp_path / "own.pem")
    with run_hook(serving(certificate)) as server:
        error = fail(server)
        assert "certificate is not trusted" in error.message
        assert server.sent == []
        post(Hook(server.url, authority=certificate), b"{}", {})
        assert len(server.sent) == 1


def test_a_certificate_that_has_expired_is_refused(tmp_path: Path) -> None:
    """Declared or not."""
    certificate = make_certificate(tmp_path / "own.pem", lasts=timedelta(days=-1))
    with run_hook(serving(certificate)) as server:
        with pytest.raises(NotifyError, match="not trusted"):
            post(Hook(server.url, authority=certificate), b"{}", {})
        assert server.sent == []


def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    """The address that is called counts, not who answers."""
    certificate = make_certificate(tmp_path / "own.pem")
    with run_hook(serving(certificate)) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        with pytest.raises(NotifyError, match="not trusted"):
            post(Hook(url, authority=certificate), b"{}", {})


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://hooks.example.org/x", "declare `plain`"),
        ("http://127.0.0.1.example.org/x", "declare `plain`"),
        ("ftp://127.0.0.1/x", "cannot be read"),
        ("nonsense", "cannot be read"),
        ("http://127.0.0.1:99999/", "cannot be read"),
        ("http://[::1/", "cannot be read"),
        ("http://127.0.0.1:9/a b\r\nX: y", "cannot be read|not HTTP|refused"),
    ],
)
def test_an_address_that_cannot_be_used_is_told(url: str, said: str) -> None:
    """Nothing is sent in the clear by accident, and no header comes out of an address."""
    with pytest.raises(NotifyError, match=said):
        post(Hook(url, timeout_s=SOON_S), b"{}", {})


def test_slack_gets_blocks_and_text_in_which_nothing_is_markup(hook: Server) -> None:
    """A title that mentions everybody mentions nobody, and makes no link."""
    notice = NOTICE | {"title": "<!channel> a & b", "text": "<http://evil|click>\x1b[2J"}
    SlackNotifier(Hook(hook.url)).send(notice)
    sent = json.loads(hook.sent[0].body)
    assert sent["text"].startswith("&lt;!channel&gt; a &amp; b: &lt;http://evil|click&gt;\\x1b")
    assert "<" not in sent["blocks"][0]["text"]["text"]
    assert [block["type"] for block in sent["blocks"]] == ["section", "context"]


def test_slack_gets_no_more_than_it_takes() -> None:
    """Its limit of 3,000 characters a block holds also for what is full of ampersands."""
    sent = message(NOTICE | {"title": "&" * 5000, "text": "&" * 50_000})
    blocks = sent["blocks"]
    assert isinstance(blocks, list)
    assert len(blocks[0]["text"]["text"]) <= 3000


def test_a_link_of_ours_is_the_only_one() -> None:
    """What could end it early is encoded."""
    sent = message(NOTICE | {"link": "https://h.internal/runs/7?x=>|<", "next": "a `b`"})
    blocks = sent["blocks"]
    assert isinstance(blocks, list)
    details = blocks[1]["elements"][0]["text"]
    assert details.endswith("`a b`  ·  <https://h.internal/runs/7?x=%3E%7C%3C|more>")
