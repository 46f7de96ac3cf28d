"""What a kit says that one operation would do: values that a plan is made of.

Rules:
- All of it but `sections` is covered by the plan's digest: what was approved is what is done.
- No value here holds a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from handrail.plans.effect import Effect
from handrail.plans.facts import Identity
from handrail.plans.model import Consequence, Decision, LastChange, Section


@dataclass(frozen=True)
class Draft:
    """What one operation of a kit would do to one resource.

    Attributes:
        summary: one line: `deploy shop at 3fa2b1c to platform/prod`.
        body: JSON values: everything that doing it and undoing it needs, small.
        effects: what it does, of the resource; empty where nothing would change.
        risk: one of `plans.model.RISKS`, for what it does; the core raises it where it cannot be
            undone.
        risk_because: the one reason that set it.
        undo: what undo will do, in one sentence: `puts back version 12, commit 9c01d44`.
        irreversible: why it cannot be undone; empty where it can. One of the two is set.
        touches: resources besides the target that it touches itself: the services on a node that
            is drained. Contraindications of these, and of their dependants, are judged.
        consequences: what it means for them, where the kit knows better than the graph of needs:
            lost capacity, quorum. Dependants of the target and of `touches` are added by the core.
        sections: what people read besides.
        platform: the resource that is acted on and says who it is: `platform/prod`.
        identity: of it, as it answers now.
        declared_identity: as it was adopted; empty where it never was.
        change: the commit that is deployed, its author and who reviewed it; None where there is no
            such thing.
        unreadable: facts that could not be read, and why: each refuses.
        soak_s: how long everything is watched; else as the operation says.
        said: what the kit itself refuses or requires; binding as they are.
    """

    summary: str
    body: Mapping[str, object]
    effects: tuple[Effect, ...]
    risk: str
    risk_because: str
    undo: str = ""
    irreversible: str = ""
    touches: tuple[str, ...] = ()
    consequences: tuple[Consequence, ...] = ()
    sections: tuple[Section, ...] = ()
    platform: str = ""
    identity: Identity | None = None
    declared_identity: str = ""
    change: LastChange | None = None
    unreadable: tuple[tuple[str, str], ...] = ()
    said: tuple[Decision, ...] = ()
    soak_s: int | None = None
