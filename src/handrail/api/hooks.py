"""Web hooks: `POST /hooks/deploy/{app}`, for CI and forges, who have no token but a secret.

Rules:
- In this order: is it POST, how often from there, the body with its bounds, who signed it, when,
  how often for that app; only then is a byte of the body read as anything.
- An app that is not there, one without a web hook, and a wrong signature give one answer. Nothing
  that is answered says more than what became of this push: why it was refused, the notice says.
- What is taken stands in the journal before it is answered; a copy of it gets the first answer.
- A flood costs bodies read, never processes: of one app one push is carried out at a time, of all
  of them at most half of what this server does at once.
"""

from __future__ import annotations

from threading import BoundedSemaphore
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Address

from handrail import wiring
from handrail.api import logs
from handrail.api.answering import (
    ALL_METHODS,
    HEADERS,
    JSON,
    Slow,
    body_of,
    is_json,
    logged,
    not_allowed,
    request_id,
)
from handrail.api.errand import Ask
from handrail.api.errands import Errand
from handrail.api.server import Server
from handrail.api.targets import on_of
from handrail.core import records
from handrail.core.world import Declared
from handrail.errors import HandrailError, RefusedError, UsageError
from handrail.kits.deploys import hook_bodies, hook_records, hook_signing, hooking
from handrail.kits.deploys.hook_bodies import Push
from handrail.kits.deploys.hook_records import Delivery
from handrail.kits.deploys.hook_signing import Signed

PATH = "/hooks/deploy/{app}"
NAME = f"POST {PATH}"
DOES = "Tell that an app's branch was pushed: deployed, or planned and waiting. Signed, no token."
KIND = "hook"
_DECIDED_S = 8.0
# Of the threads that answer requests at most so many wait until it is known what becomes of a push.
_WAITING = BoundedSemaphore(8)


