"""The application: from a request to an answer, the same way for every address.

Rules:
- In this order: is it an address, does the server take it, who asks, how often, what is asked (with
  bounds on size and time), may they; only then is anything done.
- Every error is a problem document; nothing of a defect is told but its request's id.
- What takes long is done in a thread; a stream holds none.
"""

from __future__ import annotations

import asyncio
import re
import time
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route as Address

from handrail.api import logs, once, problems, telemetry
from handrail.api.health import health_routes
from handrail.api.problems import problem_of, status_of
from handrail.api.route import Answer, Asked, Route
from handrail.api.routes import ROUTES
from handrail.api.server import Server
from handrail.core import people
from handrail.core.people import Token
from handrail.core.world import Declared
from handrail.errors import HandrailError, RefusedError, UsageError
from handrail.plans import decoding
from handrail.plans.canonical import encode_plain, sha256

_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
_JSON = "application/json"


def make_app(server: Server) -> Starlette:
    """Return the application of one server."""
    addresses: dict[str, dict[str, Route]] = {}
    for route in ROUTES:
        addresses.setdefault(route.path, {})[route.method] = route
    found = [
        Address(_pattern(path), _endpoint(server, of), methods=_ALL)
        for path, of in addresses.items()
    ]
    return Starlette(
        routes=[*health_routes(server), *found],
        exception_handlers={HTTPException: _unknown, Exception: _defect},
    )


# All of them come to us: an unknown one is a problem document, too.
_ALL = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"]


def _pattern(path: str) -> str:
    return path.replace("{number}", "{number:int}")


async def _unknown(request: Request, error: Exception) -> Response:
    del error
    said = UsageError("api.not-found", "there is nothing at that address", hint="/v1/openapi.json")
    return _problem(said, _request_id(request))


async def _defect(request: Request, error: Exception) -> Response:
    return _told_defect(error, _request_id(request))


def _told_defect(error: Exception, name: str) -> Response:
    logs.tell(
        "defect", level="error", request=name, trace="".join(traceback.format_exception(error))
    )
    said = HandrailError("internal", "a defect of Handrail", hint="the server's log has more")
    return _problem(said, name)


def _request_id(request: Request) -> str:
    known: str = getattr(request.state, "name", "")
    if not known:
        given = request.headers.get("x-request-id", "")
        known = (
            given if _REQUEST_ID.fullmatch(given) else sha256(f"{id(request)}{time.time_ns()}")[:16]
        )
        request.state.name = known
    return known


def _endpoint(server: Server, of: Mapping[str, Route]) -> Callable[[Request], Any]:
    """Return what answers requests of every method to one address."""

    async def answer(request: Request) -> Response:
        name, began = _request_id(request), time.perf_counter()
        method = "GET" if request.method == "HEAD" else request.method
        route = of.get(method)
        label = route.name if route else f"? {request.scope['route'].path}"
        with telemetry.span("request", route=label, request=name):
            response = await _answer(server, route, request, of)
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

    return answer


async def _answer(
    server: Server, route: Route | None, request: Request, of: Mapping[str, Route]
) -> Response:
    name = _request_id(request)
    try:
        if route is None:
            allowed = ", ".join(sorted(of))
            said = UsageError("api.method", f"this address takes {allowed}")
            return _problem(said, name, {"Allow": allowed})
        token = await _person(server, request)
        _insist_on_time(server, route, token)
        query = _query(route, request)
        content = await _content(server, route, request)
        body = _body(route, content)
        key = request.headers.get("idempotency-key", "") if route.is_once else ""
        return await run_in_threadpool(
            _do, server, route, token, dict(request.path_params), query, body, key, name, content
        )
    except _Slow as slow:
        many = RefusedError("api.too-many", f"too many requests; the next in {slow.wait_s} s")
        return _problem(many, name, {"Retry-After": str(slow.wait_s)})
    except HandrailError as error:
        return _problem(error, name)
    except ClientDisconnect:
        return Response(status_code=400)
    except Exception as error:  # noqa: BLE001  the last place: a defect is told, and survived
        return _told_defect(error, name)


def _insist_on_time(server: Server, route: Route, token: Token) -> None:
    """Raise when the server does not take this request now."""
    wait_s = server.limits.wait_s(token.id)
    if wait_s:
        raise _Slow(wait_s)
    if server.is_draining and route.begins:
        raise RefusedError("api.draining", "the server is about to end: it begins nothing")


