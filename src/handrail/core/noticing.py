"""Noticing: what the journal has that people outside are told of.

Rules:
- Told from the journal alone, behind what happened: no run waits for it, and none can fail by it.
- The chain of chains says what was opened and what has ended; what hangs open is looked at itself.
- What happened gives the same notice, with the same id, whoever looks and how often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from handrail.core import records
from handrail.core.world import Declared, World
from handrail.plans.chain import ANCHORS, CLOSED, OPENED
from handrail.plans.fan_out import KIT_ACT
from handrail.plans.notice import KINDS, Notice, notice_id
from handrail.plans.walk_records import read_mark, read_walk
from handrail.ports import Record

BREAK_GLASS = "break-glass"
# Who asks for what a schedule begins: nobody's name, so anybody may approve it.
SCHEDULE = "schedule"
# Who asks for what a web hook begins: `ci@hooks/<app>`, who has no key, and can approve nothing.
HOOKS = "ci@hooks/"
# A run whose last record is younger may be just beginning, or just being taken up.
_YOUNG = timedelta(minutes=1)
_OF_PEOPLE = frozenset({"second-person", "typed-name", "avoidable"})
_ENDED = {
    "confirmed": ("confirmed", "is confirmed"),
    "over-budget": ("over-budget", "was stopped by its budget"),
    "undone": ("failed", "was undone"),
    "failed": ("failed", "failed"),
    "stopped": ("failed", "was stopped"),
    "interrupted": ("failed", "was stopped, and undone"),
    "refused": ("failed", "was refused when it began"),
}
_Cursor = Mapping[str, int]


def make(declared: Declared, key: tuple[object, ...], kind: str, **said: Any) -> Notice:
    """Return a notice of a kind; `key` is what it tells of, and gives its id."""
    notice = Notice(id=notice_id(kind, *key), kind=kind, severity=KINDS[kind][0], **said)
    found = declared.estate.resources.get(notice.resource.partition("+")[0])
    notice = replace(notice, environment=found.environment if found else "")
    return replace(notice, link=declared.notifications.page(notice))


def present(world: World) -> _Cursor:
    """Return the place in the journal behind everything that is there now."""
    return {chain: _length(world, chain) for chain in (ANCHORS, BREAK_GLASS)}


def since(world: World, declared: Declared, seen: _Cursor) -> tuple[tuple[Notice, ...], _Cursor]:
    """Return what happened beyond a place in the journal, and the place that was come to."""
    found: list[Notice] = []
    reached = dict(seen)
    for record in world.journal.records(ANCHORS, seen.get(ANCHORS, 0)):
        found += _of_anchor(world, declared, record)
        reached[ANCHORS] = record.sequence
    for record in world.journal.records(BREAK_GLASS, seen.get(BREAK_GLASS, 0)):
        found += _of_broken_glass(declared, record)
        reached[BREAK_GLASS] = record.sequence
    return tuple(found), reached


def hanging(world: World, declared: Declared) -> Iterator[Notice]:
    """Yield a notice for each run that waits for a human, or was cut off."""
    for chain in world.journal.open_chains("run-"):
        last = world.journal.last(chain)
        if last is not None:
            yield from _of_open_run(world, declared, chain, last)
    for chain in world.journal.open_chains("walk-"):
        last = world.journal.last(chain)
        if last is not None and last.kind in {"held", "asked"}:
            yield _of_open_walk(world, declared, chain, last)


def _length(world: World, chain: str) -> int:
    last = world.journal.last(chain)
    return last.sequence if last else 0


def _of_anchor(world: World, declared: Declared, anchor: Record) -> Iterator[Notice]:
    chain = str(records.body(anchor)["chain"])
    kind, _, name = chain.partition("-")
    tell = _TOLD.get((anchor.kind, kind))
    if tell is not None and name:
        yield from tell(world, declared, chain)


def _of_ended_run(world: World, declared: Declared, chain: str) -> Iterator[Notice]:
    last = world.journal.last(chain)
    if last is None or last.kind != "ended":
        return
    body = records.body(last)
    kind, said = _ENDED.get(str(body["outcome"]), ("failed", f"ended: {body['outcome']}"))
    number, request, is_in_walk = _request(world, chain)
    if is_in_walk:
        return  # the walk tells how it ended, once for all of its runs
    yield make(
        declared,
        (chain, last.sequence),
        kind,
        title=f"run {number} {said}: {_what(request)}",
        text=str(body.get("why", "")),
        time=last.time,
        next=f"handrail runs show {number}",
        **_of(number, request),
    )


def _of_ended_walk(world: World, declared: Declared, chain: str) -> Iterator[Notice]:
    last = world.journal.last(chain)
    if last is None or last.kind != "ended":
        return
    body = _mark_body(last)
    outcome = str(body.get("outcome", ""))
    kind = "confirmed" if outcome == "done" else "failed"
    number, walk = _walk(world, chain)
    lane = _lane_of_kit(world, chain)
    if lane is not None:
        yield _of_ended_lane(world, declared, last, number, lane)
        return
    yield make(
        declared,
        (chain, last.sequence),
        kind,
        title=f"run {number} is {outcome or 'over'}: {walk.get('title', '?')}",
        text=str(body.get("why", "")),
        time=last.time,
        run=number,
        person=str(walk.get("person", "")),
        next=f"handrail runs show {number}",
    )


def _of_begun_walk(world: World, declared: Declared, chain: str) -> Iterator[Notice]:
    """An operation of a kit on one target; of many targets the end alone is told."""
    lane = _lane_of_kit(world, chain)
    if lane is None:
        return
    number, walk = _walk(world, chain)
    first = next(world.journal.records(chain))
    yield make(
        declared,
        (chain, "begun"),
        "begun",
        title=f"run {number} has begun: {walk['title']}",
        text=_summary(world, str(walk["digest"])),
        time=first.time,
        next=f"handrail runs show {number}",
        **_of(number, lane),
    )


def _of_ended_lane(
    world: World, declared: Declared, last: Record, number: int, lane: Mapping[str, str]
) -> Notice:
    told = records.run_end(world.journal, lane["target"], number)
    body = _mark_body(last)
    outcome = {"done": "confirmed"}.get(str(body.get("outcome", "")), str(body.get("outcome", "")))
    outcome = str(told.get("outcome", outcome))
    kind = outcome if outcome in {"confirmed", "undone"} else "failed"
    said = _ENDED.get(outcome, ("", f"ended: {outcome}"))[1]
    return make(
        declared,
        (last.chain, last.sequence),
        kind,
        title=f"run {number} {said}: {_what(lane)}",
        text=str(told.get("why") or body.get("why", "")),
        time=last.time,
        next=f"handrail runs show {number}",
        **_of(number, lane),
    )


def _lane_of_kit(world: World, chain: str) -> Mapping[str, str] | None:
    """Return what the one operation of a kit is that a walk is; None where it is another walk."""
    first = next(world.journal.records(chain), None)
    if first is None or first.kind != "opened":
        return None
    walk = read_walk(read_mark(first.kind, first.time, first.body))
    if len(walk.lanes) != 1 or walk.lanes[0].steps[-1].act != KIT_ACT:
        return None
    operation = walk.title.partition(" on ")[0]
    return {"operation": operation, "target": walk.lanes[0].target, "person": walk.person}


def _summary(world: World, digest: str) -> str:
    last = world.journal.last(records.plan_chain(digest))
    return str(records.body(last).get("summary", "")) if last is not None else ""


def _of_plan(world: World, declared: Declared, chain: str) -> Iterator[Notice]:
    """A plan that nothing but another person's word is missing for.

    Of an operation over many targets it is the whole that is approved, not each of them.
    """
    first = next(world.journal.records(chain), None)
    if first is None:
        return
    body = records.body(first)
    if first.kind == records.FANNED:
        body = body["plan"]
    elif _is_in_waves(declared, body):
        return
    asked = [d for d in body["decisions"] if d["binding"] and d["verdict"] != "allow"]
    if not asked or not all(d["guard"] in _OF_PEOPLE and d["verdict"] == "require" for d in asked):
        return
    request = body["request"]
    if request["person"] == SCHEDULE or str(request["person"]).startswith(HOOKS):
        return  # a schedule tells it itself, each time; so does a web hook
    digest = str(body["digest"])
    yield make(
        declared,
        ("plan", digest),
        "waiting",
        title=f"{request['operation']} on {request['target']} waits for an approval",
        text=f"risk {body['risk']}; asked for by {request['person'] or 'somebody'}"
        + (f": {request['because']}" if request["because"] else "")
        + f"; needed: {asked[0]['because']}",
        time=first.time,
        next=f"handrail approve {records.short(digest)}",
        **_of(0, request),
    )


def _is_in_waves(declared: Declared, plan: Mapping[str, Any]) -> bool:
    operation = declared.operations.get(str(plan["request"]["operation"]))
    return operation is not None and operation.waves is not None


def _of_held_statement(world: World, declared: Declared, chain: str) -> Iterator[Notice]:
    first = next(world.journal.records(chain), None)
    if first is None or first.kind != "held":
        return
    held = records.body(first)
    number = str(held["chain"]).partition("-")[2]
    yield make(
        declared,
        (chain,),
        "waiting",
        title=f"a statement on {held['resource']} waits for another person",
        text=f"{held['why']}: {held['statement']}",
        time=first.time,
        run=int(number) if number.isdigit() else 0,
        resource=str(held["resource"]),
        person=str(held["person"]),
        next=f"handrail release {held['id']}",
    )


def _of_broken_glass(declared: Declared, record: Record) -> Iterator[Notice]:
    if record.kind != "broken":
        return
    body = records.body(record)
    glass = body["glass"]
    passed = ", ".join(str(guard) for guard, _ in body.get("passed", ()))
    yield make(
        declared,
        (BREAK_GLASS, glass["id"]),
        "break-glass",
        title=f"{glass['person']} broke the glass: {body['operation']} on {body['target']}",
        text=f"{glass['because']}; risk {body['risk']}, passed: {passed}; "
        "until somebody else reviews it, nobody can break it again",
        time=record.time,
        operation=str(body["operation"]),
        resource=str(body["target"]),
        person=str(glass["person"]),
        next=f"handrail review {glass['id']}",
    )


def _of_question(world: World, declared: Declared, chain: str) -> Iterator[Notice]:
    first = next(world.journal.records(chain), None)
    if first is None or first.kind != "asked":
        return
    asked = records.body(first)
    question, number = asked["question"], int(asked["run"])
    note = f" ({asked['note']})" if asked.get("note") else ""
    yield make(
        declared,
        (chain,),
        "waiting",
        title=f"run {number} asks: {question.get('text') or question['name']}",
        text=f"{asked['operation']} on {asked['resource']} waits for an answer{note}, until "
        f"{str(asked['expires_at'])[:16].replace('T', ' ')} UTC",
        time=first.time,
        operation=str(asked["operation"]),
        run=number,
        resource=str(asked["resource"]),
        person=str(asked["person"]),
        next=f"handrail answer {number} {question['name']} VALUE",
    )


def _of_open_run(world: World, declared: Declared, chain: str, last: Record) -> Iterator[Notice]:
    said = {
        "held": "is held: it did more than in rehearsal, or somebody else did",
        "outcome-unknown": "was cut off while its script ran, and nobody knows how far it came",
    }.get(last.kind, "")
    number, request, is_in_walk = _request(world, chain)
    if is_in_walk:
        return
    if not said and _is_cut_off(world, last, str(request.get("target", ""))):
        said = "was cut off"
    if not said:
        return
    yield make(
        declared,
        (chain, last.sequence),
        "waiting",
        title=f"run {number} {said.partition(':')[0]}: {_what(request)}",
        text=f"run {number} {said}; until somebody says how it goes on, nothing else runs there",
        time=last.time,
        next=f"handrail resume {number}",
        **_of(number, request),
    )


def _is_cut_off(world: World, last: Record, target: str) -> bool:
    if last.kind == "ended" or not target:
        return False
    age = world.clock.now() - datetime.fromisoformat(last.time)
    return age > _YOUNG and world.locks.holder(target) is None


def _of_open_walk(world: World, declared: Declared, chain: str, last: Record) -> Notice:
    number, walk = _walk(world, chain)
    body = _mark_body(last)
    said = "asks a question" if last.kind == "asked" else "is held"
    why = body.get("why") or body.get("text") or body.get("question") or ""
    return make(
        declared,
        (chain, last.sequence),
        "waiting",
        title=f"run {number} {said}: {walk.get('title', '?')}",
        text=str(why) or f"run {number} waits for a human",
        time=last.time,
        run=number,
        person=str(walk.get("person", "")),
        next=f"handrail runs show {number}",
    )


def _request(world: World, chain: str) -> tuple[int, dict[str, Any], bool]:
    """Return a run's number, what was asked for, and whether it is one of a walk."""
    number = int(chain.partition("-")[2])
    first = next(world.journal.records(chain), None)
    body = records.body(first) if first is not None and first.kind == "opened" else {}
    return number, dict(body.get("plan", {}).get("request", {})), "walk" in body


def _what(request: Mapping[str, Any]) -> str:
    return f"{request.get('operation', '?')} on {request.get('target', '?')}"


def _walk(world: World, chain: str) -> tuple[int, dict[str, Any]]:
    number = int(chain.partition("-")[2])
    first = next(world.journal.records(chain), None)
    body = _mark_body(first) if first is not None else {}
    return number, dict(body.get("walk", body))


def _mark_body(record: Record) -> dict[str, Any]:
    """Return the body of a walk's mark; it may stand inside the record's own."""
    body = records.body(record)
    inner = body.get("body")
    return {**body, **inner} if isinstance(inner, dict) else body


def _of(number: int, request: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "operation": str(request.get("operation", "")),
        "run": number,
        "resource": str(request.get("target", "")),
        "person": str(request.get("person", "")),
    }


_TOLD: Mapping[tuple[str, str], Callable[[World, Declared, str], Iterator[Notice]]] = {
    (CLOSED, "run"): _of_ended_run,
    (CLOSED, "walk"): _of_ended_walk,
    (OPENED, "walk"): _of_begun_walk,
    (OPENED, "plans"): _of_plan,
    (OPENED, "hold"): _of_held_statement,
    (OPENED, "question"): _of_question,
}
