"""Running: one plan, once; going on with a run that was cut off; undoing one that ended.

Rules:
- A run is its journal (`run.py`): what is here takes the target's lock, sees that no other run on
  it hangs unfinished, and lets the run proceed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType

from handrail.core import backups, deciding, records, standing, together
from handrail.core.deciding import Decided
from handrail.core.outcome import Outcome
from handrail.core.run import OfWalk, Run
from handrail.core.watching import Rounds
from handrail.core.world import Talk, World
from handrail.errors import RefusedError


def begin(
    world: World, decided: Decided, talk: Talk, *, opened: Callable[[int], None] = lambda _: None
) -> Outcome:
    """Run a judged plan; `opened` is told the run's number before anything is done.

    Raises:
        RefusedError: a guard refuses, the plan is stale, or somebody else holds the target.
        WaitingError: somebody has to act first.
    """
    return _ended(_begin_run(world, decided, talk, None, opened))


def begin_in_walk(world: World, decided: Decided, talk: Talk, of_walk: OfWalk) -> Outcome | None:
    """Run a judged plan as part of a walk; None when all is done but its watch: see `look`.

    Raises:
        RefusedError: a guard refuses, the plan is stale, or somebody else holds the target.
        WaitingError: somebody has to act first.
    """
    return _begin_run(world, decided, talk, of_walk, lambda _: None)


def _begin_run(
    world: World,
    decided: Decided,
    talk: Talk,
    of_walk: OfWalk | None,
    opened: Callable[[int], None],
) -> Outcome | None:
    plan = decided.plan
    standing.settle(world, plan, runs=True)
    deciding.insist(plan)
    target = plan.target.resource
    who = f"{world.person or 'somebody'}, {plan.request.operation}"
    with _held(world, decided, who):
        open_runs = _open_runs(world, decided)
        if open_runs:
            raise _cut_off(open_runs[0], target)
        _forget_old(world, decided)
        number = world.journal.open_run()
        run = Run(world, number, decided, talk, of_walk=of_walk)
        walk = {"walk": of_walk.number, "attempt": of_walk.attempt} if of_walk else {}
        run.note("opened", plan=plan, person=world.person, **walk)
        _begin(world, decided, number, walk)
        opened(number)
        with _saying_how_to_go_on(talk, number):
            return run.proceed()


def _ended(outcome: Outcome | None) -> Outcome:
    """Return how a run ended that watches itself."""
    if outcome is None:
        raise AssertionError("a run of no walk watches itself")
    return outcome


def resume(world: World, number: int, decided: Decided, talk: Talk, *, choice: str = "") -> Outcome:
    """Go on with a run that was cut off.

    Args:
        world: the ports.
        number: of the run.
        decided: the recorded plan, with its declarations.
        talk: told what happens.
        choice: `undo` or `accept` for a step whose outcome is unknown; empty to ask.

    Raises:
        UsageError: there is nothing to resume, or nothing to accept.
        RefusedError: another store answers, or another run has to be resumed first.
        WaitingError: the outcome of a step is unknown and somebody has to say what to do.
    """
    return _ended(_resume(world, number, decided, talk, choice, None))


def resume_in_walk(
    world: World, number: int, decided: Decided, talk: Talk, of_walk: OfWalk, *, choice: str = ""
) -> Outcome | None:
    """Go on with a run of a walk; None when all is done but its watch: see `look`.

    Raises:
        HandrailError: as `resume`.
    """
    return _resume(world, number, decided, talk, choice, of_walk)


def look(
    world: World, number: int, decided: Decided, talk: Talk, so_far: Rounds, *, is_over: bool
) -> tuple[Rounds, Outcome | None]:
    """Do one round of the watch of a run of a walk; the outcome is None until it was the last.

    Raises:
        RefusedError: another process holds the target.
    """
    with _held(world, decided, f"watch of run {number}"):
        run = Run(world, number, decided, talk)
        if run.ended():
            return so_far, Outcome(number, run.ended(), run.why)
        return run.look(so_far, is_over=is_over)


def _resume(
    world: World,
    number: int,
    decided: Decided,
    talk: Talk,
    choice: str,
    of_walk: OfWalk | None,
) -> Outcome | None:
    target = decided.plan.target.resource
    with _held(world, decided, f"resume of run {number}"):
        run = Run(world, number, decided, talk, choice=choice, of_walk=of_walk)
        if run.ended():
            return run.tell_resource()
        run.refuse_other_target()
        open_runs = _open_runs(world, decided)
        if open_runs and number not in open_runs:
            raise _cut_off(open_runs[0], target)
        run.note("resumed", person=world.person)
        _begin(world, decided, number)  # it may have been cut off before
        with _saying_how_to_go_on(talk, number):
            return run.proceed()


def undo(
    world: World, number: int, decided: Decided, talk: Talk, *, lose_newer: bool = False
) -> Outcome:
    """Undo a run that has ended.

    Raises:
        UsageError: it did nothing, or was undone already.
        RefusedError: others wrote since, and `lose_newer` was not said; it is too long ago; it is
            irreversible; another store answers; or another run has to be resumed first.
    """
    target = decided.plan.target.resource
    with _held(world, decided, f"undo of run {number}"):
        run = Run(world, number, decided, talk)
        run.refuse_undo(lose_newer=lose_newer)
        open_runs = _open_runs(world, decided)
        if open_runs:
            raise _cut_off(open_runs[0], target)
        run.note("undo-asked", person=world.person)
        _begin(world, decided, number)
        with _saying_how_to_go_on(talk, number):
            return run.undo("undone", f"asked for by {world.person or 'somebody'}")


@contextmanager
def _held(world: World, decided: Decided, who: str) -> Iterator[None]:
    """Hold the target, and every store that it is made of, in one order for everybody."""
    with ExitStack() as held:
        for ref in sorted(together.refs(decided.resource)):
            held.enter_context(world.locks.hold(ref, who))
        yield


def _open_runs(world: World, decided: Decided) -> tuple[int, ...]:
    return records.unfinished(world.journal, *together.refs(decided.resource))


def _begin(
    world: World, decided: Decided, number: int, walk: Mapping[str, int] = MappingProxyType({})
) -> None:
    """Let every store know which run changes it, and of which walk. Twice equals once."""
    for ref in together.refs(decided.resource):
        if number not in records.unfinished(world.journal, ref):
            world.journal.append(f"resource-{ref}", "run-begun", {"run": number, **walk})


def _cut_off(number: int, target: str) -> RefusedError:
    return RefusedError(
        "run.unfinished",
        f"run {number} on {target} was cut off",
        hint=f"handrail resume {number}",
    )


@contextmanager
def _saying_how_to_go_on(talk: Talk, number: int) -> Iterator[None]:
    """Say what comes next when Ctrl-C was pressed where nobody asks what it means."""
    try:
        yield
    except KeyboardInterrupt:
        talk.end("run", f"run {number} is cut off; next: handrail resume {number}", ok=False)
        raise


def _forget_old(world: World, decided: Decided) -> None:
    """Remove what runs kept to be undone with, where that time is over."""
    oldest_s = world.clock.now().timestamp() - decided.declared.policy.undo_age_s
    for kept in (world.state / "runs").glob("*/after*"):
        if kept.stat().st_mtime < oldest_s:
            shutil.rmtree(kept) if kept.is_dir() else kept.unlink()
    backups.prune(world, decided.declared, decided.resource)
