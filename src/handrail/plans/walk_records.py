"""Walks, marks and words as the journal has them, and whether a walk is sound.

walk-<n>         one mark a record: its kind is the record's, `step` and `body` are in the body
signals          words to runs: `signal`, with `run` and `signal`
request-<hash>   `submitted`, with `run`: the same request gives the same run

Rules:
- Reading gives values again, or an error: a body may have been tampered with.
- A sound walk has each target once, in one wave; its steps' names tell them apart.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeVar

from handrail.errors import JournalError, UsageError
from handrail.plans.canonical import plain, sha256
from handrail.plans.decoding import decode
from handrail.plans.hearing import WORDS
from handrail.plans.moving import moment
from handrail.plans.walk import FORMAT, Mark, Signal, Walk

T = TypeVar("T")
SIGNALS = "signals"
_PREFIX = "walk-"


def walk_chain(run: int) -> str:
    """Return the chain of a walk's marks."""
    return f"{_PREFIX}{run}"


def run_of(chain: str) -> int:
    """Return the number of the run whose marks are in `chain`."""
    return int(chain.removeprefix(_PREFIX))


def request_chain(request_id: str) -> str:
    """Return the chain that knows which run a request became."""
    return f"request-{sha256(request_id)}"


def mark_body(mark: Mark) -> dict[str, Any]:
    """Return the body of a mark's record."""
    told = {"step": mark.step} if mark.step else {}
    return {**told, "body": mark.body} if mark.body else told


def opened_mark(walk: Walk, heard: int) -> Mark:
    """Return a walk's first mark.

    Args:
        walk: itself.
        heard: sequence of the last word to any run before: none to this one is older.
    """
    return Mark("opened", body={"walk": plain(walk), "heard": heard})


def read_mark(kind: str, time: str, body: str) -> Mark:
    """Return the mark that a record holds; `opened`'s walk is read by `read_walk`.

    Raises:
        JournalError: it is not one.
    """
    try:
        told = json.loads(body)
        step, more = told.get("step", ""), told.get("body", {})
    except (ValueError, AttributeError, RecursionError) as error:
        raise _damaged("mark", error) from error
    if not isinstance(step, str) or not isinstance(more, dict):
        raise _damaged("mark", TypeError("a `step` or `body` of another type"))
    return Mark(kind, step, time, more)


def read_walk(mark: Mark) -> Walk:
    """Return the walk of an `opened` mark.

    Raises:
        JournalError: it is none, or one of a newer Handrail.
    """
    told = mark.body.get("walk")
    if isinstance(told, Mapping) and told.get("format") != FORMAT:
        message = f"a walk has format {told.get('format')}; this Handrail reads {FORMAT}"
        raise JournalError("journal.format", message)
    return _converted(told, Walk)


def read_signal(body: str) -> tuple[int, Signal]:
    """Return the run and the word of a record of `signals`.

    Raises:
        JournalError: it holds none.
    """
    try:
        told = json.loads(body)
        run, signal = int(told["run"]), told["signal"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged("signal", error) from error
    return run, _converted(signal, Signal)


def _converted(told: object, kind: type[T]) -> T:
    import msgspec  # noqa: PLC0415  what reads no record does not pay for it

    try:
        return decode(told, kind)
    except msgspec.ValidationError as error:
        raise _damaged(kind.__name__.lower(), error) from error


def _damaged(what: str, error: Exception) -> JournalError:
    return JournalError("journal.damaged", f"a {what} in the journal cannot be read: {error}")


def check(walk: Walk) -> None:
    """Refuse a walk that is not sound.

    Raises:
        UsageError: says what is wrong with it.
    """
    why = _wrong(walk)
    if why:
        raise UsageError("walk.wrong", why)
    for text in (walk.begins_at, walk.expires_at):
        if text:
            moment(text)


def _wrong(walk: Walk) -> str:
    targets = [lane.target for lane in walk.lanes]
    placed = [target for wave in walk.waves for target in wave.targets]
    twice = [name for name, count in Counter(targets).items() if count > 1]
    if walk.format != FORMAT:
        return f"the walk has format {walk.format}; this Handrail walks {FORMAT}"
    if not walk.digest:
        return "the walk has no digest"
    if twice:
        return f"the walk has the target `{twice[0]}` twice"
    if Counter(targets) != Counter(placed):
        odd = next(
            iter((Counter(targets) - Counter(placed)) + (Counter(placed) - Counter(targets)))
        )
        return f"the target `{odd}` is not in exactly one wave"
    return _wrong_bounds(walk) or _wrong_steps(walk)


def _wrong_bounds(walk: Walk) -> str:
    bounds = walk.bounds
    if bounds.at_once < 1 or any(limit < 1 for limit in bounds.at_once_per.values()):
        return "at least one target has to go at once"
    if bounds.failures < 0 or any(limit < 0 for limit in bounds.failures_per.values()):
        return "fewer than no failures cannot be borne"
    if any(wave.soak_s < 0 for wave in walk.waves):
        return "a wave soaks for less than no time"
    taken = [name for name in walk.awaits if name in WORDS or not name]
    return f"no run can await the word `{taken[0]}`" if taken else ""


def _wrong_steps(walk: Walk) -> str:
    for lane in walk.lanes:
        names = [step.name for step in lane.steps]
        if not lane.target or not names:
            return f"the lane `{lane.target}` has no target, or no step"
        if len(set(names)) != len(names):
            return f"two steps on `{lane.target}` have one name"
        if any(not name or "/" in name for name in names):
            return f"a step on `{lane.target}` has no name, or one with a slash"
    return ""
