"""Errors as HTTP answers: problem details (RFC 9457) with Handrail's own code, hint and place.

Rules:
- The status follows from the class of the error, but for the few codes of `STATUS`.
- 5xx is for this server alone: its journal, its end, its defects. A store that does not answer is
  424: the request was right, and what it needs failed.
- A defect says its request's id and nothing of what is inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from handrail import errors
from handrail.errors import DeclarationErrors, HandrailError

CONTENT_TYPE = "application/problem+json"
STATUS: Mapping[str, int] = {
    "api.request": 400,
    "auth.missing": 401,
    "auth.expired": 401,
    "auth.revoked": 401,
    "deploys.hook": 401,
    "auth.forbidden": 403,
    "keys.own-run": 403,
    "keys.not-allowed": 403,
    "api.not-found": 404,
    "plan.unknown": 404,
    "operations.unknown": 404,
    "estate.unknown-store": 404,
    "hold.unknown": 404,
    "question.unknown": 404,
    "break-glass.nothing": 404,
    "approval.none": 404,
    "api.method": 405,
    "api.too-slow": 408,
    "api.repeated": 409,
    "run.nothing": 409,
    "approval.unneeded": 409,
    "api.too-large": 413,
    "api.too-many": 429,
    "api.draining": 503,
    "api.broken": 503,
    "internal": 500,
}
_BY_CLASS: tuple[tuple[type[HandrailError], int], ...] = (
    (errors.DeclarationError, 422),
    (errors.UsageError, 422),
    (errors.RefusedError, 409),
    (errors.WaitingError, 409),
    (errors.OverBudgetError, 409),
    (errors.FencedError, 409),
    (errors.KeysError, 422),
    (errors.StoreError, 424),
    (errors.ScriptError, 424),
    (errors.JournalError, 503),
)


class Problem(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What went wrong, as `application/problem+json`.

    Attributes:
        code: Handrail's own; the reference of errors has all of them.
        exit_code: what the same mistake ends the command line with.
        others: where several declarations are wrong, the rest of them.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    exit_code: int
    hint: str = ""
    file: str = ""
    line: int | None = None
    request: str = ""
    others: tuple[dict[str, Any], ...] = ()
    plan: dict[str, Any] | None = None
    fan_out: dict[str, Any] | None = None


def status_of(error: HandrailError) -> int:
    """Return the status that an error is answered with."""
    if error.code in STATUS:
        return STATUS[error.code]
    return next((status for kind, status in _BY_CLASS if isinstance(error, kind)), 409)


def problem_of(
    error: HandrailError,
    request: str = "",
    plan: dict[str, Any] | None = None,
    fan_out: dict[str, Any] | None = None,
) -> Problem:
    """Return an error as it is answered."""
    facts = error.as_json()
    line = facts["line"]
    others: tuple[dict[str, Any], ...] = ()
    if isinstance(error, DeclarationErrors):
        others = tuple(dict(one.as_json()) for one in error.errors[1:])
    return Problem(
        type=f"urn:handrail:error:{error.code}",
        title=errors.CODES[error.code],
        status=status_of(error),
        detail=str(facts["message"]),
        code=error.code,
        exit_code=error.exit_code,
        hint=str(facts["hint"]),
        file=str(facts["file"] or ""),
        line=line if isinstance(line, int) else None,
        request=request,
        others=others,
        plan=plan,
        fan_out=fan_out,
    )
