"""Acts: what the steps of a walk do. Here `run`: one child of a fan-out, with its watch.

Rules:
- A child is a run of its own, with its own records: what became of it, they tell, not the walk.
- What was approved is run: a child whose plan is another one by now is refused in its lane.
- The watch goes round by round: no thread waits for a soak. Time that nobody looked does not count.
- Twice equals once: a child that was begun is gone on with, one that has ended says how.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from threading import Lock

from handrail.core import covering, deciding, kit_running, recalling, records, running
from handrail.core.covering import Cover
from handrail.core.deciding import Decided
from handrail.core.outcome import Outcome
from handrail.core.run import OfWalk
from handrail.core.run_records import RunRecords
from handrail.core.watching import Rounds
from handrail.core.world import Declared, Talk, World
from handrail.errors import RefusedError
from handrail.plans import fan_out as fan_outs
from handrail.plans.canonical import time_text
from handrail.plans.model import Plan
from handrail.ports import Act, ActCall, Acted

# Of a gap between two rounds at most so many count: the engine was down, or the clock jumped.
_COUNTED_ROUNDS = 3


def acts(world: World, declared: Declared, talk_to: Callable[[str], Talk]) -> Mapping[str, Act]:
    """Return the acts by name; `talk_to` gives who is told of a target's run."""
    return {
        fan_outs.ACT: RunAct(world, declared, talk_to),
        fan_outs.KIT_ACT: kit_running.KitRun(world, declared, talk_to),
    }


class RunAct:
    """`ports.Act`: a child run up to its watch, then a round of the watch at a time."""

    def __init__(self, world: World, declared: Declared, talk_to: Callable[[str], Talk]) -> None:
        self._world = world
        self._declared = declared
        self._talk_to = talk_to
        self._claiming = Lock()

    def do(self, call: ActCall) -> Acted:
        """Begin the child, go on with it, or look after it once."""
        child = _Child.find(self._world, call)
        if child is not None and child.attempt == call.attempt:
            if child.is_soaking:
                return self._look(call, child.number)
            if child.was_let_go:
                return self._begin(call)
            if child.outcome:
                return _acted(child.number, child.outcome, child.why)
            return self._go_on(call, child.number)
        if child is not None and not child.outcome:
            # Somebody lets it go again: what an earlier attempt may have done is put back first.
            self._go_on(call, child.number, "undo")
        return self._begin(call)

    def check(self, call: ActCall) -> Acted:
        """Say what became of the child, as its own records have it."""
        child = _Child.find(self._world, call)
        if child is None or child.attempt != call.attempt:
            return Acted("never", "no run of it was opened")
        if child.outcome:
            return _acted(child.number, child.outcome, child.why)
        if child.is_soaking:
            return self._later(call, child.number, Rounds(), 0.0, 0)
        if child.is_unknown:
            why = f"run {child.number} was cut off while its script ran"
            return Acted("unknown", why, {"run": child.number})
        return Acted("never", f"run {child.number} is gone on with", {"run": child.number})

    def undo(self, call: ActCall) -> Acted:
        """Undo the child, unless it did nothing, or has been."""
        child = _Child.find(self._world, call)
        if child is None:
            return Acted("done", "it never began")
        if child.is_undone or child.outcome == "refused":
            return Acted("done", "nothing of it is left to undo", {"run": child.number})
        talk = self._talk_to(call.target)
        decided = self._recorded(child.number)
        if child.outcome:
            if not child.did_something:
                return Acted("done", "it changed nothing", {"run": child.number})
            outcome = running.undo(self._world, child.number, decided, talk)
        else:
            outcome = running.resume(self._world, child.number, decided, talk, choice="undo")
        is_undone = outcome.outcome == "undone"
        return Acted("done" if is_undone else "failed", outcome.why, {"run": child.number})

    def _begin(self, call: ActCall) -> Acted:
        cover = Cover(str(call.body["fan_out"]), call.run)
        with self._claiming:
            covering.claim(self._world, cover)
        decided = self._decide(call, cover)
        talk = self._talk_to(call.target)
        # Whose walk it is, whoever's process goes on with it.
        world = replace(self._world, person=str(call.body["person"]))
        outcome = running.begin_in_walk(world, decided, talk, _of_walk(call))
        return self._begun(call, outcome)

    def _go_on(self, call: ActCall, number: int, choice: str = "") -> Acted:
        decided, talk = self._recorded(number), self._talk_to(call.target)
        outcome = running.resume_in_walk(
            self._world, number, decided, talk, _of_walk(call), choice=choice
        )
        return self._begun(call, outcome)

    def _begun(self, call: ActCall, outcome: Outcome | None) -> Acted:
        child = _Child.find(self._world, call)
        if child is None:
            raise AssertionError("a run of the walk has no record")
        if child.was_let_go and call.is_over():
            now = time_text(self._world.clock.now())
            return Acted("later", child.why, {"run": child.number}, now)
        if outcome is not None:
            return _acted(outcome.run, outcome.outcome, outcome.why)
        return self._look(call, child.number)

    def _decide(self, call: ActCall, cover: Cover) -> Decided:
        """Plan the child anew, and insist that it is the one that was approved."""
        digest = str(call.body["plan"])
        plan: Plan = records.find_plan(self._world.journal, digest)
        request = replace(plan.request, person=str(call.body["person"]))
        operation = self._declared.operations.get(request.operation)
        resource = self._declared.estate.resources.get(request.target)
        decided = None
        if operation is not None and resource is not None:
            decided = deciding.again(
                self._world, self._declared, operation, resource, request, cover
            )
        if decided is None or decided.plan.digest != digest:
            raise RefusedError(
                "plan.stale",
                f"the plan of {call.target} is another now than the one that was approved",
                hint=f"handrail plan {request.asked}     shows the new one",
            )
        return decided

    def _recorded(self, number: int) -> Decided:
        return recalling.recorded(self._world, self._declared, number, None)

    def _look(self, call: ActCall, number: int) -> Acted:
        """Do one round of the watch."""
        decided = self._recorded(number)
        watch = decided.operation.watch
        so_far, soaked_s, since = _read(call, number)
        now = self._world.clock.now()
        if since is not None:
            passed_s = max(0.0, (now - since).total_seconds())
            soaked_s += min(passed_s, watch.every_s * _COUNTED_ROUNDS)
        try:
            so_far, outcome = running.look(
                self._world,
                number,
                decided,
                self._talk_to(call.target),
                so_far,
                is_over=soaked_s >= watch.soak_s,
            )
        except RefusedError as error:
            if error.code != "run.locked":
                raise
            outcome = None  # somebody else holds the target: looked again soon
        if outcome is not None:
            return _acted(number, outcome.outcome, outcome.why)
        wait_s = min(watch.every_s, max(watch.soak_s - soaked_s, 0))
        return self._later(call, number, so_far, soaked_s, wait_s)

    def _later(
        self, call: ActCall, number: int, so_far: Rounds, soaked_s: float, wait_s: float
    ) -> Acted:
        now = self._world.clock.now()
        body = {
            "run": number,
            "attempt": call.attempt,
            "count": so_far.count,
            "bad": dict(so_far.bad),
            "soaked_s": round(soaked_s, 3),
            "looked_at": time_text(now),
        }
        return Acted("later", "", body, time_text(now + timedelta(seconds=wait_s)))


