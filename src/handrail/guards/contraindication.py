"""Some operations are poison for one resource although they are right elsewhere.

Judged for the target and for everything that depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from handrail.estate.graph import dependants
from handrail.estate.model import Action, Contraindication, Estate
from handrail.plans.canonical import encode, sha256
from handrail.plans.judging import Case
from handrail.plans.model import Decision, Plan

name = "contraindication"
_KEY_CHARACTERS = 8
_TIMES = ("never", "once", "twice")


class Spoken(NamedTuple):
    """A contraindication that speaks against a plan, and the resource that it protects."""

    ref: str
    found: Contraindication

    @property
    def key(self) -> str:
        """What it is counted under: the same wherever it stands in its file, for what it says."""
        said = encode([self.found.because, dict(self.found.unless)])
        return f"{self.ref}-{self.found.operation}-{sha256(said)[:_KEY_CHARACTERS]}"


def judge(case: Case) -> Decision:
    """Refuse an operation that an incident taught not to use here."""
    spoken = next(speaking(case), None)
    if spoken is None:
        return Decision(name, "allow", "no incident speaks against it")
    because = "; ".join((f"it harms {spoken.ref}: {spoken.found.because}", *_more(case, spoken)))
    return Decision(name, "refuse", because, str(spoken.found.place), _remedy(case, spoken.found))


def speaking(case: Case) -> Iterator[Spoken]:
    """Yield what speaks against the plan, for whatever it does: no effect makes it harmless."""
    today = case.plan.facts.now[:10]
    for spoken in _of_operation(case.estate, case.plan):
        found = spoken.found
        if not (found.expires and found.expires < today) and not _is_harmless(found, case.plan):
            yield spoken


def would_refuse(spoken: Spoken, plan: Plan, estate: Estate) -> bool:
    """Whether it speaks against a plan as recorded, whenever that was made."""
    return spoken in _of_operation(estate, plan) and not _is_harmless(spoken.found, plan)


def open_actions(estate: Estate, incident: str) -> Sequence[Action]:
    """Return what was to be done after an incident, and has still to be; empty where unknown."""
    resource = estate.resources.get(incident)
    actions = resource.settings.get("actions") if resource else ()
    if not isinstance(actions, tuple):
        return ()
    return [one for one in actions if isinstance(one, Action) and one.is_open]


def _of_operation(estate: Estate, plan: Plan) -> Iterator[Spoken]:
    """Yield what is declared of the plan's operation for whatever it comes near."""
    operation = plan.request.operation
    harmful = [
        Spoken(resource.ref, found)
        for resource in estate.harmed
        for found in resource.contraindications
        if found.operation == operation
    ]
    if harmful:
        near = {*plan.target.stores, *plan.target.touches}
        for ref in tuple(near):
            near |= {dependant.ref for dependant in dependants(estate, ref)}
        yield from (spoken for spoken in harmful if spoken.ref in near)


def _is_harmless(found: Contraindication, plan: Plan) -> bool:
    given = plan.request.parameters
    return bool(found.unless) and all(given.get(k) == v for k, v in found.unless.items())


def _more(case: Case, spoken: Spoken) -> Iterator[str]:
    """Yield what is known besides: what the incident left to do, and how often this was met."""
    for action in open_actions(case.estate, spoken.found.because):
        who = ", ".join(word for word in (action.owner, action.link) if word)
        yield f"still open: {action.do}{f' ({who})' if who else ''}"
    told = next((one for one in case.plan.facts.taught if one.key == spoken.key), None)
    if told is not None and told.refused:
        yield f"refused {times(told.refused)} before, overridden {times(told.overridden)}"


def times(count: int) -> str:
    """Return how often: `never`, `once`, `twice`, `3 times`."""
    return _TIMES[count] if count < len(_TIMES) else f"{count} times"


def _remedy(case: Case, found: Contraindication) -> str:
    if not found.unless:
        return f"read {found.because}"
    request = case.plan.request
    if case.operation.act and "machine" in request.parameters:
        # The commands for machines have an option for it.
        machine = request.parameters["machine"]
        which = f"{machine} --on {request.target}" if machine else request.target
        return f"handrail {request.operation} {which} --alternative"
    said = " ".join(f"-p {key}={value}" for key, value in found.unless.items())
    return f"harmless with {said}"
