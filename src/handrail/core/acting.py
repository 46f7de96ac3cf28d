"""Acting: an act does, checks or undoes one step, whatever engine asks for it.

Rules:
- Whatever an act does, it ends as a mark: an exception is a failure with its message, and what
  cannot be kept in the journal is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from handrail.errors import HandrailError, sanitise
from handrail.plans.canonical import encode_plain
from handrail.plans.moving import Acting, Call, Check, Undo, after
from handrail.plans.walk import Mark
from handrail.ports import Act, ActCall, Acted

LARGEST_BODY_BYTES = 64 * 1024
_LONGEST_WHY_CHARACTERS = 2_000


def act_on(
    acts: Mapping[str, Act], run: int, move: Acting, call: Call, is_over: Callable[[], bool]
) -> Mark:
    """Let the act of a step do, check or undo it; return the mark of what became of it."""
    act = acts.get(call.act)
    if act is None:
        return after(move, _bad(move), f"this Handrail has no act `{call.act}`")
    told = ActCall(
        run,
        call.target,
        call.name,
        call.body,
        call.attempt,
        call.before,
        call.earlier,
        is_over,
    )
    try:
        acted = _method(act, move)(told)
        why = _unfit(acted)
    except HandrailError as error:
        return after(move, _bad(move), _short(error.message))
    except Exception as error:  # noqa: BLE001  a defect of one act is not the end of the engine
        return after(move, _bad(move), _short(f"a defect of the act `{call.act}`: {error!r}"))
    if why:
        return after(move, _bad(move), why)
    return after(move, acted.outcome, _short(acted.why), acted.body, acted.again_at)


def _method(act: Act, move: Acting) -> Callable[[ActCall], Acted]:
    match move:
        case Check():
            return act.check
        case Undo():
            return act.undo
        case _:
            return act.do


def _bad(move: Acting) -> str:
    """Return the outcome of an act that went wrong: a check that fails has found out nothing."""
    return "unknown" if isinstance(move, Check) else "failed"


def _unfit(acted: Acted) -> str:
    """Return why the journal cannot keep what an act returned; empty when it can."""
    if acted.outcome == "later" and not acted.again_at:
        return "its act said `later`, and not when"
    if not acted.body:
        return ""
    try:
        size_bytes = len(encode_plain(acted.body))
    except (TypeError, RecursionError) as error:
        return f"what its act returned cannot be kept: {error}"
    if size_bytes > LARGEST_BODY_BYTES:
        return f"its act returned {size_bytes:,} bytes; at most {LARGEST_BODY_BYTES:,} are kept"
    return ""


def _short(why: str) -> str:
    return sanitise(why[:_LONGEST_WHY_CHARACTERS])
