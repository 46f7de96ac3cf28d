"""Where things stand: who asks, what waits, and whether the declarations are right."""

from __future__ import annotations

from typing import Any

from handrail.api.route import Answer, Asked, Route
from handrail.api.shapes import Checked, Person, Survey
from handrail.api.targets import sees
from handrail.core import lessons
from handrail.core.surveying import survey
from handrail.estate.checking import warnings


def whoami(asked: Asked) -> Answer:
    """Answer who asks."""
    token, policy = asked.token, asked.declared.policy
    return Answer(
        Person(
            token.person,
            token.role,
            token.team,
            token.expires_at,
            policy.undo_age_s,
            policy.rehearsal_age_s,
        )
    )


def status(asked: Asked) -> Answer:
    """Answer what waits for somebody, what was cut off, what ran last."""
    found: dict[str, Any] = survey(asked.world, asked.declared, lambda ref: sees(asked, ref))
    return Answer(found)


def check(asked: Asked) -> Answer:
    """Answer what is wrong with the declarations; what makes them unusable is a 422 anywhere."""
    declared, world = asked.declared, asked.world
    estate = declared.estate
    found = warnings(estate, world.clock.now().date())
    return Answer(
        Checked(
            len(estate.resources),
            len(declared.own_operations),
            tuple(dict(one.as_json()) for one in lessons.errors(world, estate)),
            tuple(dict(one.as_json()) for one in found),
            tuple(one for one in lessons.lessons(world, estate) if sees(asked, one.protects)),
        )
    )


ROUTES = (
    Route("GET", "/v1/whoami", "Say who asks, and until when.", "viewer", whoami, answer=Person),
    Route("GET", "/v1/status", "Say where things stand.", "viewer", status, answer=Survey),
    Route("GET", "/v1/check", "Say what the declarations lack.", "viewer", check, answer=Checked),
)
