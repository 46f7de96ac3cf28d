"""What every answer has, whoever is asked: an id, a line in the log, a problem for each error.

Rules:
- Every error is a problem document; nothing of a defect is told but its request's id.
- A body is read within its bounds of size and time, or not at all.
"""

from __future__ import annotations

import asyncio
import re
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from handrail.api import logs, problems, telemetry
from handrail.api.problems import problem_of, status_of
from handrail.api.server import Bounds, Server
from handrail.core.people import Token
from handrail.errors import HandrailError, RefusedError, UsageError
from handrail.plans.canonical import sha256

HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
JSON = "application/json"
# All of them come to us: an unknown one is a problem document, too.
ALL_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"]
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


class Slow(Exception):  # noqa: N818  no error: an answer
    """Too many requests: the next may come in so many seconds."""

    def __init__(self, wait_s: int) -> None:
        self.wait_s = wait_s


def request_id(request: Request) -> str:
    """Return what a request is known by: its own name for it, where that is fit for a log."""
    known: str = getattr(request.state, "name", "")
    if not known:
        given = request.headers.get("x-request-id", "")
        known = (
            given if _REQUEST_ID.fullmatch(given) else sha256(f"{id(request)}{time.time_ns()}")[:16]
        )
        request.state.name = known
    return known


async def logged(
    server: Server, request: Request, label: str, respond: Callable[[], Awaitable[Response]]
) -> Response:
    """Return what `respond` gives, or the problem that it raises; counted, timed and logged."""
    name, began = request_id(request), time.perf_counter()
    with telemetry.span("request", route=label, request=name):
        response = await _caught(name, respond)
    seconds = time.perf_counter() - began
    server.metrics.requests.labels(label, str(response.status_code)).inc()
    server.metrics.request_s.labels(label).observe(seconds)
    token: Token | None = getattr(request.state, "token", None)
    logs.tell(
        "request",
        request=name,
        route=label,
        status=response.status_code,
        ms=round(seconds * 1000, 1),
        person=token.person if token else None,
        token=token.id if token else None,
    )
    response.headers["X-Request-Id"] = name
    return response


async def _caught(name: str, respond: Callable[[], Awaitable[Response]]) -> Response:
    try:
        return await respond()
    except Slow as slow:
        many = RefusedError("api.too-many", f"too many requests; the next in {slow.wait_s} s")
        return problem(many, name, {"Retry-After": str(slow.wait_s)})
    except HandrailError as error:
        return problem(error, name)
    except ClientDisconnect:
        return Response(status_code=400)
    except Exception as error:  # noqa: BLE001  the last place: a defect is told, and survived
        return told_defect(error, name)


def told_defect(error: Exception, name: str) -> Response:
    """Return the answer to a request that met a defect; the log has the rest."""
    logs.tell(
        "defect", level="error", request=name, trace="".join(traceback.format_exception(error))
    )
    said = HandrailError("internal", "a defect of Handrail", hint="the server's log has more")
    return problem(said, name)


def problem(error: HandrailError, name: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error as it is answered."""
    status = status_of(error)
    more = dict(headers or {})
    if status == 401 and error.code != "deploys.hook":  # noqa: PLR2004  who are you
        more["WWW-Authenticate"] = "Bearer"
    if status in {429, 503}:
        more.setdefault("Retry-After", "5")
    content = msgspec.json.encode(problem_of(error, name))
    return Response(content, status, {**HEADERS, **more}, media_type=problems.CONTENT_TYPE)


def not_allowed(methods: str, name: str) -> Response:
    """Return the answer to a method that an address does not take."""
    said = UsageError("api.method", f"this address takes {methods}")
    return problem(said, name, {"Allow": methods})


async def body_of(bounds: Bounds, request: Request) -> bytes:
    """Return the body.

    Raises:
        UsageError: it is too large, or did not arrive in time.
    """
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > bounds.body_bytes:
        raise _too_large(bounds.body_bytes)
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(bounds.body_s):
            async for piece in request.stream():
                size += len(piece)
                if size > bounds.body_bytes:
                    raise _too_large(bounds.body_bytes)
                pieces.append(piece)
    except TimeoutError:
        raise UsageError(
            "api.too-slow", f"the body did not arrive within {bounds.body_s:.0f} s"
        ) from None
    return b"".join(pieces)


def is_json(request: Request) -> bool:
    """Whether a body is JSON by its own word: no form of a web page can say so."""
    kind = request.headers.get("content-type", "").partition(";")[0]
    return kind.strip().lower() == JSON


def _too_large(limit: int) -> UsageError:
    return UsageError("api.too-large", f"a body has at most {limit:,} bytes")