class _Child:
    """The newest run of a walk on one target, as its records tell."""

    def __init__(self, told: RunRecords, number: int, attempt: int) -> None:
        self.number = number
        self.attempt = attempt
        self.outcome = told.outcome
        self.why = str(told.body("ended").get("why", "")) if told.outcome else ""
        self.is_undone = told.is_undone
        self.did_something = bool(told.body("measured").get("effects", "step-started" in told))
        # Stopped with the walk before it had changed anything: it goes again when the walk does.
        self.was_let_go = self.outcome == "stopped" and not self.did_something
        self.is_soaking = not self.outcome and told.last in {"watch-begun", "health"}
        begun = "step-started" in told and "step-done" not in told
        self.is_unknown = begun and "told" not in told and not self.outcome

    @classmethod
    def find(cls, world: World, call: ActCall) -> _Child | None:
        """Return it; None where the walk has begun none there."""
        found = records.child(world.journal, call.run, call.target)
        return None if found is None else cls(RunRecords(world, found[0]), *found)


def _of_walk(call: ActCall) -> OfWalk:
    return OfWalk(call.run, call.attempt, call.is_over)


def _acted(number: int, outcome: str, why: str) -> Acted:
    body = {"run": number, "outcome": outcome}
    return Acted("done" if outcome == "confirmed" else "failed", why, body)


def _read(call: ActCall, number: int) -> tuple[Rounds, float, datetime | None]:
    """Return the rounds so far, how long they soaked, and when the last one was."""
    before = call.before
    if before.get("run") != number or "looked_at" not in before:
        return Rounds(), 0.0, None
    rounds = Rounds(int(before["count"]), dict(before["bad"]))
    return rounds, float(before["soaked_s"]), datetime.fromisoformat(str(before["looked_at"]))
