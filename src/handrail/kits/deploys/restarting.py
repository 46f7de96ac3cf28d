"""`restart`: restart an app's instances, a few at a time.

Rules:
- The same version runs afterwards: there is nothing to put back, and an undo says so.
- Nothing on a platform tells a restart that was begun from one that was not: after a crash a human
  is asked, and may restart once more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from handrail.core.kit_act import Job, Stage
from handrail.errors import RefusedError, UsageError
from handrail.kits.deploys import fates, telling
from handrail.kits.deploys.apps import app_of, is_production, platform_of
from handrail.kits.deploys.bringing import DEPLOYMENT, LOOK_S
from handrail.kits.deploys.changing import later
from handrail.kits.deploys.drafting import needing, touched
from handrail.kits.deploys.scaling import counts_of, job_of
from handrail.plans.drafted import Draft
from handrail.plans.effect import Effect
from handrail.plans.model import Section

if TYPE_CHECKING:
    from handrail.core.world import Declared
    from handrail.estate.model import Resource
    from handrail.kits.deploys.outside import Outside
    from handrail.kits.deploys.ports import Platform
    from handrail.plans.model import Request

_SAME = "the same version runs: there is nothing to put back"


class Restart:
    """`KitAct` of `restart`."""

    def __init__(self, outside: Outside) -> None:
        self.outside = outside

    def draft(self, resource: Resource, request: Request, declared: Declared) -> Draft:
        """Say what it would do; see `KitAct`."""
        del request
        app, estate = app_of(resource), declared.estate
        at = platform_of(estate, app.platform, resource)
        platform = self.outside.open_platform(at)
        job = job_of(self.outside, resource)
        running = platform.current(job)
        if running is None:
            raise UsageError("deploys.nothing", f"nothing runs as `{job}`", hint="deploy it first")
        counts = counts_of(platform, running)
        effects = tuple(
            Effect(app.ref, "restart", "instances", group, detail=f"{count} of them")
            for group, count in counts.items()
            if count
        )
        touches = touched(estate, app)
        risk, because = fates.restart_risk(
            counts,
            production=is_production(estate, resource, at),
            needed=needing(estate, app.ref, *touches),
        )
        return Draft(
            summary=f"restart {app.name} on {at.ref}",
            body={"job": job, "platform": at.ref, "token": running.token},
            effects=effects,
            risk=risk,
            risk_because=because,
            undo=_SAME,
            touches=touches,
            sections=(Section("health", (telling.health(running),)),),
            platform=at.ref,
            identity=platform.identify(),
            declared_identity=str(at.settings.get("identity") or ""),
            soak_s=app.soak_s,
        )

    def apply(self, job: Job) -> Stage:
        """Begin it; see `KitAct`."""
        platform, name = self._platform(job), str(job.body["job"])
        running = platform.current(name)
        if running is None or running.token != job.body["token"]:
            raise RefusedError(
                "platform.moved",
                f"`{name}` was changed by somebody else since this was planned",
                hint="plan it anew",
            )
        return Stage("going", "it has begun", {DEPLOYMENT: platform.restart(name)}, LOOK_S)

    def follow(self, job: Job) -> Stage:
        """Look once; see `KitAct`."""
        deployment = str(job.before.get(DEPLOYMENT, ""))
        rollout = self._platform(job).rollout(str(job.body["job"]), deployment)
        healthy, wanted = rollout.healthy
        counted = f"{healthy} of {wanted} healthy"
        if rollout.state == "healthy":
            return Stage("done", counted, job.before)
        if rollout.state in {"failed", "reverted"}:
            return Stage("failed", rollout.why or counted, job.before)
        job.say(counted)
        return later(job, rollout.why or counted, deployment)

    def found(self, job: Job) -> Stage:
        """Say what became of it; see `KitAct`."""
        name = str(job.body["job"])
        return Stage("unknown", f"nothing on the platform tells whether `{name}` was restarted")

    def undo(self, job: Job) -> Stage:
        """Put nothing back; see `KitAct`."""
        del job
        return Stage("done", _SAME)

    def _platform(self, job: Job) -> Platform:
        at = platform_of(job.estate, str(job.body["platform"]), job.resource)
        return self.outside.open_platform(at)
