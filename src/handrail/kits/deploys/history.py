"""What ran when of an app, from which commit, by whom, approved by whom. From the record alone.

Rules:
- A run counts as deployed once it is confirmed, and no more once it is undone.
- What was deployed is told by the plan that was run: its whole specification stands there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from handrail.core import records
from handrail.core.world import World
from handrail.errors import UsageError
from handrail.kits.deploys.changes import Change, change_of
from handrail.plans.model import Plan
from handrail.plans.walk_records import read_mark, read_walk
from handrail.ports import Journal

CONFIRMED = "confirmed"
_DEPLOYS = frozenset({"deploy", "rollback"})


@dataclass(frozen=True)
class Ran:
    """One run on an app.

    Attributes:
        outcome: as the run ended last; empty while it has not.
        began: ISO 8601 UTC; `ended` likewise, empty while it has not.
        plan: that was run; None where its record is not there any more.
        change: what it changed; None for what changes no version, such as a restart.
    """

    run: int
    outcome: str
    why: str
    began: str
    ended: str
    person: str
    digest: str
    plan: Plan | None
    change: Change | None

    @property
    def operation(self) -> str:
        """Which operation it was; empty where its plan is gone."""
        return self.plan.request.operation if self.plan else ""

    @property
    def summary(self) -> str:
        """What it was to do, in one line; empty where its plan is gone."""
        return self.plan.summary if self.plan else ""

    @property
    def commit(self) -> str:
        """Of the app's repository; empty where there is none."""
        return self.change.commit if self.change else ""

    @property
    def reviewers(self) -> tuple[str, ...]:
        """Who reviewed that commit."""
        told = self.plan.facts.change if self.plan else None
        return told.reviewers if told else ()

    @property
    def is_deployed(self) -> bool:
        """Whether it brought a version, and nothing took that back."""
        return self.outcome == CONFIRMED and self.operation in _DEPLOYS


@dataclass(frozen=True)
class Approved:
    """Whose word let a run begin: who approved, and who broke the glass."""

    by: tuple[str, ...] = ()
    glass: str = ""


def history(world: World, ref: str) -> Iterator[Ran]:
    """Yield the runs of this kit on an app, the newest first."""
    found: dict[int, list[Any]] = {}
    for record in world.journal.records(f"resource-{ref}"):
        said = records.body(record)
        if record.kind == "run-begun" and "digest" in said:
            found.setdefault(int(said["run"]), [record.time, said, "", {}])
        elif record.kind == "run-ended" and int(said["run"]) in found:
            found[int(said["run"])][2:] = [record.time, said]
    for run, (began, begun, ended, end) in reversed(found.items()):
        yield _ran(world.journal, run, began, begun, ended, end)


def saved(world: World, ref: str) -> Ran | None:
    """Return the run whose version should be what runs; None where nothing was deployed."""
    return next((one for one in history(world, ref) if one.is_deployed and one.change), None)


def scaled(world: World, ref: str, since: Ran) -> Ran | None:
    """Return the newest confirmed `scale` of an app after a run; None where there is none."""
    for one in history(world, ref):
        if one.run == since.run:
            return None
        if one.outcome == CONFIRMED and one.operation == "scale":
            return one
    return None


def find(world: World, ref: str, number: int) -> Ran:
    """Return one run on an app.

    Raises:
        UsageError: `deploys.nothing`: there is no such run, or it deployed nothing.
    """
    for one in history(world, ref):
        if one.run == number and one.change is not None and one.operation in _DEPLOYS:
            return one
    raise UsageError(
        "deploys.nothing",
        f"run {number} deployed nothing of {ref}",
        hint=f"handrail deploy history {ref.partition('/')[2]}",
    )


def approved(world: World, ran: Ran) -> Approved:
    """Return whose word let a run begin; nobody where none was needed."""
    chain = records.walk_chain(ran.run)
    digest = _approved_digest(world.journal, ran)
    people: dict[str, str] = {}
    used: list[str] = []
    for record in world.journal.records(f"approvals-{digest}"):
        said = records.body(record)
        if record.kind == "approved":
            people[str(said["id"])] = str(said["person"])
        elif record.kind == "used" and said.get("run") == chain:
            used.append(str(said["id"]))
    glass = ran.plan.facts.glass if ran.plan else None
    by = tuple(dict.fromkeys(people[one] for one in used if one in people))
    return Approved(by, glass.person if glass else "")


def _approved_digest(journal: Journal, ran: Ran) -> str:
    """Return the digest that approvals of a run are over: its own, or its fan-out's."""
    first = next(iter(journal.records(records.walk_chain(ran.run))), None)
    if first is None or ran.plan is None:
        return ran.digest
    walk = read_walk(read_mark(first.kind, first.time, first.body))
    target = ran.plan.target.resource
    steps = [step for lane in walk.lanes if lane.target == target for step in lane.steps]
    return next(
        (str(step.body["approved"]) for step in steps if "approved" in step.body), ran.digest
    )


def _ran(journal: Journal, run: int, began: str, begun: Any, ended: str, end: Any) -> Ran:
    digest = str(begun["digest"])
    plan = _plan(journal, digest)
    return Ran(
        run=run,
        outcome=str(end.get("outcome", "")),
        why=str(end.get("why", "")),
        began=began,
        ended=ended,
        person=str(end.get("person", "")) or (plan.request.person if plan else ""),
        digest=digest,
        plan=plan,
        change=_change(plan),
    )


def _plan(journal: Journal, digest: str) -> Plan | None:
    try:
        return records.find_plan(journal, digest)
    except UsageError:
        return None


def _change(plan: Plan | None) -> Change | None:
    """Return what a plan changes; None where its body is no change of a version."""
    if plan is None or "spec" not in plan.body:
        return None
    try:
        return change_of(plan.body)
    except msgspec.ValidationError:
        return None
