"""The journal, whole: exported, or verified here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import islice

from handrail.api.route import Answer, Asked, Route
from handrail.api.shapes import Verified
from handrail.core.journal import verify_export
from handrail.plans.chain import ANCHORS

LINES = "application/jsonl"
_AT_ONCE = 256


def export(asked: Asked) -> Answer:
    """Answer the whole journal as JSON lines of one moment."""
    return Answer(stream=_lines(asked.world.journal.export()), content_type=LINES)


async def _lines(lines: Iterator[str]) -> AsyncIterator[bytes]:
    def some() -> bytes:
        return "".join(line + "\n" for line in islice(lines, _AT_ONCE)).encode()

    while piece := await asyncio.to_thread(some):
        yield piece


def verify(asked: Asked) -> Answer:
    """Answer whether every chain is whole."""
    counted, head = 0, ""

    def seen() -> Iterator[str]:
        nonlocal counted
        for line in asked.world.journal.export():
            counted += '"chain"' in line
            yield line

    problems = tuple(str(problem) for problem in verify_export(seen()))
    last = asked.world.journal.last(ANCHORS)
    head = last.hash if last else ""
    return Answer(Verified(counted, head, problems))


ROUTES = (
    Route(
        "GET",
        "/v1/log",
        "Export the journal as JSON lines.",
        "admin",
        export,
        content_type=LINES,
    ),
    Route(
        "GET",
        "/v1/log/verification",
        "Verify every chain of the journal.",
        "admin",
        verify,
        answer=Verified,
    ),
)
