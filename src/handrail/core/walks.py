"""Walks as people are told of them: where each stands, and what helps. From the record alone.

Rules:
- No engine is asked, and none is needed: the marks say it all.
- A lane is called by its target, and by what became of its own run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from handrail.core import records
from handrail.core.world import World
from handrail.errors import UsageError
from handrail.plans.fan_out import KIT_ACT
from handrail.plans.moving import show
from handrail.plans.standing import Standing, StepStanding
from handrail.plans.walk import Mark, step_id
from handrail.plans.walk_records import read_mark, read_walk, walk_chain
from handrail.plans.walking import course

# What a lane's step is called in front of people, the worst first.
WORDS = {
    "unknown": "unknown",
    "cut-off": "cut off",
    "undo-failed": "not undone",
    "undo-unknown": "not undone",
    "undo-cut-off": "cut off",
    "failed": "failed",
    "asked": "has a question",
    "undoing": "being undone",
    "begun": "under way",
    "answered": "under way",
    "later": "watched",
    "undone": "undone",
    "done": "done",
    "waiting": "not begun",
}
DOUBTFUL = frozenset({"unknown", "failed", "undo-failed", "undo-unknown"})


@dataclass(frozen=True)
class LaneStanding:
    """One lane: its target, what became of it in one word and one sentence, and its run."""

    target: str
    state: str
    word: str
    why: str
    run: int | None


def marks(world: World, number: int) -> tuple[Mark, ...]:
    """Return a walk's marks, in their order.

    Raises:
        UsageError: there is no such walk.
    """
    found = tuple(
        read_mark(record.kind, record.time, record.body)
        for record in world.journal.records(walk_chain(number))
    )
    if not found:
        raise UsageError("plan.unknown", f"there is no run {number}", hint="handrail runs")
    return found


def standing(world: World, number: int) -> Standing:
    """Return where a walk stands.

    Raises:
        UsageError: there is no such walk.
        JournalError: its records make none.
    """
    told = marks(world, number)
    return show(course(read_walk(told[0]), told), world.clock.now())


def lanes(stands: Standing) -> tuple[LaneStanding, ...]:
    """Return the lanes, in the order of the waves."""
    by_target = {lane.target: lane for lane in stands.walk.lanes}
    return tuple(
        _lane(target, stands.steps[step_id(target, by_target[target].steps[-1].name)])
        for wave in stands.walk.waves
        for target in wave.targets
    )


def _lane(target: str, step: StepStanding) -> LaneStanding:
    run = step.body.get("run")
    number = run if isinstance(run, int) else None
    return LaneStanding(target, step.state, WORDS.get(step.state, step.state), step.why, number)


def by_word(stands: Standing) -> Mapping[str, tuple[LaneStanding, ...]]:
    """Return the lanes by what became of them, the worst first."""
    found: defaultdict[str, list[LaneStanding]] = defaultdict(list)
    for lane in lanes(stands):
        found[lane.word].append(lane)
    order = tuple(dict.fromkeys(WORDS.values()))
    return {word: tuple(found[word]) for word in sorted(found, key=order.index)}


def outcome(stands: Standing) -> str:
    """Return how a walk ended, or where it stands, as a run's outcome is called."""
    if stands.state != "ended":
        return stands.state
    if stands.outcome == "failed" and all(map(_is_as_before, stands.steps.values())):
        return "undone"
    return {"done": "confirmed"}.get(stands.outcome, stands.outcome)


def _is_as_before(step: StepStanding) -> bool:
    """Whether a step never began, or an act of a kit failed and put back what it did."""
    put_back = step.state == "failed" and step.body.get("outcome") == "undone"
    return put_back or step.state in {"waiting", "undone"}


def _is_of_kit(stands: Standing) -> bool:
    return all(step.act == KIT_ACT for lane in stands.walk.lanes for step in lane.steps)


def next_commands(number: int, stands: Standing) -> tuple[tuple[str, str], ...]:
    """Return what can be done about a walk: commands, each with what it does."""
    go_on = f"handrail resume {number}"
    undo = (f"handrail undo {number}", "puts back what was done, in reverse order")
    if stands.state in {"running", "soaking", "undoing", "waiting"}:
        return ((go_on, "takes it up where it is, unless somebody does"),)
    found = by_word(stands)
    is_failed, is_unknown = "failed" in found, "unknown" in found
    rerun = (f"{go_on} --rerun", "goes again over what failed, then over what never began")
    if stands.state == "ended":
        # What a kit put back is planned anew: the world has moved on from that plan.
        is_stale = _is_of_kit(stands) and outcome(stands) == "undone"
        is_left = is_failed and stands.outcome == "failed" and not is_stale
        return (*((rerun,) if is_left else ()), *((undo,) if "done" in found else ()))
    ways = [rerun] if is_failed else []
    if is_unknown:
        on = f"--on {found['unknown'][0].target}"
        ways.append((f"{go_on} --accept {on}", "takes what is there as done"))
        ways.append((f"{go_on} --rerun {on}", "puts back what is there, and goes again"))
    ways.append((go_on, "goes on with what never began"))
    ways.append((f"{go_on} --undo", "puts back what was done, in reverse order"))
    ways.append((f"{go_on} --leave", "ends it as it stands"))
    return tuple(ways)


def summary(world: World, number: int) -> dict[str, Any]:
    """Return a walk in one line's worth of facts, as of a run."""
    told = marks(world, number)
    stands = show(course(read_walk(told[0]), told), world.clock.now())
    operation, _, targets = stands.walk.title.partition(" on ")
    ways = next_commands(number, stands)
    return {
        "run": number,
        "began": told[0].time,
        "operation": operation,
        "target": targets,
        "person": stands.walk.person,
        "outcome": outcome(stands),
        "why": stands.why,
        "lanes": {word: len(found) for word, found in by_word(stands).items()},
        "next": ways[0][0] if ways else "",
    }


def open_ones(
    world: World, sees: Callable[[str], bool] = lambda _: True
) -> tuple[dict[str, Any], ...]:
    """Return the walks that have not ended, and whose every target may be seen, oldest first."""
    chains = world.journal.open_chains(walk_chain(0)[:-1])
    found = []
    for number in sorted(int(chain.rpartition("-")[2]) for chain in chains):
        stands = standing(world, number)
        if stands.state != "ended" and all(sees(lane.target) for lane in stands.walk.lanes):
            found.append(summary(world, number))
    return tuple(found)


def targets(world: World, number: int) -> tuple[str, ...]:
    """Return a walk's targets."""
    return tuple(lane.target for lane in standing(world, number).walk.lanes)


def children(world: World, numbers: Iterable[int]) -> set[int]:
    """Return the numbers of the runs that walks were made of, as far as their marks tell."""
    found: set[int] = set()
    for number in numbers:
        for mark in marks(world, number):
            body = mark.body.get("body")
            run = body.get("run") if isinstance(body, Mapping) else None
            if isinstance(run, int):
                found.add(run)
    return found


def child_of(world: World, number: int, target: str) -> int | None:
    """Return the number of the newest run of a walk on a target; None where it never began."""
    found = records.child(world.journal, number, target)
    return found[0] if found else None
