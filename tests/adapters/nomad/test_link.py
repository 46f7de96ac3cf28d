"""The client of Nomad's API: what it asks, what it believes, and what its errors say."""

from __future__ import annotations

import socket
import traceback
from collections.abc import Iterator
from contextlib import closing

import pytest

from handrail.adapters.nomad import link as nomad_link
from handrail.adapters.nomad.link import Link, Where, segment
from handrail.errors import HandrailError, PlatformError, RefusedError
from support.nomad_answers import Answers, answering

TOKEN = "5f0e8d3c-a-secret-token"


@pytest.fixture
def server() -> Iterator[Answers]:
    with answering() as answers:
        yield answers


@pytest.fixture
def link(server: Answers) -> Iterator[Link]:
    with closing(Link("platform/prod", Where(server.url, TOKEN, timeout_s=5))) as made:
        yield made


def refused(link: Link) -> HandrailError:
    with pytest.raises(HandrailError) as caught:
        link.send("/v1/job/shop", {"Job": {}})
    return caught.value


def test_the_token_namespace_and_region_go_with_every_question(server: Answers) -> None:
    """The token is a header; namespace and region are parameters."""
    where = Where(server.url, TOKEN, namespace="shop", region="eu")
    with closing(Link("platform/prod", where)) as made:
        made.get("/v1/jobs")
    assert server.asked == ["GET /v1/jobs?namespace=shop&region=eu"]
    assert server.tokens == [TOKEN]


@pytest.mark.parametrize(
    ("status", "body", "code", "passes"),
    [
        (403, b"Permission denied", "platform.denied", False),
        (403, b"ACL token not found", "platform.denied", False),
        (500, b"No cluster leader", "platform.unreachable", True),
        (500, b"rpc error: EOF", "platform.unreachable", True),
        (404, b"No path to region", "platform.unreachable", True),
        (429, b"Too many requests", "platform.unreachable", True),
        (503, b"", "platform.unreachable", True),
        (500, b"something else", "platform.failed", False),
        (404, b"no such thing", "platform.failed", False),
        (200, b"<html>a login page</html>", "platform.failed", False),
        (200, b"[" * 100_000, "platform.failed", False),
    ],
)
def test_each_answer_is_one_kind_of_error(
    server: Answers, link: Link, status: int, body: bytes, code: str, *, passes: bool
) -> None:
    """Only what another attempt may help with is passing."""
    server.status, server.body = status, body
    error = refused(link)
    assert error.code == code
    assert isinstance(error, PlatformError)
    assert error.is_passing is passes
    assert "platform/prod" in error.message


def test_a_lost_compare_and_set_is_a_refusal(server: Answers, link: Link) -> None:
    """The cluster's own words about the index are a refusal, not a failure."""
    server.status = 500
    server.body = b"Enforcing job modify index 12: job exists with conflicting job modify index: 13"
    error = refused(link)
    assert isinstance(error, RefusedError)
    assert error.code == "platform.moved"


def test_a_redirect_is_not_followed(server: Answers, link: Link) -> None:
    """Another address gets neither the question nor the token."""
    with answering() as elsewhere:
        server.status = 307
        server.headers = {"Location": f"{elsewhere.url}/v1/jobs"}
        with pytest.raises(PlatformError, match="redirects are not followed"):
            link.get("/v1/jobs")
        assert elsewhere.asked == []


def test_an_answer_without_an_end_is_not_read(
    server: Answers, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than the bound is refused, however valid."""
    monkeypatch.setattr(nomad_link, "ANSWER_BYTES", 1024 * 1024)
    server.body = b" " * (1024 * 1024) + b"1"
    with pytest.raises(PlatformError, match="answers more than 1 MiB"):
        link.get("/v1/jobs")


def test_what_reads_is_asked_again_once_when_the_connection_is_cut(
    server: Answers, link: Link
) -> None:
    """A kept connection that the other end closed is nobody's failure; two in a row are."""
    server.drops = 1
    assert link.get("/v1/jobs").body is None
    assert len(server.asked) == 2
    server.drops = 2
    with pytest.raises(PlatformError) as caught:
        link.get("/v1/jobs")
    assert caught.value.is_passing
    assert len(server.asked) == 4


def test_what_changes_something_is_never_sent_twice(server: Answers, link: Link) -> None:
    """A POST that was cut may have been done: whoever asked looks first."""
    server.drops = 1
    error = refused(link)
    assert isinstance(error, PlatformError)
    assert (error.code, error.is_passing) == ("platform.unreachable", True)
    assert len(server.asked) == 1


def test_nobody_there_is_passing() -> None:
    """A refused connection is worth another attempt."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    with closing(Link("platform/prod", Where(f"http://127.0.0.1:{port}", TOKEN))) as made:
        error = refused(made)
    assert isinstance(error, PlatformError)
    assert (error.code, error.is_passing) == ("platform.unreachable", True)
    assert f"127.0.0.1:{port}" in error.message


def test_silence_ends_in_time() -> None:
    """A server that takes the question and says nothing is given up."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = Where(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2)
        with closing(Link("platform/prod", where)) as made:
            with pytest.raises(PlatformError, match="does not answer in time") as caught:
                made.get("/v1/jobs")
    assert caught.value.is_passing


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:4646", "ftp://x", "http://", "http://[", "http://a:b@c:x/", "unix://"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    """Before anything is asked; what was written is not shown, it may hold a password."""
    with pytest.raises(PlatformError) as caught:
        Link("platform/prod", Where(url))
    assert "a:b" not in caught.value.message


def test_no_secret_is_in_any_text(server: Answers) -> None:
    """Neither token nor password is in the text of a value, an error or its traceback."""
    url = server.url.replace("http://", "http://ana:hunter2@")
    where = Where(url, TOKEN)
    server.status, server.body = 500, b"x"
    with closing(Link("platform/prod", where)) as made:
        with pytest.raises(PlatformError) as caught:
            made.get("/v1/jobs")
        told = "".join(traceback.format_exception(caught.value)) + repr(where) + made.endpoint
    for secret in (TOKEN, "hunter2"):
        assert secret not in told


def test_a_name_is_one_part_of_a_path() -> None:
    """Whatever stands in a job's name, it does not leave its place."""
    assert segment("../acl/token?x=1#y") == "..%2Facl%2Ftoken%3Fx%3D1%23y"