class Hooked(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a push.

    Attributes:
        state: `ignored`, `taken` (not planned yet), `waiting`, `refused`, `begun`, `superseded`.
        delivery: what it is called here; empty where it was ignored.
        plan: digest of its plan; empty where there is none.
        verdict: of the plan: `allow`, `require`, `refuse`; empty without one.
        run: that was begun; 0 for none.
        why: why it was ignored; the code of the error where it was refused without a plan.
        next: the command that comes next, for a person.
    """

    app: str
    state: str
    delivery: str = ""
    commit: str = ""
    plan: str = ""
    verdict: str = ""
    run: int = 0
    why: str = ""
    next: str = ""


def hook_routes(server: Server) -> list[Address]:
    """Return the addresses that want a signature, and no token."""

    async def answer(request: Request) -> Response:
        label = NAME if request.method == "POST" else f"? {PATH}"
        return await logged(server, request, label, lambda: _hooked(server, request))

    return [Address(PATH, answer, methods=ALL_METHODS)]


async def _hooked(server: Server, request: Request) -> Response:
    name = request_id(request)
    if request.method != "POST":
        return not_allowed("POST", name)
    client = request.client.host if request.client else "socket"
    _slow_down(server.hooks_from.wait_s(client))
    if server.is_draining:
        raise RefusedError("api.draining", "the server is about to end: it begins nothing")
    content = await body_of(server.bounds, request)
    app, headers = request.path_params["app"], dict(request.headers)
    signed = await run_in_threadpool(_verified, server, app, headers, content)
    if signed is None:
        _slow_down(server.wrong.wait_s(client))
        raise RefusedError(
            "deploys.hook",
            "no app of that name has a web hook that this was signed for",
            hint="it is signed with the app's `auto.secret`: see the reference of the app",
        )
    if signed.is_late:
        raise RefusedError(
            "deploys.hook",
            f"it was signed {abs(signed.late_s)} s {'before' if signed.late_s > 0 else 'after'} "
            f"now, by this clock; at most {hook_signing.WINDOW_S} count",
            hint="sign it anew for each attempt, by a clock that is right",
        )
    _slow_down(server.hooks_of.wait_s(app))
    if not is_json(request):
        raise UsageError("api.request", f"the body must be {JSON}")
    event = headers.get("x-github-event") or headers.get("x-gitlab-event") or ""
    push = hook_bodies.read(signed.by, event, content)
    status, found = await run_in_threadpool(_take, server, app, signed, push, content)
    server.metrics.hooks.labels(found.state).inc()
    return Response(msgspec.json.encode(found), status, HEADERS, media_type=JSON)


def _slow_down(wait_s: int) -> None:
    if wait_s:
        raise Slow(wait_s)


def _verified(server: Server, app: str, headers: dict[str, str], content: bytes) -> Signed | None:
    """Return what was signed for an app; None where nobody did.

    Raises:
        HandrailError: what is declared cannot be read now; nothing of that is told.
    """
    try:
        declared = server.declarations.now()
    except HandrailError as error:
        logs.tell("hook", level="error", app=app[:80], code=error.code, text=error.message)
        raise RefusedError(
            "api.broken", "this server cannot read what is declared", hint="handrail check"
        ) from None
    auto = hooking.auto_of(declared.estate.resources.get(f"app/{app}"))
    keys = _keys(server, app, auto) if auto else ()
    now_s = server.world.clock.now().timestamp()
    takes_tokens = auto is not None and auto.tokens
    return hook_signing.verify(keys, headers, content, now_s, takes_tokens=takes_tokens)


def _keys(server: Server, app: str, auto: hooking.Auto) -> tuple[bytes, ...]:
    """Return the keys of an app; none, and a line in the log, where its secret is not set."""
    world = server.world
    resource = server.declarations.now().estate.resources[f"app/{app}"]
    try:
        secret = wiring.read_address(auto.secret, resource, world.root, world.environment)
    except HandrailError as error:
        secret = ""
        logs.tell("hook", level="error", app=app, code=error.code, text=error.message)
    keys = hook_signing.keys_of(secret)
    if not keys:
        least = hook_signing.SHORTEST_SECRET_CHARACTERS
        text = f"{auto.secret} holds no secret of {least} characters or more: nobody is let in"
        logs.tell("hook", level="error", app=app, text=text)
    return keys


def _take(
    server: Server, app: str, signed: Signed, push: Push, content: bytes
) -> tuple[int, Hooked]:
    """Take a push, and say what becomes of it, as soon as that is known. In a thread."""
    declared = server.declarations.now(at_once=True)
    auto = hooking.auto_of(declared.estate.resources.get(f"app/{app}"))
    branches = auto.branches if auto else ()
    why = push.nothing or ("" if push.branch in branches else "the branch is not in `auto`")
    if why:
        return 200, Hooked(app=app, state="ignored", commit=push.commit, why=why)
    name, is_new = hook_records.take(server.world, app, signed, push, content)
    if is_new:
        _carry_out(server, declared, app, name)
    one = hook_records.find(server.world, app, name)
    if one is None:
        raise AssertionError("a push that was taken has no record")
    return (202 if is_new else 200), told(one)


def _carry_out(server: Server, declared: Declared, app: str, name: str) -> None:
    """Begin with a push, and wait a while for what becomes of it."""
    errand = begin(server, declared, app, name)
    if errand is not None and _WAITING.acquire(blocking=False):
        try:
            errand.decided.wait(_DECIDED_S)
        finally:
            _WAITING.release()


def begin(server: Server, declared: Declared, app: str, name: str) -> Errand | None:
    """Start the errand that carries out a push; None where it has to wait for others."""
    working = [one for one in server.errands.working() if one.kind == KIND]
    is_working = any(one.asked and one.asked.delivery == name for one in working)
    if is_working or len(working) >= max(1, server.bounds.at_once // 2):
        return None
    world = server.world
    if world.locks.holder(hooking.lock_of(app)) is not None:
        return None
    ask = Ask(
        kind=KIND,
        person=hooking.person_of(app),
        root=str(world.root),
        state=str(world.state),
        operation=app,
        delivery=name,
    )
    try:
        errand = server.errands.begin(ask, on_of(declared, f"app/{app}"))
    except RefusedError as error:
        # It is taken; the next look begins with it.
        logs.tell("hook", level="warning", app=app, delivery=name, text=error.message)
        return None
    logs.tell("hook", app=app, delivery=name, errand=errand.id)
    return errand


def told(one: Delivery) -> Hooked:
    """Return what is answered of a push: the first word that it came to."""
    kind, body = one.first
    said: dict[str, Any] = {"app": one.app, "delivery": one.id, "commit": one.commit}
    if not kind:
        return Hooked(**said, state="taken", next="handrail runs")
    digest = str(body.get("plan", ""))
    said |= {
        "plan": digest,
        "verdict": str(body.get("verdict", "")),
        "run": int(body.get("run", 0)),
    }
    ways = {
        "begun": f"handrail runs show {said['run']}",
        "waiting": f"handrail approve {records.short(digest)}",
        "refused": f"handrail explain {records.short(digest)}" if digest else "",
    }
    why = str(body.get("code", "")) if kind == "refused" and not digest else ""
    return Hooked(**said, state=kind, why=why, next=ways.get(kind, ""))
