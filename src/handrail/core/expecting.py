"""Expecting: an operation that has not succeeded by when it should have is an incident.

The chain `expected-<operation>-<id>` has `seen` (the declaration, for the first time, or after a
pause), `succeeded`, `absent` (once an absence) and `resolved`: its last record says it all.
`expected` has how far the journal was read.

Rules:
- A success counts whoever began it, and however: by a schedule, by hand, in waves.
- Counted from the declaration's first sight where it never ran: silence must not look like health.
- A paused one is never absent; that it is paused is said wherever it is listed.
- What the journal says counts: a restart forgets nothing, and tells nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from handrail.core import noticing, notifying, records
from handrail.core.world import Declared, World
from handrail.errors import FencedError
from handrail.operations.model import Operation, Schedule
from handrail.plans import schedule as calendar
from handrail.plans.canonical import sha256, time_text
from handrail.plans.chain import ANCHORS, CLOSED
from handrail.plans.notice import Notice
from handrail.plans.schedule import said
from handrail.ports import Entry, Record

CHAIN = "expected"
_SEEN = 100


@dataclass(frozen=True)
class Expectation:
    """Where one expectation stands.

    Attributes:
        since: of the last success, or when the declaration was first seen.
        succeeded: whether it was a success.
        deadline: by when the next one is expected; None for never.
        absent: whether that is over, and was told.
        fence: what the next record of its chain must follow.
    """

    since: datetime | None
    succeeded: bool
    deadline: datetime | None
    absent: bool
    fence: str


def chain_of(operation: str, schedule: Schedule) -> str:
    """Return the chain of an expectation: with other words it is another one."""
    words = f"{schedule.key}\n{schedule.expect_s}\n{schedule.by}"
    return f"expected-{operation}-{sha256(words)[:8]}"


def standing(world: World, operation: str, schedule: Schedule) -> Expectation:
    """Return where an expectation stands, by the journal."""
    last = world.journal.last(chain_of(operation, schedule))
    if last is None:
        return Expectation(None, succeeded=False, deadline=None, absent=False, fence="new")
    body = records.body(last)
    since, succeeded = datetime.fromisoformat(body["since"]), bool(body["succeeded"])
    deadline = calendar.deadline(schedule, since, succeeded=succeeded)
    return Expectation(since, succeeded, deadline, last.kind == "absent", last.hash)


def begin_anew(world: World, operation: Operation) -> None:
    """Count from now what is expected of an operation, as after a pause."""
    for schedule in operation.schedules:
        found = standing(world, operation.name, schedule)
        if schedule.expects and found.since is not None and not found.absent:
            _note_seen(world, operation.name, schedule, found.fence)


def look(world: World, declared: Declared, is_paused: Callable[[str], bool]) -> list[datetime]:
    """Take note of successes and absences; return when the next absence may be.

    Raises:
        JournalError: it cannot be read or written.
    """
    try:
        expected = [
            (operation, schedule)
            for operation in declared.operations.values()
            for schedule in operation.schedules
            if schedule.expects
        ]
        if not expected:
            return []
        for operation, schedule in expected:
            if standing(world, operation.name, schedule).since is None:
                _note_seen(world, operation.name, schedule, "new")
        _take_note(world, declared, expected)
        return [
            at
            for operation, schedule in expected
            for at in _judge(world, declared, operation, schedule, is_paused)
        ]
    except FencedError:
        return []  # another server looks in this moment, and will tell


def _note_seen(world: World, operation: str, schedule: Schedule, fence: str) -> None:
    body = _body(world.clock.now(), succeeded=False)
    world.journal.write([Entry(chain_of(operation, schedule), "seen", body, after=fence)])


def _judge(
    world: World,
    declared: Declared,
    operation: Operation,
    schedule: Schedule,
    is_paused: Callable[[str], bool],
) -> Iterator[datetime]:
    found = standing(world, operation.name, schedule)
    if found.since is None or found.deadline is None or found.absent:
        return
    if world.clock.now() < found.deadline:
        yield found.deadline
        return
    if is_paused(operation.name):
        return
    body = _body(found.since, succeeded=found.succeeded)
    body["deadline"] = time_text(found.deadline)
    entry = Entry(chain_of(operation.name, schedule), "absent", body, after=found.fence)
    notice = _incident(declared, operation, schedule, found, found.deadline)
    notifying.queue(world, declared, [notice], [entry])


def _incident(
    declared: Declared,
    operation: Operation,
    schedule: Schedule,
    found: Expectation,
    deadline: datetime,
) -> Notice:
    since = said(found.since) if found.since else ""
    last = f"the last success was at {since}" if found.succeeded else f"never seen since {since}"
    return noticing.make(
        declared,
        ("expected", chain_of(operation.name, schedule), time_text(deadline)),
        "incident",
        title=f"{operation.name} has not succeeded by {said(deadline)}",
        text=f"expected by then, and has not: {last}",
        time=time_text(deadline),
        operation=operation.name,
        resource=schedule.on or (f"store/{operation.on.name}" if operation.on.name else ""),
        next="handrail schedules",
    )


def _take_note(
    world: World, declared: Declared, expected: list[tuple[Operation, Schedule]]
) -> None:
    """Record the successes beyond the place up to which the journal was read."""
    last = world.journal.last(CHAIN)
    if last is None:
        end = world.journal.last(ANCHORS)
        seen = {"seen": end.sequence if end else 0}
        world.journal.write([Entry(CHAIN, "seen", seen, after="new")])
        return
    seen_before = int(records.body(last)["seen"])
    reached, fresh = seen_before, False
    for anchor in world.journal.records(ANCHORS, seen_before):
        reached = anchor.sequence
        for success in _success(world, anchor):
            for operation, schedule in expected:
                if _counts(operation, schedule, success):
                    fresh |= _succeed(world, declared, operation, schedule, success)
    if fresh or reached - seen_before > _SEEN:
        world.journal.write([Entry(CHAIN, "seen", {"seen": reached}, after=last.hash)])


def _success(world: World, anchor: Record) -> Iterator[Mapping[str, Any]]:
    """Yield what a closed chain says of a run that was confirmed, or a walk that is done."""
    chain = str(records.body(anchor)["chain"])
    kind, _, number = chain.partition("-")
    if anchor.kind != CLOSED or kind not in {"run", "walk"}:
        return
    last, first = world.journal.last(chain), next(world.journal.records(chain), None)
    if last is None or first is None or last.kind != "ended":
        return
    body, opened = records.body(last), records.body(first)
    request: Mapping[str, Any] = {}
    if kind == "run" and body["outcome"] == "confirmed" and "walk" not in opened:
        request = opened.get("plan", {}).get("request", {})
    elif kind == "walk" and body.get("body", {}).get("outcome") == "done":
        request = _request_of_walk(world, str(opened["body"]["walk"]["digest"]))
    if request:
        yield {"run": int(number), "time": last.time, **request}


def _request_of_walk(world: World, digest: str) -> Mapping[str, Any]:
    last = world.journal.last(records.plan_chain(digest))
    if last is None or last.kind != records.FANNED:
        return {}
    found: Mapping[str, Any] = records.body(last)["plan"]["request"]
    return found


def _counts(operation: Operation, schedule: Schedule, success: Mapping[str, Any]) -> bool:
    return success.get("operation") == operation.name and (
        not schedule.on or schedule.on in str(success.get("target")).split("+")
    )


def _succeed(
    world: World,
    declared: Declared,
    operation: Operation,
    schedule: Schedule,
    success: Mapping[str, Any],
) -> bool:
    """Record a success, and the end of an absence; return whether it is news."""
    found = standing(world, operation.name, schedule)
    at = datetime.fromisoformat(success["time"])
    if found.succeeded and found.since is not None and at <= found.since:
        return False
    body = _body(at, succeeded=True) | {"run": success["run"]}
    kind = "resolved" if found.absent else "succeeded"
    notices = [_resolved(declared, operation, schedule, success)] if found.absent else []
    entry = Entry(chain_of(operation.name, schedule), kind, body, after=found.fence)
    notifying.queue(world, declared, notices, [entry])
    return True


def _resolved(
    declared: Declared, operation: Operation, schedule: Schedule, success: Mapping[str, Any]
) -> Notice:
    return noticing.make(
        declared,
        ("expected", chain_of(operation.name, schedule), success["run"]),
        "resolved",
        title=f"{operation.name} has succeeded again",
        text=f"run {success['run']} was confirmed at {success['time'][:16].replace('T', ' ')} UTC",
        time=success["time"],
        operation=operation.name,
        run=int(success["run"]),
        resource=str(success.get("target", "")),
        person=str(success.get("person", "")),
        next=f"handrail runs show {success['run']}",
    )


def _body(since: datetime, *, succeeded: bool) -> dict[str, Any]:
    return {"since": time_text(since), "succeeded": succeeded}
