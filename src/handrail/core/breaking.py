"""Breaking the glass: a run that waits for nobody, by somebody who answers for it afterwards.

Rules:
- It passes guards that wait for people or for a date, as far as the policy says; no other guard.
- Who broke it, why, and what it passed is in the journal before anything acts.
- One break is for one plan and one run. Until another person has reviewed it, in words and signed,
  it cannot be broken again: by nobody, or not by the same person, as the policy says.
- Of two at once one breaks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handrail.core import lessons, records, signing
from handrail.core.world import Declared, World
from handrail.errors import FencedError, RefusedError, UsageError
from handrail.plans.canonical import plain, time_text
from handrail.plans.judging import Case, is_passable, judge
from handrail.plans.model import BrokenGlass, Decision, Plan
from handrail.plans.policy import Glass, Policy
from handrail.ports import Entry, Record

if TYPE_CHECKING:
    from handrail.core.deciding import Decided

CHAIN = "break-glass"
_USED = "used"
_ID_CHARACTERS = 8
_TRIES = 8
_WORDS = 3


@dataclass(frozen=True)
class Break:
    """One time that the glass was broken.

    Attributes:
        passed: guard and what it had said, for each one that was passed.
        review: of another person; None while there is none.
    """

    glass: BrokenGlass
    operation: str
    target: str
    risk: str
    passed: tuple[tuple[str, str], ...]
    review: Review | None = None


@dataclass(frozen=True)
class Review:
    """Another person's word on it, signed."""

    id: str
    person: str
    made_at: str
    because: str
    signature: str


def through(world: World, decided: Decided, because: str) -> Decided:
    """Break the glass for a judged plan, and return it as it is judged then.

    Raises:
        RefusedError, UsageError: as `break_glass`.
    """
    declared = decided.declared
    glass = break_glass(world, declared.policy, decided.plan, because)
    broken = judged_behind(world, decided, glass)
    plan = broken.plan
    world.journal.append(records.plan_chain(plan.digest), "planned", _body(plan))
    if lessons.is_refused(decided.plan):
        case = Case(plan, decided.operation, declared.estate, declared.policy)
        lessons.note(world, case, "passed")
    return broken


def judged_behind(world: World, decided: Decided, glass: BrokenGlass) -> Decided:
    """Return a plan as it is judged with the glass broken; that counts for its own plan alone."""
    declared = decided.declared
    plan = replace(decided.plan, facts=replace(decided.plan.facts, glass=glass))
    case = Case(plan, decided.operation, declared.estate, declared.policy)
    return replace(decided, plan=judge(case, world.guards))


def found(world: World, plan: Plan) -> BrokenGlass | None:
    """Return the glass that this person broke for this very plan, and nobody has reviewed yet."""
    mine = (
        one.glass
        for one in reversed(breaks(world))
        if one.review is None
        and (one.glass.digest, one.glass.person) == (plan.digest, plan.request.person)
    )
    return next(mine, None)


def break_glass(world: World, policy: Policy, plan: Plan, because: str) -> BrokenGlass:
    """Record that the glass is broken for `plan`, and return that: a fact to judge it by.

    Raises:
        RefusedError: the policy does not allow it to this person; a guard refuses that cannot be
            passed; or nobody has reviewed the last time.
        UsageError: no reason is given, or nothing of the plan waits for people.
    """
    passed = _passed(policy, plan)
    person = _allowed(policy.glass, policy, plan)
    if not because.strip():
        raise UsageError("usage", "breaking the glass needs a reason", hint='--break-glass "why"')
    glass = BrokenGlass(
        world.ids.new()[:_ID_CHARACTERS],
        person,
        because,
        time_text(world.clock.now()),
        plan.digest,
        policy.glass.passes,
    )
    words = tuple((decision.guard, decision.because) for decision in passed)
    broken = Break(glass, plan.request.operation, plan.target.resource, plan.risk, words)
    _write(world, policy.glass, broken)
    return glass


def _passed(policy: Policy, plan: Plan) -> tuple[Decision, ...]:
    """Return the decisions that stop `plan` and are passed.

    Raises:
        RefusedError: one of them cannot be passed.
        UsageError: there is none.
    """
    stops = [d for d in plan.decisions if d.binding and d.verdict != "allow"]
    for decision in stops:
        if not is_passable(decision, policy):
            raise RefusedError(
                "plan.refused",
                f"breaking the glass does not pass {decision.guard}: {decision.because}",
                hint=decision.remedy,
            )
    if not stops:
        raise UsageError(
            "break-glass.unneeded",
            f"nothing of this plan (risk {plan.risk}) waits for anybody",
            hint=f"handrail run {plan.request.asked}",
        )
    return tuple(stops)


