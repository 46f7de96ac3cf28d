"""Small builders of values: each gives something whole, and a test names only what it is about.

Rules:
- Everything is well until a test says otherwise: `make_case()` is a plan that may run.
- Nothing here is read from a file, a clock or a store.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from handrail.errors import Place
from handrail.estate.model import (
    Address,
    BackupRule,
    Environment,
    Estate,
    Need,
    Resource,
    StoreSettings,
)
from handrail.operations.model import Operation, Selector, Undo, Watch
from handrail.plans.effect import Effect
from handrail.plans.facts import Identity, Measure, TableMeasure
from handrail.plans.judging import Case
from handrail.plans.model import (
    Approval,
    Facts,
    LastChange,
    Material,
    Plan,
    Proof,
    Rehearsal,
    Request,
)
from handrail.plans.planning import draft
from handrail.plans.policy import Policy

ANA, BEN, CHI = "ana@example.org", "ben@example.org", "chi@example.org"
NOW = "2026-01-31T09:00:00.000000Z"
STORE = "store/pilot-db"
IDENTITY = Identity("sqlite:5d0c", "/srv/data/pilot.db", "SQLite 3.40.1")
MEASURE = Measure((TableMeasure("devices", 20), TableMeasure("sessions", 500)), 8192)


def make_store(**changed: Any) -> Resource:
    """Return `store/pilot-db`: durable, adopted, backed up."""
    own = {name: changed.pop(name) for name in StoreSettings.__annotations__ if name in changed}
    settings = StoreSettings(
        kind="sqlite",
        url=Address(value="data/pilot.db"),
        durability="durable",
        holds=(),
        identity=str(IDENTITY),
        backups=BackupRule("object/backups", 86400, 14, 7 * 86400),
    )
    resource = Resource(
        "store",
        "pilot-db",
        Place("estate/pilot.yaml", 6),
        "pilot",
        store=replace(settings, **own),
    )
    return replace(resource, **changed)


def make_service(name: str, *needs: str, **changed: Any) -> Resource:
    """Return `service/name`; a need that ends in `?` is soft."""
    place = Place("estate/services.yaml", 2)
    listed = tuple((Need(n.removesuffix("?"), hard=not n.endswith("?")), place) for n in needs)
    return replace(Resource("service", name, place, "pilot", listed), **changed)


def make_estate(*resources: Resource, **environment: Any) -> Estate:
    """Return an estate of `resources`; of the one store when there are none."""
    own = {"production": False, "max_age_s": 30 * 86400, "max_rows": None} | environment
    pilot = Environment(name="pilot", place=Place("estate/pilot.yaml", 3), **own)
    found = resources or (make_store(),)
    return Estate({"pilot": pilot}, {resource.ref: resource for resource in found})


def make_operation(**changed: Any) -> Operation:
    """Return `reset-pilot`: a script for environment `pilot`, undone by restore."""
    found = Operation(
        name="reset-pilot",
        argv=("./scripts/reset_pilot.sh",),
        on=Selector("store", environment="pilot"),
        undo=Undo("restore"),
        watch=Watch(),
        place=Place("operations/reset-pilot.yaml", 1),
    )
    return replace(found, **changed)


def make_effect(verb: str = "delete", name: str = "sessions", rows: int | None = 500) -> Effect:
    """Return one effect on a table of the pilot's store."""
    return Effect(STORE, verb, "table", name, rows)


def make_proof(**changed: Any) -> Proof:
    """Return the proof of a backup, an hour old."""
    an_hour_ago = "2026-01-31T08:00:00.000000Z"
    return replace(Proof("b-1", an_hour_ago, an_hour_ago, 8192, 0.1, 0.2, equal=True), **changed)


def make_rehearsal(*effects: Effect, **changed: Any) -> Rehearsal:
    """Return a rehearsal that went well an hour ago, with these effects."""
    found = Rehearsal(
        id="7f3a91c2",
        key="k",
        made_at="2026-01-31T08:00:00.000000Z",
        person=ANA,
        exit_code=0,
        ended="exited",
        duration_s=2.0,
        output_bytes=0,
        effects=effects or (make_effect(),),
        undone=True,
        undo_s=0.5,
        undo_effects=(),
        residue=(),
        reached=(),
        unlisted=(),
        confined="",
        traced="",
        measure=MEASURE,
        proof=make_proof(),
    )
    return replace(found, **changed)


def make_facts(**changed: Any) -> Facts:
    """Return facts of a store that answers, a committed and reviewed script, a fresh rehearsal."""
    found = Facts(
        now=NOW,
        identity=IDENTITY,
        measure=MEASURE,
        commit="a3f91c0" + "0" * 33,
        change=LastChange("a3f91c0" + "0" * 33, ANA, (BEN,), "2026-01-31T07:00:00.000000Z"),
        rehearsal=make_rehearsal(),
        proof=make_proof(),
    )
    return replace(found, **changed)


def make_request(**changed: Any) -> Request:
    """Return Ana's request to run `reset-pilot`."""
    return replace(Request("reset-pilot", STORE, {}, ANA, ""), **changed)


def make_plan(
    *,
    estate: Estate | None = None,
    operation: Operation | None = None,
    policy: Policy | None = None,
    facts: Facts | None = None,
    request: Request | None = None,
    material: str = "c",
    target: str = STORE,
) -> Plan:
    """Return a plan that is not yet judged."""
    found = estate or make_estate()
    return draft(
        request or make_request(),
        operation or make_operation(),
        found.resources[target],
        found,
        policy or Policy(),
        Material(material * 64, (("scripts/reset_pilot.sh", material * 64),)),
        facts or make_facts(),
    )


def make_case(
    *,
    estate: Estate | None = None,
    operation: Operation | None = None,
    policy: Policy | None = None,
    facts: Facts | None = None,
    request: Request | None = None,
    **changed: Any,
) -> Case:
    """Return what a guard judges; `changed` are fields of the plan."""
    found = make_plan(
        estate=estate, operation=operation, policy=policy, facts=facts, request=request
    )
    return Case(
        replace(found, **changed),
        operation or make_operation(),
        estate or make_estate(),
        policy or Policy(),
    )


def make_approval(digest: str, person: str = BEN, **changed: Any) -> Approval:
    """Return an approval of `digest` that counts for another hour."""
    found = Approval(
        id="a-1",
        digest=digest,
        person=person,
        groups=(),
        made_at="2026-01-31T08:30:00.000000Z",
        expires_at="2026-01-31T10:00:00.000000Z",
        named_target=False,
        because="",
        signature="s",
    )
    return replace(found, **changed)
