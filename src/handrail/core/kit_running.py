"""Running an operation of a kit: one lane of a walk, from compare-and-set to the end of its watch.

Rules:
- What was approved is done: it is drafted anew first, and refused where that gives another plan.
- It is followed, then watched, look by look: no thread waits meanwhile. Ill, stuck or silent for
  too long, it is put back at once; only a watch that is well confirms it.
- After a crash the platform itself says whether it was begun (`KitAct.found`).
- One run at a time on a resource: `run-begun` until `run-ended` in the resource's chain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

from handrail.core import breaking, covering, deciding, kit_act, records, watching
from handrail.core.covering import Cover
from handrail.core.deciding import Decided
from handrail.core.kit_act import Job, KitAct, Stage
from handrail.core.watching import Probe, Rounds
from handrail.core.world import Declared, Talk, World
from handrail.errors import HandrailError, PlatformError, RefusedError, UsageError
from handrail.plans import drafting
from handrail.plans.canonical import time_text
from handrail.plans.fan_out import KIT_ACT
from handrail.plans.model import Plan
from handrail.plans.walk import Bounds, Lane, Walk, WalkStep, Wave
from handrail.ports import ActCall, Acted

# Of a gap between two rounds at most so many count: the engine was down, or the clock jumped.
_COUNTED_ROUNDS = 3
# Between two looks at a platform that is away.
_AWAY_LOOK_S = 5.0


def walk_of(plan: Plan, person: str) -> Walk:
    """Return the walk of one lane that an engine goes."""
    target = plan.target.resource
    # Its one failure is borne: there is nothing left to hold for.
    return Walk(
        digest=plan.digest,
        title=f"{plan.request.operation} on {target}",
        person=person,
        lanes=(Lane(target, (step_of(plan.digest, plan, person),)),),
        waves=(Wave("all", (target,)),),
        bounds=Bounds(at_once=1, failures=1),
    )


def step_of(approved: str, plan: Plan, person: str) -> WalkStep:
    """Return the step of a lane; `approved` is the digest that approvals are over."""
    body = {"approved": approved, "plan": plan.digest, "person": person}
    can_undo = plan.steps[0].undo != drafting.IRREVERSIBLE
    return WalkStep("run", KIT_ACT, body, recovery="check", undo=can_undo)


@dataclass(frozen=True)
class _Going:
    """What a lane's last mark keeps.

    Attributes:
        stage: `uncertain` (whether it was applied), `following` or `watching`.
        body: of the kit's last stage.
        since: when it was applied, ISO 8601 UTC.
    """

    stage: str
    attempt: int
    body: Mapping[str, object]
    since: str
    rounds: Rounds = field(default_factory=Rounds)
    soaked_s: float = 0.0
    looked_at: str = ""

    @classmethod
    def read(cls, call: ActCall) -> _Going | None:
        """Return what was kept by this attempt; None where it has not begun to act."""
        told: Mapping[str, Any] = call.before
        if "stage" not in told or told.get("attempt") != call.attempt:
            return None
        rounds = Rounds(int(told["count"]), dict(told["bad"]))
        return cls(
            told["stage"],
            int(told["attempt"]),
            dict(told["body"]),
            told["since"],
            rounds,
            float(told["soaked_s"]),
            told["looked_at"],
        )

    def as_body(self) -> dict[str, object]:
        """Return it as a mark keeps it."""
        return {
            "stage": self.stage,
            "attempt": self.attempt,
            "body": dict(self.body),
            "since": self.since,
            "count": self.rounds.count,
            "bad": dict(self.rounds.bad),
            "soaked_s": round(self.soaked_s, 3),
            "looked_at": self.looked_at,
        }


class KitRun:
    """`ports.Act` for the operations of kits."""

    def __init__(self, world: World, declared: Declared, talk_to: Callable[[str], Talk]) -> None:
        self._world = world
        self._declared = declared
        self._talk_to = talk_to
        self._claiming = Lock()

    def do(self, call: ActCall) -> Acted:
        """Begin it, or look at it once."""
        try:
            return self._do(call)
        except Exception as error:
            self._close(call, error)
            raise

    def _do(self, call: ActCall) -> Acted:
        going = _Going.read(call)
        if going is None:
            return self._begin(call)
        lane = self._lane(call)
        match going.stage:
            case "uncertain":
                return self._find_out(call, lane, going)
            case "following":
                return self._follow(call, lane, going)
            case _:
                return self._watch(call, lane, going)

    def check(self, call: ActCall) -> Acted:
        """Say what became of it, as the platform tells."""
        going = _Going.read(call)
        if going is not None:
            return self._later(going, 0.0)
        lane = self._lane(call)
        try:
            stage = lane.act.found(lane.job(call, {}))
        except PlatformError as error:
            # Nobody is asked while only the platform can tell, and is away.
            uncertain = replace(self._following(call, Stage("going")), stage="uncertain")
            lane.talk.end("look", error.message, ok=False)
            return self._later(uncertain, _AWAY_LOOK_S)
        if stage.state == "never":
            return Acted("never", stage.why)
        if stage.state == "unknown":
            return Acted("unknown", stage.why)
        # Also what failed: it is looked at again, and then put back.
        return self._later(self._following(call, stage), 0.0)

    def undo(self, call: ActCall) -> Acted:
        """Put back what was there."""
        lane = self._lane(call)
        before = call.before.get("body")
        kept = dict(before) if isinstance(before, Mapping) else {}
        with self._world.locks.hold(lane.ref, f"undo of run {call.run}"):
            stage = lane.act.undo(lane.job(call, kept))
        is_undone = stage.state == "done"
        self._end(call, lane, "undone" if is_undone else "undo-failed", stage.why)
        return Acted("done" if is_undone else "failed", stage.why, {"body": kept})

    def _begin(self, call: ActCall) -> Acted:
        world = replace(self._world, person=str(call.body["person"]))
        plan = records.find_plan(world.journal, str(call.body["plan"]))
        cover = Cover(str(call.body["approved"]), call.run)
        with self._claiming:
            covering.claim(world, cover)
        lane = self._lane(call)
        with world.locks.hold(lane.ref, f"{world.person or 'somebody'}, {call.target}"):
            decided = self._decide(world, plan, cover)
            deciding.insist(decided.plan)
            covering.use(world, decided.plan, cover.chain)
            if call.run not in records.unfinished(world.journal, lane.ref):
                begun = {"run": call.run, "attempt": call.attempt, "digest": plan.digest}
                world.journal.append(f"resource-{lane.ref}", "run-begun", begun)
            stage = lane.act.apply(lane.job(call, {}))
        return self._after_look(call, lane, self._following(call, stage), stage)

    def _decide(self, world: World, plan: Plan, cover: Cover) -> Decided:
        """Plan anew, and insist that it is the plan that was approved."""
        request = replace(plan.request, person=world.person)
        operation = self._declared.operations.get(request.operation)
        resource = self._declared.estate.resources.get(plan.target.resource)
        if operation is None or resource is None:
            raise UsageError("operations.unknown", f"`{request.asked}` is not declared any more")
        # Its own lock is held now: that is no reason against it.
        locks = _Without(world, plan.target.resource)
        decided = deciding.again(locks.world, self._declared, operation, resource, request, cover)
        if decided.plan.digest != plan.digest:
            raise RefusedError(
                "plan.stale",
                f"the plan of {plan.target.resource} is another now than the one that was approved",
                hint=f"handrail plan {request.asked}     shows the new one",
            )
        glass = None if decided.plan.verdict == "allow" else breaking.found(world, decided.plan)
        return breaking.judged_behind(world, decided, glass) if glass else decided

    def _find_out(self, call: ActCall, lane: _Lane, going: _Going) -> Acted:
        """Ask the platform again what became of it, which it could not tell before."""
        try:
            stage = lane.act.found(lane.job(call, {}))
        except PlatformError as error:
            stage = Stage("unknown", error.message, again_s=_AWAY_LOOK_S)
        if stage.state == "unknown" and self._passed_s(going) <= lane.timeout_s:
            return self._later(going, stage.again_s)
        if stage.state in {"never", "unknown"}:
            said = "it never began" if stage.state == "never" else "nobody knows what became of it"
            why = f"{said}: {stage.why}"
            self._end(call, lane, "failed", why)
            return Acted("failed", why, going.as_body())
        return self._after_look(call, lane, self._following(call, stage), stage)

    def _follow(self, call: ActCall, lane: _Lane, going: _Going) -> Acted:
        try:
            stage = lane.act.follow(lane.job(call, going.body))
        except HandrailError as error:
            # A leader that is lost comes back; silence has an end all the same.
            is_passing = isinstance(error, PlatformError) and error.is_passing
            stage = Stage("going" if is_passing else "failed", error.message, going.body)
        return self._after_look(call, lane, replace(going, body=stage.body or going.body), stage)

    def _after_look(self, call: ActCall, lane: _Lane, going: _Going, stage: Stage) -> Acted:
        if stage.state == "done":
            return self._watch(call, lane, replace(going, stage="watching"))
        if stage.state == "failed":
            return self._put_back(call, lane, going, stage.why)
        passed_s = self._passed_s(going)
        if passed_s > lane.timeout_s:
            why = f"not healthy after {lane.timeout_s} s: {stage.why or 'nothing is known of it'}"
            return self._put_back(call, lane, going, why)
        lane.talk.progress(round(passed_s), lane.timeout_s)
        return self._later(going, stage.again_s)

    def _passed_s(self, going: _Going) -> float:
        return (self._world.clock.now() - datetime.fromisoformat(going.since)).total_seconds()

    def _following(self, call: ActCall, stage: Stage) -> _Going:
        now = time_text(self._world.clock.now())
        return _Going("following", call.attempt, stage.body, now)

    def _watch(self, call: ActCall, lane: _Lane, going: _Going) -> Acted:
        """Do one round of the watch: what was done, and the checks of all that depends on it."""
        now, every_s = self._world.clock.now(), lane.decided.operation.watch.every_s
        soak_s = lane.decided.plan.soak_s
        soaked_s = going.soaked_s
        if going.looked_at:
            passed_s = max(0.0, (now - datetime.fromisoformat(going.looked_at)).total_seconds())
            soaked_s += min(passed_s, every_s * _COUNTED_ROUNDS)

        def note(name: str, healthy: bool, seen: str) -> None:  # noqa: FBT001  as `watching` calls it
            if not healthy:
                lane.talk.end("watch", f"{name}: {seen}", ok=False)

        rounds = watching.look(lane.probes(), going.rounds, note)
        seen = rounds.seen(is_over=soaked_s >= soak_s)
        if seen is not None and seen.ill:
            return self._put_back(call, lane, going, f"ill: {', '.join(seen.ill)}")
        if seen is not None:
            healthy = f"healthy for {soak_s} s" if soak_s else "healthy"
            why = f"{lane.decided.plan.summary}; {healthy}"
            self._end(call, lane, "confirmed", why)
            return Acted("done", why, going.as_body())
        wait_s = min(every_s, max(soak_s - soaked_s, 0))
        kept = replace(going, rounds=rounds, soaked_s=soaked_s, looked_at=time_text(now))
        return self._later(kept, wait_s)

    def _put_back(self, call: ActCall, lane: _Lane, going: _Going, why: str) -> Acted:
        """Undo at once what is ill, stuck or silent."""
        if lane.decided.plan.steps[0].undo == drafting.IRREVERSIBLE:
            self._end(call, lane, "failed", why)
            return Acted("failed", f"{why}; {lane.decided.plan.undo_said}", going.as_body())
        lane.talk.end("ill", why.removeprefix("ill: "), ok=False)
        try:
            with self._world.locks.hold(lane.ref, f"undo of run {call.run}"):
                stage = lane.act.undo(lane.job(call, going.body))
        except HandrailError as error:
            stage = Stage("failed", error.message)
        is_undone = stage.state == "done"
        said = f"{why}; {'put back' if is_undone else 'NOT put back'}: {stage.why}"
        outcome = "undone" if is_undone else "undo-failed"
        self._end(call, lane, outcome, said)
        return Acted("failed", said, {**going.as_body(), "outcome": outcome})

    def _later(self, going: _Going, wait_s: float) -> Acted:
        at = self._world.clock.now() + timedelta(seconds=wait_s)
        return Acted("later", "", going.as_body(), time_text(at))

    def _end(self, call: ActCall, lane: _Lane, outcome: str, why: str) -> None:
        plan = lane.decided.plan
        self._world.journal.append(
            f"resource-{lane.ref}",
            "run-ended",
            {
                "run": call.run,
                "outcome": outcome,
                "why": why,
                "digest": plan.digest,
                "person": str(call.body["person"]),
                "summary": plan.summary,
            },
        )

    def _close(self, call: ActCall, error: Exception) -> None:
        """Let no run hang in the target's chain that its walk has ended."""
        lane = self._lane(call)
        if call.run in records.unfinished(self._world.journal, lane.ref):
            outcome = "refused" if isinstance(error, RefusedError) else "failed"
            self._end(call, lane, outcome, str(error))

    def _lane(self, call: ActCall) -> _Lane:
        plan = records.find_plan(self._world.journal, str(call.body["plan"]))
        operation = self._declared.operations.get(plan.request.operation)
        resource = self._declared.estate.resources.get(plan.target.resource)
        if operation is None or resource is None:
            raise UsageError(
                "operations.unknown",
                f"`{plan.request.asked}` is not declared any more",
                hint="put the declaration back, then resume",
            )
        decided = Decided(plan, operation, resource, self._declared)
        act = kit_act.act_of(self._world, operation.act)
        return _Lane(self._world, decided, act, self._talk_to(call.target))


