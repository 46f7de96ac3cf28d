"""Bringing a version to a platform, following it, finding it again, putting back the former.

Rules:
- Compare-and-set, both ways: what somebody else changed meanwhile is told, and not overwritten.
- What is known of a deployment is known from the platform: a lost answer, or a lost process, is
  made good by asking for the same again, which the platform recognises by the note.
- Canaries are watched with everything that depends on the app, and promoted when that was well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from handrail.core import watching
from handrail.core.kit_act import Job, Stage
from handrail.core.watching import Rounds
from handrail.errors import HandrailError, PlatformError, RefusedError, UsageError
from handrail.kits.deploys import changes, declared, telling
from handrail.kits.deploys.apps import app_of, platform_of
from handrail.kits.deploys.changes import Change, change_of
from handrail.plans.drafting import watched

if TYPE_CHECKING:
    from handrail.kits.deploys.model import Running, Spec
    from handrail.kits.deploys.outside import Outside
    from handrail.kits.deploys.ports import Platform

T = TypeVar("T")
# Longer than any leader's election, shorter than anybody's patience with a broken version.
UNDO_S = 300.0
AWAY_S = 60.0
# Canaries are watched as long as the app's own soak, and this at most: the operation has an end.
CANARIES_S = 120
LOOK_S = 1.0
CANARY_LOOK_S = 2.0
DEPLOYMENT, LOOKS = "deployment", "looks"
# Each look is a record of the journal: up to so many looks, so many seconds between two.
_LOOKS_S = ((10, LOOK_S), (30, 2.0))
_SELDOM_S = 5.0


@dataclass(frozen=True)
class At:
    """Where one job stands: its change, the platform, and the note that its run writes down."""

    job: Job
    change: Change
    platform: Platform
    note: Mapping[str, str]

    @property
    def name(self) -> str:
        """Of the job on the platform."""
        return self.change.spec.job

    def running(self) -> Running | None:
        """Return what runs now."""
        return self.platform.current(self.name)


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
        try:
            return self._patiently(job, AWAY_S, lambda: self._put_back(at))
        except HandrailError as error:
            return Stage("failed", error.message)

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
        return self._bring(at, change.spec, change.token, at.note, change.commit)

    def whose(self, at: At, running: Running | None) -> changes.Whose:
        """Return whose doing it is that this runs; `ours` where `begin` brought it."""
        return changes.whose(at.change, running, at.note, at.job.run)

    def _bring(self, at: At, spec: Spec, token: str, note: Mapping[str, str], commit: str) -> str:
        """Apply a specification; bring its files there first, where they are not."""
        try:
            return at.platform.apply(spec, token, note)
        except UsageError as error:
            if error.code != "deploys.nothing" or not (spec.files and commit):
                raise
        source = self.outside.sources.open(at.change.repository, commit)
        at.platform.stage(spec, source.files(spec.files))
        return at.platform.apply(spec, token, note)

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

    def _put_back(self, at: At) -> Stage:
        running = at.running()
        whose = self.whose(at, running)
        if running is None or whose not in {"ours", "put back"}:
            return _not_ours(at, running, whose)
        before = at.change.before
        if before is None:
            at.platform.remove(at.name, running.token)
            return Stage("done", f"{at.name} is stopped: nothing ran before")
        if whose == "ours":
            _halt(at)
        note = changes.note_put_back(at.change, at.job.run)
        commit = before.note.get(changes.COMMIT, "")
        deployment = self._bring(at, before.spec, running.token, note, commit)
        said = telling.version_said(before, "")
        at.job.say(f"putting back {said}")
        return self._settle(at, deployment, said)

    def _settle(self, at: At, deployment: str, said: str) -> Stage:
        """Wait until what was put back is healthy."""
        clock = self.outside.world.clock
        until_s = clock.elapsed_s() + UNDO_S
        while True:
            left_s = until_s - clock.elapsed_s()
            rollout = self._patiently(
                at.job, left_s, lambda: at.platform.rollout(at.name, deployment, LOOK_S)
            )
            if rollout.state == "healthy":
                return Stage("done", f"{said} runs again")
            if rollout.state == "canaries":
                at.platform.promote(at.name, deployment)
            if rollout.state in {"failed", "reverted"} or left_s <= 0 or at.job.is_over():
                why = rollout.why or "it is not healthy yet"
                return Stage("failed", f"{said} was put back, and is not seen healthy: {why}")
            clock.sleep(LOOK_S)

    def _patiently(self, job: Job, patience_s: float, ask: Callable[[], T]) -> T:
        """Return what `ask` does; ask again for a while where the platform is away."""
        clock = self.outside.world.clock
        until_s = clock.elapsed_s() + patience_s
        while True:
            try:
                return ask()
            except PlatformError as error:
                if not error.is_passing or job.is_over() or clock.elapsed_s() >= until_s:
                    raise
                clock.sleep(LOOK_S)


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


def _not_ours(at: At, running: Running | None, whose: changes.Whose) -> Stage:
    """Say what runs in the place of what is to be put back: nobody else's work is undone."""
    if whose == "before":
        return Stage("done", "what was there before runs")
    if running is None:
        return Stage("failed", f"somebody else stopped {at.name}: that is left as it is")
    by = running.note.get(changes.PERSON)
    said = f" by {by} in run {running.note.get(changes.RUN)}" if by else ""
    return Stage("failed", f"{at.name} was changed{said} since: that is left as it is")


def _halt(at: At) -> None:
    """Let what was begun go no further."""
    deployment = str(at.job.before.get(DEPLOYMENT, ""))
    if deployment:
        at.platform.halt(at.name, deployment)
