"""Probes against real sockets and processes of this machine."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from handrail.adapters.probes import Probes
from handrail.ports import CheckResult, Checks
from handrail.testing.checks import FakeChecks

TIMEOUT_S = 10.0


class Pages(http.server.BaseHTTPRequestHandler):
    """`/STATUS` answers with that status; a redirect leads to a page that is ill."""

    def do_GET(self) -> None:
        status = int(self.path.strip("/").split("?")[0].split("/")[0] or 200)
        self.send_response(status)
        self.send_header("Location", "/500")
        self.end_headers()
        if self.path == "/200/large":
            self.wfile.write(b"x" * 65_531 + b"needle")
        elif self.path == "/200/login":
            self.wfile.write(self.headers["Authorization"].encode())
        elif status == 200:
            self.wfile.write(b"all is wohl")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        """Stay silent."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def _server(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """Accept one connection at a time and let `talk` have it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _drip(connection: socket.socket) -> None:
    """Answer a byte at a time, each in good time, and never come to an end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    try:
        while True:
            connection.sendall(b"x")
            time.sleep(0.01)
    except OSError:
        return


@pytest.fixture
def probes(tmp_path: Path) -> Probes:
    return Probes(tmp_path, {"PATH": "/usr/bin:/bin", "NAME": "value"})


@pytest.mark.parametrize(
    ("status", "healthy"), [(200, True), (204, True), (302, True), (404, False), (503, False)]
)
def test_http_is_judged_by_its_status(
    probes: Probes, address: str, status: int, *, healthy: bool
) -> None:
    """200 to 399 is healthy, also a redirect to a page that is ill: it is not followed."""
    result = probes.probe({"http": f"http://{address}/{status}"}, TIMEOUT_S)
    assert result == CheckResult(healthy, f"answers {status}")


@pytest.mark.parametrize(
    ("page", "text", "healthy"),
    [("", "all is wohl", True), ("200", "absent", False), ("200/large", "needle", False)],
)
def test_http_may_expect_a_text(
    probes: Probes, address: str, page: str, text: str, *, healthy: bool
) -> None:
    """A text that is expected must be in the first 64 KB."""
    result = probes.probe({"http": f"http://{address}/{page}", "expect": text}, TIMEOUT_S)
    assert result.healthy == healthy


def test_http_sends_name_and_password_and_does_not_tell(probes: Probes, address: str) -> None:
    """Credentials in the address are sent, and are not in what was seen."""
    check = {"http": f"http://ana:geheim%21@{address}/200/login", "expect": "YW5hOmdlaGVpbSE="}
    assert probes.probe(check, TIMEOUT_S) == CheckResult(True, "answers 200")


def test_a_slow_drip_is_late(probes: Probes) -> None:
    """The time is that of the whole probe, not of each byte."""
    with _server(_drip) as address:
        result = probes.probe({"http": f"http://{address}/", "expect": "never"}, 0.3)
    assert result == CheckResult(False, "no answer within 0.3 s")


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH\r\n", b"\0" * 1000, b"HTTP/1.1 x\r\n\r\n"])
def test_a_server_that_talks_something_else_is_ill(probes: Probes, said: bytes) -> None:
    """What answers, but not in HTTP, is ill and not an error."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(said)

    with _server(talk) as address:
        result = probes.probe({"http": f"http://{address}/"}, TIMEOUT_S)
    assert not result.healthy


def test_a_server_without_tls_is_ill(probes: Probes, address: str) -> None:
    """`https` of a server that speaks no TLS is ill."""
    result = probes.probe({"https": "x", "http": f"https://{address}/"}, TIMEOUT_S)
    assert result == CheckResult(False, "no TLS connection could be made")


def test_tcp_is_healthy_when_it_accepts(probes: Probes, address: str) -> None:
    """A port that somebody listens at is healthy, one that nobody does is ill."""
    assert probes.probe({"tcp": address}, TIMEOUT_S).healthy
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        result = probes.probe({"tcp": f"127.0.0.1:{port}"}, TIMEOUT_S)
    assert result == CheckResult(False, "connection refused")


@pytest.mark.parametrize(("code", "healthy"), [(0, True), (3, False)])
def test_a_command_is_healthy_when_it_exits_with_0(
    probes: Probes, code: int, *, healthy: bool
) -> None:
    """The exit code decides, and is what was seen."""
    result = probes.probe({"command": ["sh", "-c", f"exit {code}"]}, TIMEOUT_S)
    assert result == CheckResult(healthy, f"exit {code}")


def test_a_command_runs_in_the_repository(probes: Probes, tmp_path: Path) -> None:
    """A command has the given folder and environment."""
    (tmp_path / "here").write_text("")
    script = 'test -e here && test "$NAME" = value'
    assert probes.probe({"command": ["sh", "-c", script]}, TIMEOUT_S).healthy


def test_a_command_that_hangs_is_ended_with_its_children(probes: Probes, tmp_path: Path) -> None:
    """A late command is ill, and nothing that it started is left over."""
    held = tmp_path / "fifo"
    script = f"mkfifo {held}; (exec 3<>{held}; sleep 600) & echo $! > pid; sleep 600"
    result = probes.probe({"command": ["sh", "-c", script]}, 0.5)
    assert result == CheckResult(False, "no answer within 0.5 s")
    child = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and _state(child) != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "Z"


@pytest.mark.parametrize(
    "check",
    [
        {},
        {"sql": "SELECT 1"},
        {"http": 1},
        {"command": []},
        {"command": "ls"},
        {"tcp": None},
        {"http": "ftp://127.0.0.1/"},
        {"http": "http://"},
        {"http": "http://127.0.0.1:99999/"},
        {"http": "http://127.0.0.1/\r\nX: y"},
        {"http": "http://[::1/"},
        {"http": ""},
        {"tcp": "127.0.0.1"},
        {"tcp": "127.0.0.1:x"},
        {"tcp": ""},
        {"command": ["/no/such/program"]},
        {"command": ["a\0b"]},
        {"command": ["/"]},
    ],
)
def test_what_cannot_be_probed_is_ill(probes: Probes, check: Mapping[str, Any]) -> None:
    """A check that makes no sense is ill, whatever is wrong with it; nothing is raised."""
    assert not probes.probe(check, TIMEOUT_S).healthy


def test_a_fake_says_what_it_was_told() -> None:
    """The fake gives its results in order, then the last one for ever; an unknown check is ill."""
    fake = FakeChecks()
    checks: Checks = fake
    well, ill = CheckResult(True, "answers 200"), CheckResult(False, "answers 503")
    fake.set({"tcp": "a:1"}, well, ill)
    assert [checks.probe({"tcp": "a:1"}, 1) for _ in range(3)] == [well, ill, ill]
    assert not checks.probe({"tcp": "b:1"}, 1).healthy
    assert fake.asked == [{"tcp": "a:1"}] * 3 + [{"tcp": "b:1"}]
