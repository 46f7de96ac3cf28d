"""Beginning an operation of a kit where nobody looks on: for web hooks and schedules.

Rules:
- One request, one run: begun once more by the same request, also after a crash, it is that run.
- Whoever follows a run may die: any engine on the same journal goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable

from handrail.core import kit_running, records, walks
from handrail.core.outcome import OUTCOMES, Outcome
from handrail.core.walk_journal import known_run
from handrail.core.world import World
from handrail.plans.canonical import encode, sha256
from handrail.plans.model import Plan
from handrail.ports import Engine

# Gives what runs walks, for whoever asks; closed by whom it was given to.
Engines = Callable[[World], Engine]


def request_id(*parts: object) -> str:
    """Return what a request is known by: the same for the same parts."""
    return sha256(encode([str(part) for part in parts]))[:32]


def found(world: World, request: str) -> int:
    """Return the run that a request began; 0 where it began none."""
    return known_run(world.journal, request) or 0


def run(
    world: World, plan: Plan, engines: Engines, request: str, opened: Callable[[int], None]
) -> Outcome | None:
    """Run a judged plan of a kit to its end; None where it waits for a human.

    Args:
        world: the ports, with the person who asks.
        plan: judged, and allowed.
        engines: gives what runs it.
        request: what it is known by; see `request_id`.
        opened: told the run's number before anything is done.
    """
    engine = engines(world)
    try:
        number = engine.submit(kit_running.walk_of(plan, world.person), request)
        opened(number)
        engine.follow(number, lambda _: None)
    finally:
        engine.close()
    return ended(world, number)


def ended(world: World, number: int) -> Outcome | None:
    """Return how a run of a kit ended, as its records have it; None while it has not."""
    stands = walks.standing(world, number)
    if stands.state != "ended":
        return None
    told = records.run_end(world.journal, walks.targets(world, number)[0], number)
    said = {"done": "confirmed"}.get(stands.outcome) or str(told.get("outcome", stands.outcome))
    outcome = said if said in OUTCOMES else "failed"
    return Outcome(number, outcome, str(told.get("why") or stands.why))
