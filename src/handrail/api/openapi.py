"""The description of the API in OpenAPI 3.1, from the table of routes and the types they name."""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec

from handrail.api import hooks
from handrail.api.problems import CONTENT_TYPE, Problem
from handrail.api.route import Route
from handrail.api.routes import ROUTES
from handrail.kits.deploys.hook_bodies import Pushed

_AT = "#/components/schemas/{name}"
_PARTS: dict[str, dict[str, Any]] = {
    "number": {"type": "integer", "minimum": 1, "maximum": 10**15},
    "digest": {"type": "string", "pattern": "^[0-9a-f]{4}-?[0-9a-f]{1,60}$"},
    "operation": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"},
    "app": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"},
    "id": {"type": "string", "pattern": "^[0-9a-f]{1,32}$"},
}
# What any address may answer besides what it is for.
_ERRORS = {
    "400": "The request is not as described.",
    "401": "No token or signature, or one that counts no more.",
    "403": "The person may not do that there.",
    "404": "There is no such thing.",
    "408": "The body did not arrive in time.",
    "409": "Refused, waiting for somebody, or no longer so: `code` and `hint` say which.",
    "413": "The body is too large.",
    "422": "What is named or declared is wrong.",
    "424": "A store or a script that is needed failed.",
    "429": "Too many requests; `Retry-After` says when the next may come.",
    "503": "The journal cannot be written, or the server is about to end.",
}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key again gives the first request's answer.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{8,128}$"},
}


@cache
def description() -> dict[str, Any]:
    """Return the whole document."""
    types = [t for route in ROUTES for t in (route.body, route.query, route.answer) if t]
    # The query's own keys become parameters; only what they refer to is a component.
    _, components = msgspec.json.schema_components(
        [*dict.fromkeys(types), Problem, Pushed, hooks.Hooked],
        ref_template=_AT,
        schema_hook=_any,
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, components)
    paths[hooks.PATH] = {"post": _hook()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Handrail",
            "version": version("handrail"),
            "description": "What the command line does, for people with a token.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "handrail tokens create",
                },
                "signature": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-Handrail-Signature",
                    "description": "`t=<unix time>,v1=<hex>`: HMAC-SHA256 of `<unix time>.<body>` "
                    "with the app's `auto.secret`, at most five minutes old.",
                },
                "forge": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-Hub-Signature-256",
                    "description": "`sha256=<hex>`: of the body alone, as GitHub, Gitea and "
                    "Forgejo sign it.",
                },
            },
        },
    }


def _any(kind: type) -> dict[str, Any]:
    """Return the schema of what a kit keeps in its own form: any JSON value."""
    if kind is object:
        return {"description": "any JSON value"}
    raise NotImplementedError


def _operation(route: Route, components: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {
        "summary": route.does,
        "description": f"Role: {route.role}.",
        "operationId": _name(route),
        "parameters": [*_parts(route), *_parameters(route, components)],
        "responses": {str(route.status): _answer(route), **_errors()},
    }
    if route.body is not None:
        schema = _AT.format(name=route.body.__name__)
        said["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": schema}}},
        }
    return said


def _hook() -> dict[str, Any]:
    """Return the one address that wants a signature, and no token."""

    def answered(said: str) -> dict[str, Any]:
        schema = {"$ref": _AT.format(name="Hooked")}
        return {"description": said, "content": {"application/json": {"schema": schema}}}

    pushed = {"schema": {"$ref": _AT.format(name="Pushed")}}
    return {
        "summary": hooks.DOES,
        "description": "No role: what a push begins is judged like any other, and asked for by "
        "`ci@hooks/<app>`. A forge's own push event is taken in the place of this body.",
        "operationId": "post_hooks_deploy",
        "security": [{"signature": []}, {"forge": []}],
        "parameters": [{"name": "app", "in": "path", "required": True, "schema": _PARTS["app"]}],
        "requestBody": {"required": True, "content": {"application/json": pushed}},
        "responses": {
            "200": answered("It was ignored, or came before: then its first answer."),
            "202": answered(
                "It is taken: begun, waiting for an approval, refused, or not yet known."
            ),
            **_errors(),
        },
    }


def _name(route: Route) -> str:
    words = re.sub(r"[{}]", "", route.path.removeprefix("/v1/")).replace("-", "_").split("/")
    return "_".join([route.method.lower(), *words])


def _parts(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _PARTS[name]}
        for name in re.findall(r"{(\w+)}", route.path)
    ]


def _parameters(route: Route, components: dict[str, Any]) -> list[dict[str, Any]]:
    key = [_KEY] if route.is_once else []
    if route.query is None:
        return key
    shape = components[route.query.__name__]
    return key + [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in shape["properties"].items()
    ]


def _answer(route: Route) -> dict[str, Any]:
    if route.answer is None:
        return {"description": "A stream.", "content": {route.content_type: {}}}
    schema = {"$ref": _AT.format(name=route.answer.__name__)}
    return {"description": route.does, "content": {route.content_type: {"schema": schema}}}


def _errors() -> dict[str, Any]:
    schema = {"$ref": _AT.format(name="Problem")}
    return {
        status: {"description": said, "content": {CONTENT_TYPE: {"schema": schema}}}
        for status, said in _ERRORS.items()
    }
