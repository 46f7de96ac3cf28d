"""Putting back what ran before a job, and waiting until it is healthy. Twice equals once.

Rules:
- Only what the job itself brought is replaced: what somebody else deployed, scaled or stopped since
  is left as it is, and told.
- A platform that is away for a while is waited for, and the waiting has an end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from handrail.core.kit_act import Job, Stage
from handrail.errors import HandrailError, PlatformError
from handrail.kits.deploys import changes, telling
from handrail.kits.deploys.bringing import DEPLOYMENT, LOOK_S, At, bring

if TYPE_CHECKING:
    from handrail.kits.deploys.model import Running
    from handrail.kits.deploys.ports import Sources
    from handrail.ports import Clock

T = TypeVar("T")
# Longer than any leader's election, shorter than anybody's patience with a broken version.
UNDO_S = 300.0
AWAY_S = 60.0


class PuttingBack:
    """Puts back what ran before one job."""

    def __init__(
        self, clock: Clock, sources: Sources, whose: Callable[[At, Running | None], changes.Whose]
    ) -> None:
        """Do nothing yet.

        Args:
            clock: for waiting.
            sources: for files that are not there any more.
            whose: says whose doing it is that something runs.
        """
        self._clock, self._sources, self._whose = clock, sources, whose

    def put_back(self, at: At) -> Stage:
        """Put it back: `done` or `failed`."""
        try:
            return self._patiently(at.job, AWAY_S, lambda: self._put_back(at))
        except HandrailError as error:
            return Stage("failed", error.message)

    def _put_back(self, at: At) -> Stage:
        running = at.running()
        whose = self._whose(at, running)
        if running is not None and whose == "before" and running.token != at.change.token:
            return self._calm(at)
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
        deployment = bring(self._sources, at, before.spec, running.token, note, commit)
        said = telling.version_said(before, "")
        at.job.say(f"putting back {said}")
        return self._settle(at, deployment, said)

    def _calm(self, at: At) -> Stage:
        """Wait until what the platform has put back by itself is healthy."""
        until_s = self._clock.elapsed_s() + UNDO_S
        while True:
            running = self._patiently(at.job, AWAY_S, at.running)
            healthy, wanted = running.healthy if running else (0, 0)
            if running is None or self._whose(at, running) != "before":
                return _not_ours(at, running, self._whose(at, running))
            if healthy >= wanted:
                return Stage("done", "the platform has put back what was there before")
            if self._clock.elapsed_s() >= until_s or at.job.is_over():
                return Stage("failed", f"the platform put it back; {healthy} of {wanted} healthy")
            self._clock.sleep(LOOK_S)

    def _settle(self, at: At, deployment: str, said: str) -> Stage:
        """Wait until what was put back is healthy."""
        until_s = self._clock.elapsed_s() + UNDO_S
        while True:
            left_s = until_s - self._clock.elapsed_s()
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
            self._clock.sleep(LOOK_S)

    def _patiently(self, job: Job, patience_s: float, ask: Callable[[], T]) -> T:
        """Return what `ask` does; ask again for a while where the platform is away."""
        until_s = self._clock.elapsed_s() + patience_s
        while True:
            try:
                return ask()
            except PlatformError as error:
                if not error.is_passing or job.is_over() or self._clock.elapsed_s() >= until_s:
                    raise
                self._clock.sleep(LOOK_S)


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
