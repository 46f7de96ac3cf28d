"""What a server does not take: too much, too slow, too often, not as described, or at its end."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from handrail.api.limits import Limits
from support.served import Served, serving, until
from support.teams import ANA, make_team


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"operation": 1}',
        b'{"operation": ""}',
        b'{"operation": "reset-pilot", "more": 1}',
        b'{"operation": "reset-pilot", "parameters": {"a": 1}}',
        b"[" * 100_000,
        b'{"operation": "' + b"x" * 300 + b'"}',
    ],
)
def test_body_that_is_not_as_described(served: Served, body: bytes) -> None:
    """A body of another form is a 400 that says where, and nothing is done."""
    reply = served.ask("POST", "/v1/plans", raw=body)
    assert (reply.status, reply.json["code"]) == (400, "api.request")


def test_body_of_another_kind(served: Served) -> None:
    """A body that is not JSON by its own word is a 400: no form of a web page can send one."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        reply = served.ask("POST", "/v1/plans", raw=b"{}", headers={"Content-Type": kind})
        assert reply.status == 400


def test_body_that_is_too_large(served: Served) -> None:
    """A body over its limit is a 413: by its own word before it is read, and by what arrives."""
    token = served.token(ANA, "operator")
    said = served.ask("POST", "/v1/plans", raw=b" " * (1024 * 1024 + 1))
    assert (said.status, said.json["code"]) == (413, "api.too-large")
    connection = served.connected()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    pieces = (b" " * 65536 for _ in range(40))
    try:
        connection.request("POST", "/v1/plans", pieces, headers, encode_chunked=True)
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # it hung up in the middle of it: as good
    finally:
        connection.close()


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=1&limit=2", "unknown=1", "before="])
def test_query_that_is_not_as_described(served: Served, query: str) -> None:
    """A query of another form is a 400."""
    assert served.ask("GET", f"/v1/runs?{query}").status == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/v1/runs/x", 404),
        ("GET", "/v1/runs/-1", 404),
        ("GET", f"/v1/runs/{'9' * 400}", 404),
        ("GET", f"/v1/runs/{'9' * 18}", 404),
        ("GET", "/v1/plans/..%2f..%2fetc", 404),
        ("GET", "/v1/errands/%00", 404),
        ("PUT", "/v1/runs", 405),
        ("DELETE", "/v1/plans/abcd", 405),
        ("GET", "/v1/rehearsals", 405),
    ],
)
def test_address_that_is_not_there(served: Served, method: str, path: str, status: int) -> None:
    """An unknown address, run or method is a problem document like every error."""
    reply = served.ask(method, path)
    assert reply.status == status
    assert reply.headers["content-type"] == "application/problem+json"
    assert set(reply.json) >= {"type", "title", "status", "detail", "code", "exit_code"}