@dataclass(frozen=True)
class _Lane:
    """A lane with its plan, its kit's act, and who is told."""

    world: World
    decided: Decided
    act: KitAct
    talk: Talk

    @property
    def ref(self) -> str:
        return self.decided.resource.ref

    @property
    def timeout_s(self) -> int:
        return self.decided.operation.timeout_s

    def job(self, call: ActCall, before: Mapping[str, object]) -> Job:
        return Job(
            self.decided.resource,
            self.decided.plan.body,
            call.run,
            str(call.body["person"]),
            before,
            lambda text: self.talk.output(text.encode() + b"\n"),
            call.is_over,
            self.decided.declared.estate,
        )

    def probes(self) -> tuple[Probe, ...]:
        decided = self.decided
        touches = decided.plan.target.touches
        estate = decided.declared.estate
        checks = drafting.watched(decided.operation, decided.resource, estate, touches)
        return watching.checks_of(self.world, estate, checks)


class _Without:
    """A world in which one resource is held by nobody: its holder asks."""

    def __init__(self, world: World, resource: str) -> None:
        self._world, self._resource = world, resource
        self.world = replace(world, locks=self)

    def hold(self, resource: str, who: str) -> Any:
        """See `ports.Locks`."""
        return self._world.locks.hold(resource, who)

    def holder(self, resource: str) -> str | None:
        """See `ports.Locks`."""
        return None if resource == self._resource else self._world.locks.holder(resource)
