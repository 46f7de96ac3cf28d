"""From a change, and what the platform says of it, to a draft: what every version change has alike.

Rules:
- Pure but for what is given.
- What the platform could not place, and what would leave too few instances, refuses: it would end
  ill, and be put back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from handrail.estate.graph import dependants
from handrail.kits.deploys import fates, telling
from handrail.kits.deploys.apps import is_production
from handrail.plans.drafted import Draft
from handrail.plans.model import Decision

if TYPE_CHECKING:
    from handrail.estate.model import Estate, Resource
    from handrail.kits.deploys.apps import App
    from handrail.kits.deploys.changes import Change
    from handrail.kits.deploys.model import DryRun
    from handrail.plans.facts import Identity
    from handrail.plans.model import LastChange, Section


@dataclass(frozen=True)
class Case:
    """One change to be drafted.

    Attributes:
        resource: the app, as it is declared; `platform` likewise.
        identity: of the platform, as it answers now.
        dry: what the platform says of the change.
        summary: one line.
        sections: for people.
        reviewed: the commit that is deployed, its author and who reviewed it.
        unreadable: facts that could not be read, and why.
        when: what runs was deployed at that time, where Handrail did that.
        insists: whether what the platform cannot place refuses.
    """

    app: App
    resource: Resource
    platform: Resource
    estate: Estate
    identity: Identity
    change: Change
    dry: DryRun
    summary: str
    sections: tuple[Section, ...] = ()
    reviewed: LastChange | None = None
    unreadable: tuple[tuple[str, str], ...] = ()
    when: str = ""
    insists: bool = True


def draft_of(case: Case) -> Draft:
    """Return the draft of a change."""
    app, change = case.app, case.change
    production = is_production(case.estate, case.resource, case.platform)
    touches = touched(case.estate, app)
    risk, because = fates.risk_of(
        case.dry, production=production, needed=needing(case.estate, app.ref, *touches)
    )
    return Draft(
        summary=case.summary,
        body=change.as_body(),
        effects=fates.effects_of(app.ref, change.spec.job, case.dry),
        risk=risk,
        risk_because=because,
        undo=telling.undo_said(change, case.when),
        touches=touches,
        sections=case.sections,
        platform=case.platform.ref,
        identity=case.identity,
        declared_identity=str(case.platform.settings.get("identity") or ""),
        change=case.reviewed,
        unreadable=case.unreadable,
        said=tuple(_said(case)),
        soak_s=app.soak_s,
    )


def touched(estate: Estate, app: App) -> tuple[str, ...]:
    """Return what an operation on the app touches besides: the service that it is."""
    return (app.service,) if app.service in estate.resources else ()


def needing(estate: Estate, *refs: str) -> tuple[str, ...]:
    """Return what cannot do without one of `refs`, nearest first."""
    found = [one.ref for ref in refs for one in dependants(estate, ref) if one.hard]
    return tuple(dict.fromkeys(found))


def _said(case: Case) -> Iterator[Decision]:
    app, dry = case.app, case.dry
    if dry.unplaced:
        yield Decision(
            "placement",
            "refuse",
            f"not all instances find a place: {'; '.join(dry.unplaced)}",
            app.platform,
            "ask for less, or make room, then plan again",
            binding=case.insists,
        )
    after = fates.count_after(dry.groups)
    if dry.changes and dry.groups and after < app.capacity:
        yield Decision(
            "capacity",
            "refuse",
            f"{after} instances would be left, and {app.name} needs {app.capacity}",
            str(case.resource.place),
            "ask for more, or declare a smaller `capacity`",
        )
