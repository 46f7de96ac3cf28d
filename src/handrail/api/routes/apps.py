"""Apps: how each stands on its platform, and what ran of it."""

from __future__ import annotations

from typing import Any

import msgspec

from handrail import kit_wiring
from handrail.api.route import Answer, Asked, On, Route
from handrail.api.targets import on_of, sees
from handrail.errors import UsageError
from handrail.estate.model import Resource
from handrail.estate.shapes import nearest
from handrail.kits.deploys import answers, history, status


class Which(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether apps are listed by name alone: then no platform is asked."""

    names: bool = False


class AppLines(msgspec.Struct, frozen=True):
    """How apps stand, as `handrail deploy status --json` says it."""

    apps: tuple[dict[str, Any], ...]


class AppHistory(msgspec.Struct, frozen=True):
    """What ran of an app, the newest first, as `handrail deploy history --json` says it."""

    app: str
    runs: tuple[dict[str, Any], ...]


def _apps(asked: Asked) -> list[Resource]:
    """Return the apps that the person may see."""
    found = asked.declared.estate.of_kinds(("app",))
    return [one for one in found if sees(asked, one.ref)]


def listed(asked: Asked) -> Answer:
    """Answer how the apps stand that the person may see."""
    apps = _apps(asked)
    if asked.query.names:
        lines: Any = [{"app": one.ref, "environment": one.environment} for one in apps]
        return Answer(AppLines(tuple(lines)))
    outside = kit_wiring.outside(asked.world)
    found = status.status(outside, asked.declared.estate, apps)
    return Answer(AppLines(tuple(answers.status(one) for one in found)))


def on_app(asked: Asked) -> On:
    """Return the app in the address.

    Raises:
        UsageError: it is not declared.
    """
    name = asked.path["app"]
    ref = f"app/{name}"
    if ref not in asked.declared.estate.resources:
        hint = nearest(name, [one.name for one in _apps(asked)])
        raise UsageError("api.not-found", f"no app `{name[:80]}` is declared", hint=hint)
    return on_of(asked.declared, ref)


def ran(asked: Asked) -> Answer:
    """Answer what ran of an app, from the record alone."""
    ref = f"app/{asked.path['app']}"
    found = history.history(asked.world, ref)
    return Answer(AppHistory(ref, tuple(answers.ran(asked.world, one) for one in found)))


ROUTES = (
    Route(
        "GET",
        "/v1/apps",
        "Say how every app stands: saved, running, and its branch. Asks their platforms.",
        "viewer",
        listed,
        query=Which,
        answer=AppLines,
    ),
    Route(
        "GET",
        "/v1/apps/{app}/history",
        "Say what ran of an app: when, which commit, by whom, approved by whom.",
        "viewer",
        ran,
        on=on_app,
        answer=AppHistory,
    ),
)