class _Slow(Exception):  # noqa: N818  no error: an answer
    def __init__(self, wait_s: int) -> None:
        self.wait_s = wait_s


async def _person(server: Server, request: Request) -> Token:
    """Return the token of a request; one that shows many wrong ones has to wait."""
    given = request.headers.get("authorization", "")
    scheme, _, text = given.partition(" ")
    client = request.client.host if request.client else "socket"
    shown = text.strip() if scheme.lower() == "bearer" else ""
    try:
        token = await run_in_threadpool(server.register.find, shown)
    except RefusedError:
        wait_s = server.wrong.wait_s(client)
        if wait_s:
            raise _Slow(wait_s) from None
        raise
    request.state.token = token
    return token


def _query(route: Route, request: Request) -> Any:
    given = request.query_params.multi_items()
    if route.query is None:
        if given:
            raise UsageError("api.request", f"this address takes no `{given[0][0][:80]}`")
        return None
    if len({key for key, _ in given}) != len(given):
        raise UsageError("api.request", "a parameter is given twice")
    try:
        return decoding.decode(dict(given), route.query, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError("api.request", f"the query is not right: {error}") from error


async def _content(server: Server, route: Route, request: Request) -> bytes:
    """Return the body, within its bounds of size and time."""
    bounds = server.bounds
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
    if size and route.body is None:
        raise UsageError("api.request", "this address takes no body")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if route.body is not None and kind != _JSON:
        raise UsageError("api.request", f"the body must be {_JSON}")
    return b"".join(pieces)


def _too_large(limit: int) -> UsageError:
    return UsageError("api.too-large", f"a body has at most {limit:,} bytes")


def _body(route: Route, content: bytes) -> Any:
    if route.body is None:
        return None
    try:
        return decoding.decode_json(content, route.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError("api.request", f"the body is not right: {error}") from error


def _do(
    server: Server,
    route: Route,
    token: Token,
    path: dict[str, Any],
    query: Any,
    body: Any,
    key: str,
    name: str,
    content: bytes,
) -> Response:
    """See whether the person may, and do it. In a thread."""
    declared: Declared = server.declarations.now(at_once=route.begins)
    world = replace(server.world, person=token.person)
    texts = {part: str(value) for part, value in path.items()}
    asked = Asked(server, world, declared, token, texts, query, body)
    # The role in general first: whoever has it nowhere learns nothing of what is there.
    people.insist(declared.policy, token, route.role, ())
    people.insist(declared.policy, token, route.role, route.on(asked))
    said = f"{route.name} {sorted(texts.items())} {content.decode('utf-8', 'replace')}"
    answered = once.answer(world, key, said, lambda: route.do(asked))
    return _response(answered, name)


def _response(answered: Answer, name: str) -> Response:
    headers = {**_HEADERS, **answered.headers}
    if answered.stream is not None:
        return StreamingResponse(
            _guarded(answered.stream, name), headers=headers, media_type=answered.content_type
        )
    kind, value = answered.content_type, answered.value
    if kind == "problem":
        kind = problems.CONTENT_TYPE
        value = msgspec.to_builtins(value) | {"request": name}
    return Response(_encoded(value), answered.status, headers, media_type=kind)


async def _guarded(stream: AsyncIterator[bytes], name: str) -> AsyncIterator[bytes]:
    """Pass a stream on; one that fails ends, and the log has why."""
    try:
        async for piece in stream:
            yield piece
    except HandrailError as error:
        logs.tell("stream", level="warning", request=name, text=error.message)


def _encoded(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # a name of a file that is no UTF-8
        return encode_plain(msgspec.to_builtins(value)).encode()


def _problem(error: HandrailError, name: str, headers: Mapping[str, str] | None = None) -> Response:
    status = status_of(error)
    more = dict(headers or {})
    if status == 401:  # noqa: PLR2004  who are you
        more["WWW-Authenticate"] = "Bearer"
    if status in {429, 503}:
        more.setdefault("Retry-After", "5")
    content = msgspec.json.encode(problem_of(error, name))
    return Response(content, status, {**_HEADERS, **more}, media_type=problems.CONTENT_TYPE)
