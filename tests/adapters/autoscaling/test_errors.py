"""What AWS answers with an error, or not at all, and that no secret is told with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from botocore.exceptions import ClientError

from handrail.adapters.autoscaling.asking import Aws, translated
from handrail.adapters.autoscaling.machines import AutoscalingMachines
from handrail.errors import HandrailError, PlatformError
from support import aws

TOKEN = "session-token-never-shown"
ERROR = (
    "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code>"
    "<Message>{message}</Message></Error></ErrorResponse>"
)


@contextmanager
def answering(status: int, code: str, message: str) -> Iterator[str]:
    """Serve one error for everything, on loopback."""

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            text = ERROR.format(code=code, message=message).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *words: object) -> None:  # noqa: A002  the library's
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in aws.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)


def machines(url: str, region: str = aws.REGION, **environment: str) -> AutoscalingMachines:
    return AutoscalingMachines(Aws("platform/aws", region, url, aws.ENVIRONMENT | environment))


def caught(ask: Callable[[], object]) -> HandrailError:
    with pytest.raises(HandrailError) as found:
        ask()
    return found.value


@pytest.mark.parametrize(
    ("status", "code", "means"),
    [
        (403, "SignatureDoesNotMatch", "platform.denied"),
        (403, "InvalidClientTokenId", "platform.denied"),
        (403, "ExpiredToken", "platform.denied"),
    ],
)
def test_whoever_is_not_known_is_told_so_without_what_was_signed(
    status: int, code: str, means: str
) -> None:
    """AWS quotes the request where a signature is wrong: of that nothing is passed on."""
    quoted = f"The canonical string was: x-amz-security-token:{TOKEN} {aws.SECRET}"
    with answering(status, code, quoted) as url:
        error = caught(machines(url).identify)
    assert (error.code, code in error.message) == (means, True)
    told = f"{error} {error.hint} {error.as_json()}"
    assert TOKEN not in told
    assert aws.SECRET not in told


def test_what_is_not_allowed_is_told(tmp_path: object) -> None:
    """As AWS says it: which right, for whom."""
    del tmp_path
    said = "User: arn:aws:iam::1:user/ana is not authorized to perform: sts:GetCallerIdentity"
    with answering(403, "AccessDenied", said) as url:
        error = caught(machines(url).identify)
    assert error.code == "platform.denied"
    assert said in error.message


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "Throttling"),
        (400, "RequestLimitExceeded"),
        (400, "ScalingActivityInProgress"),
        (503, "Unknown"),
        (500, "InternalFailure"),
    ],
)
def test_what_passes_is_worth_another_try(status: int, code: str) -> None:
    """Throttled, busy, or AWS's own fault."""
    told = {
        "Error": {"Code": code, "Message": "slow\x1b[2Jdown"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    error = translated("platform/aws", ClientError(told, "EnterStandby"))
    assert isinstance(error, PlatformError)
    assert error.is_passing


def test_what_aws_says_moves_nobodys_cursor() -> None:
    """An escape sequence in its answer is made visible, and a long one is cut."""
    told = {"Error": {"Code": "ValidationError", "Message": "no\x1b[2J" + "x" * 9999}}
    error = translated("platform/aws", ClientError(told, "DetachInstances"))
    assert isinstance(error, PlatformError)
    assert (error.code, error.is_passing) == ("platform.failed", False)
    assert "\x1b" not in error.message
    assert len(error.message) < 500


def test_nobody_answers() -> None:
    """It is passing; the address is not told with what else may stand in it."""
    error = caught(machines("http://127.0.0.1:9").identify)
    assert isinstance(error, PlatformError)
    assert (error.code, error.is_passing) == ("platform.unreachable", True)


def test_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what would show them."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    error = caught(machines("http://127.0.0.1:9", AWS_ACCESS_KEY_ID="").identify)
    assert error.code == "platform.denied"
    assert "aws sts get-caller-identity" in error.hint


def test_without_a_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says where to write it."""
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    error = caught(machines("http://127.0.0.1:9", region="", AWS_X="no region").identify)
    assert "region" in error.message


@pytest.mark.parametrize("url", ["no-address", f"htt p://ana:{aws.SECRET}@127.0.0.1"])
def test_an_address_that_is_none(url: str) -> None:
    """It is an error of the platform, and no defect; what stands in it is not told."""
    error = caught(machines(url).identify)
    assert error.code == "platform.failed"
    assert aws.SECRET not in str(error.as_json())


def test_a_password_in_an_address_is_no_part_of_who_it_is() -> None:
    """The endpoint is host and port."""
    found = Aws("platform/aws", aws.REGION, f"http://ana:{aws.SECRET}@127.0.0.1:9", {})
    assert found.endpoint == "127.0.0.1:9"
