"""Lessons: how often each contraindication spoke, and what became of it. In its chain, counted.

Rules:
- A plan is counted once, however often it is made: by its digest.
- Counting is no part of judging: what cannot be counted is refused all the same.
- What an incident taught is counted by what it says: moved in its file, it is the same; another
  incident, or another alternative, begins anew.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from handrail.core import records
from handrail.core.world import World
from handrail.errors import DeclarationError
from handrail.estate.model import Estate
from handrail.guards import contraindication
from handrail.guards.contraindication import Spoken
from handrail.plans.judging import Case
from handrail.plans.model import Plan, Taught

Kind = Literal["refused", "passed", "heeded"]


def every(estate: Estate) -> tuple[Spoken, ...]:
    """Return every contraindication that is declared, in the order of the files."""
    return tuple(
        Spoken(resource.ref, found)
        for resource in estate.harmed
        for found in resource.contraindications
    )


def chain_of(spoken: Spoken) -> str:
    """Return the chain that it is counted in."""
    return f"contraindication-{spoken.key}"


def taught(world: World, spoken: Spoken) -> Taught:
    """Return how often it refused, and what became of that."""
    found = world.journal.records(chain_of(spoken))
    counts = Counter(record.kind for record in found)
    return Taught(spoken.key, counts["refused"], counts["passed"], counts["heeded"])


def of_operation(world: World, estate: Estate, operation: str) -> tuple[Taught, ...]:
    """Return what became of plans that speak of `operation`; empty where nobody is harmed by it."""
    return tuple(
        taught(world, spoken) for spoken in every(estate) if spoken.found.operation == operation
    )


def note_refused(world: World, case: Case) -> None:
    """Count that a judged plan is refused, where a contraindication is among what refuses it."""
    if is_refused(case.plan):
        note(world, case, "refused")


def note(world: World, case: Case, kind: Kind) -> None:
    """Count for each contraindication that speaks against a plan; once for a plan and kind."""
    for spoken in contraindication.speaking(case):
        digest = case.plan.digest
        if world.journal.single_use(f"{chain_of(spoken)} {kind} {digest}"):
            body = {"digest": digest, "person": case.plan.request.person}
            world.journal.append(chain_of(spoken), kind, body)


def is_refused(plan: Plan) -> bool:
    """Whether a contraindication is among what refuses a plan."""
    return any(
        one.guard == contraindication.name and one.binding and one.verdict == "refuse"
        for one in plan.decisions
    )


@dataclass(frozen=True)
class Lesson:
    """A contraindication as `handrail check` lists it.

    Attributes:
        protects: the resource that it is declared of.
        open: what its incident left to do.
        replay: number of the run that it is tried on; 0 for none.
        would_refuse: whether it would have refused that; None where it is not known here.
    """

    protects: str
    operation: str
    because: str
    owner: str
    expires: str
    declared: str
    open: tuple[str, ...]
    refused: int
    passed: int
    heeded: int
    replay: int
    would_refuse: bool | None


def lessons(world: World | None, estate: Estate) -> tuple[Lesson, ...]:
    """Return every contraindication with what became of it; of `world` None nothing is counted."""
    return tuple(_lesson(world, estate, spoken) for spoken in every(estate))


def _lesson(world: World | None, estate: Estate, spoken: Spoken) -> Lesson:
    found = spoken.found
    told = taught(world, spoken) if world else Taught(spoken.key)
    return Lesson(
        spoken.ref,
        found.operation,
        found.because,
        found.owner,
        found.expires,
        str(found.place),
        tuple(one.do for one in contraindication.open_actions(estate, found.because)),
        told.refused,
        told.passed,
        told.heeded,
        found.replay,
        replayed(world, estate, spoken) if world and found.replay else None,
    )


def errors(world: World, estate: Estate) -> tuple[DeclarationError, ...]:
    """Return the contraindications that would not have refused the run that they name."""
    return tuple(
        DeclarationError(
            "estate.replay",
            f"the contraindication of `{spoken.found.operation}` for `{spoken.ref}` would not have "
            f"refused run {spoken.found.replay}",
            at=spoken.found.place,
            hint=f"handrail runs show {spoken.found.replay}     says what that was",
        )
        for spoken in every(estate)
        if spoken.found.replay and replayed(world, estate, spoken) is False
    )


def replayed(world: World, estate: Estate, spoken: Spoken) -> bool | None:
    """Whether it would have refused the run that it names; None where no such run is known here.

    A run over several targets would have been refused with any of them.
    """
    plans = records.plans_of_run(world.journal, spoken.found.replay)
    if not plans:
        return None
    return any(contraindication.would_refuse(spoken, plan, estate) for plan in plans)
