"""The application: from a request to an answer, the same way for every address.

Rules:
- In this order: is it an address, does the server take it, who asks, how often, what is asked (with
  bounds on size and time), may they; only then is anything done.
- Every error is a problem document; nothing of a defect is told but its request's id.
- What takes long is done in a thread; a stream holds none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route as Address

from handrail.api import logs, once, problems
from handrail.api.answering import (
    ALL_METHODS,
    HEADERS,
    JSON,
    Slow,
    body_of,
    is_json,
    logged,
    not_allowed,
    problem,
    request_id,
    told_defect,
)
from handrail.api.health import health_routes
from handrail.api.hooks import hook_routes
from handrail.api.route import Answer, Asked, Route
from handrail.api.routes import ROUTES
from handrail.api.server import Server
from handrail.core import people
from handrail.core.people import Token
from handrail.core.world import Declared
from handrail.errors import HandrailError, RefusedError, UsageError
from handrail.plans import decoding
from handrail.plans.canonical import encode_plain


def make_app(server: Server) -> Starlette:
    """Return the application of one server."""
    addresses: dict[str, dict[str, Route]] = {}
    for route in ROUTES:
        addresses.setdefault(route.path, {})[route.method] = route
    found = [
        Address(_pattern(path), _endpoint(server, of), methods=ALL_METHODS)
        for path, of in addresses.items()
    ]
    return Starlette(
        routes=[*health_routes(server), *hook_routes(server), *found],
        exception_handlers={HTTPException: _unknown, Exception: _defect},
    )


def _pattern(path: str) -> str:
    return path.replace("{number}", "{number:int}")


async def _unknown(request: Request, error: Exception) -> Response:
    del error
    said = UsageError("api.not-found", "there is nothing at that address", hint="/v1/openapi.json")
    return problem(said, request_id(request))


async def _defect(request: Request, error: Exception) -> Response:
    return told_defect(error, request_id(request))


def _endpoint(server: Server, of: Mapping[str, Route]) -> Callable[[Request], Any]:
    """Return what answers requests of every method to one address."""

    async def answer(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        route = of.get(method)
        label = route.name if route else f"? {request.scope['route'].path}"
        return await logged(server, request, label, lambda: _answer(server, route, request, of))

    return answer


async def _answer(
    server: Server, route: Route | None, request: Request, of: Mapping[str, Route]
) -> Response:
    name = request_id(request)
    if route is None:
        return not_allowed(", ".join(sorted(of)), name)
    token = await _person(server, request)
    _insist_on_time(server, route, token)
    query = _query(route, request)
    content = await _content(server, route, request)
    body = _body(route, content)
    key = request.headers.get("idempotency-key", "") if route.is_once else ""
    return await run_in_threadpool(
        _do, server, route, token, dict(request.path_params), query, body, key, name, content
    )


def _insist_on_time(server: Server, route: Route, token: Token) -> None:
    """Raise when the server does not take this request now."""
    wait_s = server.limits.wait_s(token.id)
    if wait_s:
        raise Slow(wait_s)
    if server.is_draining and route.begins:
        raise RefusedError("api.draining", "the server is about to end: it begins nothing")


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
            raise Slow(wait_s) from None
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
    """Return the body, where the address takes one."""
    content = await body_of(server.bounds, request)
    if content and route.body is None:
        raise UsageError("api.request", "this address takes no body")
    if route.body is not None and not is_json(request):
        raise UsageError("api.request", f"the body must be {JSON}")
    return content


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
    headers = {**HEADERS, **answered.headers}
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
