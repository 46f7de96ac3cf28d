"""What is asked without a token, and says nothing of anybody: health, readiness, the description.

Rules:
- `/healthz`: the process answers. `/readyz`: it would take work: the journal can be written, the
  declarations can be read, it is not about to end.
- `/metrics` wants a token like any other address.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as Address

from handrail.api import metrics, problems
from handrail.api.server import Server
from handrail.core import people, surveying
from handrail.errors import HandrailError, JournalError


def health_routes(server: Server) -> list[Address]:
    """Return the addresses that are not of the API itself."""

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        why = await run_in_threadpool(unready, server)
        return JSONResponse({"ready": not why, "why": why}, 503 if why else 200)

    async def measured(request: Request) -> Response:
        text = request.headers.get("authorization", "").partition(" ")[2]
        try:
            token = await run_in_threadpool(server.register.find, text)
            await run_in_threadpool(_look, server, token)
        except HandrailError as error:
            problem = problems.problem_of(error)
            content = {"code": problem.code, "detail": problem.detail, "status": problem.status}
            return JSONResponse(content, problem.status, media_type=problems.CONTENT_TYPE)
        return Response(server.metrics.text(), media_type=metrics.CONTENT_TYPE)

    async def description(_: Request) -> Response:
        from handrail.api.openapi import description as describe  # noqa: PLC0415  made once asked

        return JSONResponse(describe())

    return [
        Address("/healthz", health, methods=["GET"]),
        Address("/readyz", ready, methods=["GET"]),
        Address("/metrics", measured, methods=["GET"]),
        Address("/v1/openapi.json", description, methods=["GET"]),
    ]


def unready(server: Server) -> str:
    """Return why the server would not take work; empty when it would."""
    if server.is_draining:
        return "it is about to end"
    try:
        server.declarations.now()
        server.world.journal.last("tokens")
        _try_to_write(server.world.state)
    except HandrailError as error:
        return f"{error.code}: {error.message}"
    return ""


def _try_to_write(state: Path) -> None:
    """Write a block beside the journal: a record would tell the same, and stay for ever.

    Raises:
        JournalError: the disk is full, or read-only.
    """
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=state) as file:
            file.write(bytes(65536))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise JournalError("journal.unwritable", f"{state}: {error.strerror}") from error


def _look(server: Server, token: people.Token) -> None:
    declared = server.declarations.now()
    people.insist(declared.policy, token, "viewer", ())
    found = surveying.survey(server.world, declared)
    apps = [one.name for one in declared.estate.of_kinds(("app",))]
    server.metrics.count_apps(server.world.journal, apps)
    server.metrics.waiting.set(len(found["waiting"]))
    server.metrics.held.set(len(found["held"]))
    server.metrics.unfinished.set(len(found["unfinished"]))
    server.metrics.working.set(len(server.errands.working()))