def _allowed(glass: Glass, policy: Policy, plan: Plan) -> str:
    """Return who breaks it.

    Raises:
        RefusedError: nobody may, or not this person.
    """
    person = plan.request.person
    remedy = f"handrail approve {records.short(plan.digest)}     by another person"
    if not person:
        said = "nobody knows who you are, and somebody has to answer for it"
        raise RefusedError(
            "break-glass.denied", said, hint="git config user.email NAME@EXAMPLE.ORG"
        )
    if not glass.allowed:
        said = "the policy does not allow to break the glass"
        raise RefusedError("break-glass.denied", said, hint=remedy)
    members = policy.groups.get(glass.by, ())
    if glass.by and person not in members:
        said = f"{person} is not in `{glass.by}`, who may break the glass"
        hint = f"ask one of {', '.join(members)}, or: {remedy}"
        raise RefusedError("break-glass.denied", said, hint=hint)
    return person


def _write(world: World, glass: Glass, broken: Break) -> None:
    """Record it as the next of its chain, unless another one waits for its review."""
    for _ in range(_TRIES):
        told = tuple(world.journal.records(CHAIN))
        _refuse_unreviewed(glass, broken.glass.person, breaks(world, told))
        after = told[-1].hash if told else "new"
        try:
            world.journal.write([Entry(CHAIN, "broken", _body(broken), after)])
        except FencedError:
            continue
        return
    raise RefusedError("break-glass.unreviewed", "others break the glass at the same moment")


def _refuse_unreviewed(glass: Glass, person: str, earlier: Sequence[Break]) -> None:
    for one in earlier:
        is_mine = one.glass.person.casefold() == person.casefold()
        if one.review is None and (glass.blocks == "team" or is_mine):
            who = "you" if is_mine else one.glass.person
            raise RefusedError(
                "break-glass.unreviewed",
                f"{who} broke the glass at {one.glass.made_at[:16].replace('T', ' ')} UTC for "
                f"{one.operation} on {one.target}, and nobody has reviewed that",
                hint=f'handrail review {one.glass.id} --because "..."     by anybody else',
            )


def breaks(world: World, told: Sequence[Record] | None = None) -> tuple[Break, ...]:
    """Return every time that the glass was broken, with its review, oldest first.

    A review before the last break was checked when that was made. One after it counts while it
    verifies: should its author leave the team at once, somebody else has to look.
    """
    told = tuple(world.journal.records(CHAIN)) if told is None else told
    last = max((n for n, record in enumerate(told) if record.kind == "broken"), default=0)
    found: dict[str, Break] = {}
    for number, record in enumerate(told):
        if record.kind == "broken":
            broken = records.decode(records.body(record), Break)
            found[broken.glass.id] = broken
            continue
        if record.kind != "reviewed":
            continue
        review = records.decode(records.body(record), Review)
        reviewed = found.get(review.id)
        if reviewed is not None and (number < last or _verifies(world, reviewed, review)):
            found[review.id] = replace(reviewed, review=review)
    return tuple(found.values())


def is_told(world: World, glass: BrokenGlass | None) -> bool:
    """Whether the journal says that this very glass was broken."""
    return glass is not None and any(one.glass == glass for one in breaks(world))


def use(world: World, glass: BrokenGlass, run: str) -> None:
    """Use it up for a run, told by its chain. Twice equals once.

    Raises:
        RefusedError: another run was first.
    """
    if world.journal.single_use(f"{CHAIN} {glass.id}"):
        world.journal.append(CHAIN, _USED, {"id": glass.id, "run": run})
    elif _user(world, glass.id) != run:
        raise RefusedError("plan.stale", f"the glass was broken for another run ({glass.id})")


def _user(world: World, name: str) -> str:
    """Return the chain of the run that used a glass; empty where none is recorded."""
    used = records.told_of(world.journal, CHAIN, _USED)
    return next((str(one["run"]) for one in used if one["id"] == name), "")


def review(world: World, declared: Declared, what: str, key: Path, because: str) -> Break:
    """Sign that somebody else has looked at what was done behind broken glass.

    Args:
        world: the ports.
        declared: for the policy: who reviews.
        what: number of the run, or the beginning of the id.
        key: private SSH key, or the public one of a key that an agent holds.
        because: what was found, in words.

    Raises:
        UsageError: there is no such glass, it was reviewed already, or nothing is said of it.
        RefusedError: by the person who broke it, or one who does not review.
        KeysError: the key cannot be used, or belongs to nobody who is allowed.
    """
    people = signing.people_of(world, key)
    broken, unsigned = _prepared(world, declared, what, people, because)
    signature = world.keys.sign(review_payload(broken, unsigned), key)
    return _record(world, broken, replace(unsigned, signature=signature))


