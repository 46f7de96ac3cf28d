"""Bringing a version to a platform, following it, and finding it again.

Rules:
- Compare-and-set, both ways: what somebody else changed meanwhile is told, and not overwritten.
- What is known of a deployment is known from the platform: a lost answer, or a lost process, is
  made good by asking for the same again, which the platform recognises by the note.
- Canaries are watched with everything that depends on the app, and promoted when that was well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from handrail.core import watching
from handrail.core.kit_act import Job, Stage
from handrail.core.watching import Rounds
from handrail.errors import HandrailError, PlatformError, RefusedError
from handrail.kits.deploys import changes, declared
from handrail.kits.deploys.apps import app_of, platform_of
from handrail.kits.deploys.bringing import DEPLOYMENT, LOOK_S, At, bring
from handrail.kits.deploys.changes import change_of
from handrail.kits.deploys.putting_back import PuttingBack
from handrail.plans.drafting import watched

if TYPE_CHECKING:
    from handrail.kits.deploys.model import Running
    from handrail.kits.deploys.outside import Outside

# Canaries are watched as long as the app's own soak, and this at most: the operation has an end.
CANARIES_S = 120
CANARY_LOOK_S = 2.0
LOOKS = "looks"
# Each look is a record of the journal: up to so many looks, so many seconds between two.
_LOOKS_S = ((10, LOOK_S), (30, 2.0))
_SELDOM_S = 5.0


class Changing:
    """`KitAct` of everything that brings a version; but for `draft`."""

    def __init__(self, outside: Outside) -> None:
        self.outside = outside

    def apply(self, job: Job) -> Stage:
        """Begin it; see `KitAct`."""
        at = self.at(job)
        if not at.change.changes:
            return Stage("done", "nothing was to be changed")
        try:
            deployment = self.begin(at)
        except RefusedError:
            raise
        except HandrailError as error:
            # Whether it arrived is not known: the next look asks for the same once more.
            return Stage("going", error.message, {DEPLOYMENT: ""})
        return Stage("going", "it has begun", {DEPLOYMENT: deployment}, LOOK_S)

    def follow(self, job: Job) -> Stage:
        """Look once; see `KitAct`."""
        at = self.at(job)
        if not at.change.changes:
            return Stage("done", "nothing was to be changed")
        deployment = str(job.before.get(DEPLOYMENT, ""))
        try:
            if not deployment:
                # What is recognised there is not done again.
                return Stage("going", "it has begun", {DEPLOYMENT: self.begin(at)}, LOOK_S)
            return self._look(at, deployment)
        except HandrailError as error:
            if isinstance(error, PlatformError) and error.is_passing:
                return later(job, error.message, deployment)
            return Stage("failed", error.message, {DEPLOYMENT: deployment})

    def _look(self, at: At, deployment: str) -> Stage:
        job = at.job
        rollout = at.platform.rollout(at.name, deployment)
        healthy, wanted = rollout.healthy
        counted = f"{healthy} of {wanted} healthy"
        match rollout.state:
            case "healthy":
                return Stage("done", counted, job.before)
            case "failed" | "reverted":
                return Stage("failed", rollout.why or f"it {rollout.state}", job.before)
            case "canaries":
                return self._canaries(at, deployment)
            case _:
                why = f"{counted}; {rollout.why}" if rollout.why else counted
                job.say(why)
                return later(job, why, deployment)

    def found(self, job: Job) -> Stage:
        """Say what became of it; see `KitAct`."""
        at = self.at(job)
        if not at.change.changes:
            return Stage("never", "nothing was to be changed")
        running = at.running()
        match self.whose(at, running):
            case "ours":
                return Stage("going", "it has begun", {DEPLOYMENT: ""})
            case "before" if running is None or running.token == at.change.token:
                return Stage("never", "it has not begun")
            case "before":
                return Stage("failed", "the platform put back what was there before")
            case _:
                return Stage("unknown", f"somebody else changed {at.name} since")

    def undo(self, job: Job) -> Stage:
        """Put back what was there; see `KitAct`."""
        at = self.at(job)
        if not at.change.changes:
            return Stage("done", "nothing was changed")
        outside = self.outside
        return PuttingBack(outside.world.clock, outside.sources, self.whose).put_back(at)

    def at(self, job: Job) -> At:
        """Return where a job stands."""
        change = change_of(job.body)
        platform = self.outside.open_platform(
            platform_of(job.estate, change.platform, job.resource)
        )
        note = changes.note_of(change, job.body, job.run, job.person)
        return At(job, change, platform, note)

    def begin(self, at: At) -> str:
        """Bring it, compare-and-set; return what `rollout` finds it by. Twice equals once."""
        change = at.change
        sources = self.outside.sources
        return bring(sources, at, change.spec, change.token, at.note, change.commit)

    def whose(self, at: At, running: Running | None) -> changes.Whose:
        """Return whose doing it is that this runs; `ours` where `begin` brought it."""
        return changes.whose(at.change, running, at.note, at.job.run)

    def _canaries(self, at: At, deployment: str) -> Stage:
        """Watch canaries one round; promote them when they were well long enough."""
        job, app = at.job, app_of(at.job.resource)
        if not app.promotes:
            why = "canaries are healthy, and somebody has to promote them"
            return Stage("going", why, {DEPLOYMENT: deployment}, CANARY_LOOK_S)
        rounds = _rounds(job.before)
        operation = declared.OPERATIONS[0]
        touches = (app.service,) if app.service else ()
        checks = watched(operation, job.resource, job.estate, touches)
        probes = watching.checks_of(self.outside.world, job.estate, checks)
        rounds = watching.look(probes, rounds, lambda *_: None)
        soak_s = min(app.soak_s, CANARIES_S)
        seen = rounds.seen(is_over=(rounds.count - 1) * CANARY_LOOK_S >= soak_s)
        if seen is not None and seen.ill:
            return Stage("failed", f"ill beside the canaries: {', '.join(seen.ill)}", job.before)
        if seen is None:
            body = {DEPLOYMENT: deployment, "rounds": rounds.count, "bad": dict(rounds.bad)}
            return Stage("going", "canaries are watched", body, CANARY_LOOK_S)
        at.platform.promote(at.name, deployment)
        job.say(f"canaries were well for {soak_s} s: promoted")
        return Stage("going", "canaries are promoted", {DEPLOYMENT: deployment}, LOOK_S)


def later(job: Job, why: str, deployment: str) -> Stage:
    """Return that it goes on; the longer it lasts, the seldomer it is looked at."""
    told = job.before.get(LOOKS)
    looks = (told if isinstance(told, int) else 0) + 1
    again_s = next((s for most, s in _LOOKS_S if looks <= most), _SELDOM_S)
    return Stage("going", why, {DEPLOYMENT: deployment, LOOKS: looks}, again_s)


def _rounds(before: Mapping[str, object]) -> Rounds:
    count, bad = before.get("rounds"), before.get("bad")
    if not isinstance(count, int) or not isinstance(bad, Mapping):
        return Rounds()
    return Rounds(count, {str(name): int(many) for name, many in bad.items()})
