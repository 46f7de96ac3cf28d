"""Surveying: where things stand in a repository, from the record alone: no store is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from handrail.core import (
    asking,
    backing_up,
    breaking,
    clones,
    holding,
    records,
    scheduling,
    walks,
)
from handrail.core.recalling import story
from handrail.core.world import Declared, World
from handrail.plans.canonical import plain
from handrail.plans.deeds import next_command
from handrail.plans.model import Plan
from handrail.plans.schedule import said

_RUNS = 5
_PLANS = 5
_LINE = ("run", "began", "operation", "target", "person", "outcome")


def survey(
    world: World, declared: Declared, sees: Callable[[str], bool] = lambda _: True
) -> dict[str, Any]:
    """Return what waits for somebody, what was cut off, what ran last.

    Args:
        world: the ports.
        declared: the team's declarations.
        sees: whether whoever asks may see a resource.
    """
    runs, _ = latest(world, _RUNS, sees)
    newest: dict[str, Plan] = {}
    for plan in records.plans(world.journal):
        kept = newest.get(plan.request.operation)
        if sees(plan.target.resource) and (kept is None or plan.facts.now >= kept.facts.now):
            newest[plan.request.operation] = plan
    waiting = [_waiting(world, plan) for plan in newest.values() if plan.verdict == "require"]
    return {
        "operations": list(declared.own_operations),
        "resources": sum(sees(ref) for ref in declared.estate.resources),
        "waiting": waiting[-_PLANS:],
        "unfinished": [run for run in runs if run["outcome"].startswith("unfinished")],
        "runs": runs,
        "walks": list(walks.open_ones(world, sees)),
        "glass": [
            plain(one) for one in breaking.breaks(world) if one.review is None and sees(one.target)
        ],
        "questions": [plain(one) for one in asking.open_questions(world) if sees(one.resource)],
        "held": [plain(held) for held in holding.standing(world) if sees(held.resource)],
        "schedules": [one for one in _by_the_clock(world, declared) if sees(one["target"])],
        "leftover_clones": [at.name for at in clones.leftover(world)],
    }


def _by_the_clock(world: World, declared: Declared) -> Iterator[dict[str, str]]:
    """Yield what should have happened by itself and did not, or does not while it is paused."""
    for one in scheduling.standings(world, declared):
        name = " ".join(part for part in (one.operation, one.schedule.name) if part)
        if one.paused:
            until = str(one.paused.get("until", ""))[:16].replace("T", " ")
            text = f"by {one.paused.get('person') or 'somebody'}"
            text += f" until {until} UTC" if until else ""
            text += f": {one.paused.get('because') or 'no reason given'}"
            resume = f"handrail schedules resume {one.operation}"
            yield _late(name, one.target, "paused", text, resume)
        elif one.overdue and one.expected_by is not None:
            text = f"no success by {said(one.expected_by)}"
            yield _late(name, one.target, "overdue", text, "handrail schedules")
    for kept in backing_up.standings(world, declared):
        if kept.overdue and kept.due_by is not None:
            newest = f"the newest is of {kept.made_at[:16].replace('T', ' ')} UTC"
            text = f"since {said(kept.due_by)}; {newest if kept.made_at else 'there is none'}"
            yield _late(f"backup of {kept.store}", kept.store, "overdue", text)
        elif kept.last == "failed":
            yield _late(f"backup of {kept.store}", kept.store, "failed", kept.why)


def _late(
    name: str, target: str, state: str, text: str, following: str = "handrail schedules"
) -> dict[str, str]:
    return {"name": name, "target": target, "state": state, "text": text, "next": following}


def _waiting(world: World, plan: Plan) -> dict[str, str]:
    is_approved = bool(records.approvals(world.journal, plan.digest))
    short = records.short(plan.digest)
    return {
        "plan": short,
        "operation": plan.request.operation,
        "target": plan.request.target,
        "person": plan.request.person,
        "risk": plan.risk,
        "next": f"handrail run {short}" if is_approved else next_command(plan),
    }


def summary(world: World, number: int) -> dict[str, Any]:
    """Return a run in one line's worth of facts."""
    told = story(world, number)
    opened = next((body for _, kind, body in told if kind == "opened"), {})
    last_kind, last = (told[-1][1], told[-1][2]) if told else ("", {})
    request = opened.get("plan", {}).get("request", {})
    return {
        "run": number,
        "began": told[0][0] if told else "",
        "operation": request.get("operation", "?"),
        "target": request.get("target", "?"),
        "person": opened.get("person", ""),
        "outcome": last.get("outcome", "") if last_kind == "ended" else f"unfinished ({last_kind})",
    }


def latest(
    world: World,
    most: int | None,
    sees: Callable[[str], bool] = lambda _: True,
    *,
    with_children: bool = False,
) -> tuple[list[dict[str, Any]], int]:
    """Return the newest runs and walks in one line's worth of facts each, and how many there are.

    Args:
        world: the ports.
        most: of them; None for all.
        sees: whether whoever asks may see a resource.
        with_children: also the runs of walks.
    """
    of_walks = set(records.walks(world.journal))
    hidden = set() if with_children else walks.children(world, of_walks)
    numbers = sorted({*records.runs(world.journal), *of_walks} - hidden, reverse=True)
    found: list[dict[str, Any]] = []
    for number in numbers:
        if number in of_walks:
            is_seen = all(map(sees, walks.targets(world, number)))
            more = walks.summary(world, number)
            told = {name: more[name] for name in _LINE}
        else:
            told = summary(world, number)
            is_seen = sees(told["target"])
        if is_seen:
            found.append(told)
        if len(found) == most:
            break
    return found, len(numbers)