def prepare(world: World, declared: Declared, what: str, because: str) -> tuple[Break, Review]:
    """Return what `world.person` reviews, and the review without its signature.

    For a key that lies elsewhere: `review_payload` is what it signs, `accept` takes it.
    """
    return _prepared(world, declared, what, (world.person,), because)


def accept(world: World, declared: Declared, what: str, said: Review) -> Break:
    """Record a review of `world.person` that `prepare` gave, and that was signed elsewhere.

    Raises:
        RefusedError, UsageError, KeysError: as `review`, or it is not what was prepared.
    """
    broken, anew = _prepared(world, declared, what, (world.person,), said.because)
    if replace(anew, made_at=said.made_at, signature=said.signature) != said:
        raise RefusedError("plan.stale", "this review is not what was to be signed")
    return _record(world, broken, said)


def _prepared(
    world: World, declared: Declared, what: str, people: Sequence[str], because: str
) -> tuple[Break, Review]:
    broken = find(world, what)
    person = _reviewer(declared.policy, broken, people)
    if len(because.split()) < _WORDS:
        raise UsageError(
            "usage", "say in words what was found", hint=f'handrail review {what} --because "..."'
        )
    return broken, Review(broken.glass.id, person, time_text(world.clock.now()), because, "")


def find(world: World, what: str) -> Break:
    """Return what is meant, and waits for a review.

    Raises:
        UsageError: there is no such glass, or it was reviewed already.
    """
    every = breaks(world)
    name = _of_run(world, int(what)) if _is_run(world, what) else what.lower()
    found = [one for one in every if name and one.glass.id.startswith(name)]
    if len(found) != 1:
        waiting = ", ".join(one.glass.id for one in every if one.review is None) or "none"
        raise UsageError(
            "break-glass.nothing",
            f"the glass was not broken for `{what}`",
            hint=f"waiting for a review: {waiting}",
        )
    if found[0].review is not None:
        by = found[0].review
        said = f"{by.person} has reviewed this at {by.made_at[:16].replace('T', ' ')} UTC"
        raise UsageError("break-glass.nothing", said)
    return found[0]


def _is_run(world: World, what: str) -> bool:
    if not what.isdecimal():
        return False
    chains = (records.run_chain(int(what)), records.walk_chain(int(what)))
    return any(world.journal.last(chain) is not None for chain in chains)


def _of_run(world: World, number: int) -> str:
    """Return the id of the glass that was broken for a run; empty where none was."""
    chains = {records.run_chain(number), records.walk_chain(number)}
    for used in records.told_of(world.journal, CHAIN, _USED):
        if used["run"] in chains:
            return str(used["id"])
    for record in world.journal.records(records.run_chain(number)):
        if record.kind == "opened":
            glass = records.body(record)["plan"]["facts"].get("glass")
            return str(glass["id"]) if glass else ""
    return ""


def _reviewer(policy: Policy, broken: Break, people: Sequence[str]) -> str:
    mine = broken.glass.person.casefold()
    if any(person.casefold() == mine for person in people):
        raise RefusedError(
            "keys.own-run",
            f"{broken.glass.person} broke the glass: nobody reviews their own",
            hint="ask somebody else in allowed_signers",
        )
    group = policy.glass.reviewed_by
    members = policy.groups.get(group, ())
    allowed = [person for person in people if not group or person in members]
    if not allowed:
        raise RefusedError(
            "keys.not-allowed",
            f"{people[0]} is not in `{group}`, who review broken glass",
            hint=f"ask one of {', '.join(members)}",
        )
    return allowed[0]


def _record(world: World, broken: Break, said: Review) -> Break:
    signed = review_payload(broken, said)
    signing.insist(world, signed, said.signature, said.person)
    if not _verifies(world, broken, said):
        raise RefusedError(
            "keys.own-run", f"{broken.glass.person} broke the glass: nobody reviews their own"
        )
    world.journal.append(CHAIN, "reviewed", _body(said))
    return replace(broken, review=said)


def _verifies(world: World, broken: Break, said: Review) -> bool:
    """Whether a review is signed by whom it names, and not with a key of who broke the glass."""
    signed, mine = review_payload(broken, said), broken.glass.person
    return (
        said.person.casefold() != mine.casefold()
        and signing.is_signed(world, signed, said.signature, said.person, said.made_at)
        and not signing.is_signed(world, signed, said.signature, mine, said.made_at)
    )


def review_payload(broken: Break, said: Review) -> bytes:
    """Return the bytes that a review signs: what was broken, and what is said of it."""
    glass: Any = plain(broken.glass)
    whom = {"person": said.person, "made_at": said.made_at, "because": said.because}
    return signing.payload({"reviews": glass, **whom})


def _body(value: object) -> dict[str, object]:
    body = plain(value)
    if not isinstance(body, dict):
        raise TypeError("a record is a mapping")
    return body