def test_every_answer_has_an_id(served: Served) -> None:
    """A request's id, its own where it is fit for a log, is in its answer and in the log."""
    own = served.ask("GET", "/v1/whoami", headers={"X-Request-Id": "own-1"})
    assert own.headers["x-request-id"] == "own-1"
    unfit = served.ask("GET", "/v1/whoami", headers={"X-Request-Id": 'a"b'})
    assert unfit.headers["x-request-id"] not in {"", 'a"b'}
    until(lambda: any('"own-1"' in line for line in served.logged))
    line = next(json.loads(line) for line in served.logged if '"own-1"' in line)
    assert (line["person"], line["route"], line["status"]) == (ANA, "GET /v1/whoami", 200)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that answers two requests a second."""
    team = make_team(tmp_path_factory.mktemp("strict") / "team")
    with serving(team, "--rate", "2") as running:
        yield running


def test_too_often(strict: Served) -> None:
    """Beyond its rate a token is told when the next request may come; others are answered."""
    replies = [strict.ask("GET", "/v1/whoami") for _ in range(12)]
    slow = [reply for reply in replies if reply.status == 429]
    assert slow
    assert int(slow[0].headers["retry-after"]) >= 1
    assert slow[0].json["code"] == "api.too-many"
    other = strict.token("ben@pilot.example", "viewer")
    assert strict.ask("GET", "/v1/whoami", token=other).status == 200


def test_wrong_tokens_too_often(strict: Served) -> None:
    """Whoever guesses tokens has to wait, whether the next one is right or not."""
    statuses = {strict.ask("GET", "/v1/whoami", token="wrong").status for _ in range(60)}
    assert statuses == {401, 429}


def test_bucket() -> None:
    """A bucket gives its burst at once, then its rate; and one name's requests cost no other's."""
    now = 0.0
    limits = Limits(2.0, 3, lambda: now)
    assert [limits.wait_s("a") for _ in range(4)] == [0, 0, 0, 1]
    assert limits.wait_s("b") == 0
    now = 0.5
    assert [limits.wait_s("a"), limits.wait_s("a")] == [0, 1]


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that waits half a second for a request."""
    team = make_team(tmp_path_factory.mktemp("impatient") / "team")
    with serving(team, "--patience", "0.5") as running:
        yield running


@pytest.mark.parametrize(
    "sent", [b"", b"GET /v1/whoami HT", b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n"]
)
def test_client_that_says_nothing(impatient: Served, sent: bytes) -> None:
    """Who connects and does not finish a request's first lines is hung up on."""
    parts = urlsplit(impatient.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as one:
        one.sendall(sent)
        assert one.recv(1000) == b""
    assert impatient.ask("GET", "/healthz", token=None).status == 200


def test_client_that_dawdles_over_its_body(impatient: Served) -> None:
    """A body that does not arrive in time is a 408."""
    token = impatient.token(ANA, "operator")
    connection = impatient.connected()
    try:
        connection.putrequest("POST", "/v1/plans")
        connection.putheader("Authorization", f"Bearer {token}")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", "100")
        connection.endheaders(b'{"oper')
        assert connection.getresponse().status == 408
    finally:
        connection.close()


def test_request_that_makes_no_sense(served: Served) -> None:
    """What is no HTTP is answered with 400, or hung up on; the server goes on."""
    parts = urlsplit(served.url)
    for sent in (
        b"\x16\x03\x01\x02\x00\x01",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"b" * 99999,
    ):
        with socket.create_connection((parts.hostname, parts.port), timeout=20) as one:
            one.sendall(sent + b"\r\n\r\n")
            assert one.recv(12) in {b"", b"HTTP/1.1 400"}
    assert served.ask("GET", "/healthz", token=None).status == 200


def test_broken_declarations(tmp_path: Path) -> None:
    """With broken declarations nobody's rights are known: 422 that names file and line, not ready.

    Corrected, all is as before, without a restart.
    """
    team = make_team(tmp_path / "team")
    with serving(team) as served:
        assert served.ask("POST", "/v1/plans", {"operation": "reset-pilot"}).status == 201
        team.write({"policy.yaml": "guards: {nonsense: high}\n"})
        broken = served.ask("POST", "/v1/plans", {"operation": "reset-pilot"})
        assert broken.status == 422
        assert (broken.json["file"], broken.json["line"]) == ("policy.yaml", 1)
        assert served.ask("GET", "/readyz", token=None).status == 503
        assert served.call("plan", "reset-pilot").code == 2
        team.write({"policy.yaml": ""})
        assert served.ask("POST", "/v1/plans", {"operation": "reset-pilot"}).status == 201
        assert served.ask("GET", "/readyz", token=None).status == 200


def test_keep_alive(served: Served) -> None:
    """One connection carries many requests."""
    connection = served.connected()
    headers = {"Authorization": f"Bearer {served.token(ANA, 'operator')}"}
    try:
        for _ in range(5):
            connection.request("GET", "/v1/whoami", headers=headers)
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (http.client.OK, True)
    finally:
        connection.close()
