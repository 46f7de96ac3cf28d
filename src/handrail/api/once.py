"""Once: a request with an `Idempotency-Key` that is sent again gets the first one's answer.

Rules:
- A key is its person's own. It is marked as used, durably, before anything begins; so of two that
  come at once, one begins.
- What is kept is the answer's status, place and value; never a plan.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from handrail.api.problems import problem_of, status_of
from handrail.api.route import Answer
from handrail.core import records
from handrail.core.world import World
from handrail.errors import HandrailError, RefusedError, UsageError
from handrail.plans.canonical import encode, sha256

KEY = re.compile(r"[A-Za-z0-9._:-]{8,128}")


def answer(world: World, key: str, request: str, do: Callable[[], Answer]) -> Answer:
    """Answer a request, or as it was answered before.

    Args:
        world: the ports, with the request's person.
        key: as it came; empty for none.
        request: what is asked, as text: the same key for something else is a mistake.
        do: answers it the first time.

    Raises:
        UsageError: the key is not one.
        RefusedError: it was used for another request, or the first is still being answered.
    """
    if not key:
        return do()
    if not KEY.fullmatch(key):
        raise UsageError("api.request", "an Idempotency-Key is 8 to 128 letters, digits, `._:-`")
    name = sha256(encode([world.person, key]))[:32]
    chain, digest = f"request-{name}", sha256(request)
    if not world.journal.single_use(f"request {name}"):
        return _as_before(world, chain, digest)
    try:
        answered = do()
    except HandrailError as error:
        answered = Answer(problem_of(error), status_of(error), content_type="problem")
    value: Any = msgspec.to_builtins(answered.value)
    for large in ("plan", "fan_out"):
        value.pop(large, None)
    body = {
        "request": digest,
        "status": answered.status,
        "headers": dict(answered.headers),
        "content_type": answered.content_type,
        "value": value,
    }
    world.journal.append(chain, "answered", body)
    world.journal.close(chain)
    return answered


def _as_before(world: World, chain: str, digest: str) -> Answer:
    last = world.journal.last(chain)
    if last is None:
        raise RefusedError(
            "api.repeated",
            "the first request with this key is being answered, or its server died meanwhile",
            hint="handrail runs shows what was begun",
        )
    body = records.body(last)
    if body["request"] != digest:
        raise RefusedError("api.repeated", "this key was used for another request")
    return Answer(body["value"], body["status"], body["headers"], body["content_type"])
