"""`rollback`: put back a version that was deployed and confirmed before, exactly as it was.

Rules:
- What is put back is the recorded specification, with its digests: no repository and no registry
  is asked, for they may be what is broken.
- Rolled back twice goes two versions back.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from handrail.errors import UsageError
from handrail.kits.deploys import changes, history, observing, telling
from handrail.kits.deploys.apps import app_of, platform_of
from handrail.kits.deploys.changes import Change
from handrail.kits.deploys.changing import Changing
from handrail.kits.deploys.deploying import drifted_by, when
from handrail.kits.deploys.drafting import Case, draft_of
from handrail.kits.deploys.observing import Now

if TYPE_CHECKING:
    from handrail.core.world import Declared, World
    from handrail.estate.model import Resource
    from handrail.kits.deploys.apps import App
    from handrail.kits.deploys.history import Ran
    from handrail.kits.deploys.model import Running
    from handrail.plans.drafted import Draft
    from handrail.plans.model import Request

_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


class RollBack(Changing):
    """`KitAct` of `rollback`."""

    def draft(self, resource: Resource, request: Request, declared: Declared) -> Draft:
        """Say what it would do; see `KitAct`."""
        app, estate = app_of(resource), declared.estate
        at = platform_of(estate, app.platform, resource)
        platform = self.outside.open_platform(at)
        world = self.outside.world
        saved = history.saved(world, app.ref)
        running = platform.current(_job(app, saved))
        target = _target(world, app, running, request.parameters.get("to", ""))
        change = _change(app, target, running)
        observing.check_owner(estate, app, change.spec.job, running)
        now = Now(running, platform.dry_run(change.spec))
        change = _change(app, target, running, changes_it=now.dry.changes)
        spec = saved.change.spec if saved and saved.change else None
        drifted = observing.drift(platform, running, spec)
        by = drifted_by(world, app.ref, saved, running)
        images = tuple(f"{task}: {image}" for task, image in change.images.items())
        commits = (f"{telling.short(change.commit)}, as run {target.run} deployed it",)
        said = f"roll {app.name} back to {telling.short(change.commit)} of run {target.run}"
        return draft_of(
            Case(
                app=app,
                resource=resource,
                platform=at,
                estate=estate,
                identity=platform.identify(),
                change=change,
                dry=now.dry,
                summary=f"{said} on {at.ref}",
                sections=telling.sections(now.dry, drifted, by, commits, images, running),
                reviewed=target.plan.facts.change if target.plan else None,
                when=when(saved, running),
                insists=False,
            )
        )


def _job(app: App, saved: Ran | None) -> str:
    if saved is None or saved.change is None:
        raise _nothing(app, "Handrail has deployed nothing of it yet")
    return saved.change.spec.job


def _target(world: World, app: App, running: Running | None, to: str) -> Ran:
    """Return the run whose version is meant.

    Raises:
        UsageError: `deploys.nothing`: there is no such run, or none before the one that runs.
    """
    if to:
        if not _NUMBER.fullmatch(to):
            raise UsageError("operations.parameter", f"`to` is a run's number, not `{to}`")
        return history.find(world, app.ref, int(to))
    origin = changes.origin(running.note) if running else None
    for one in history.history(world, app.ref):
        if not one.is_deployed or one.change is None:
            continue
        if origin is not None and one.run >= origin:
            continue
        if running is None or not changes.same(one.change.spec, running.spec):
            return one
    raise _nothing(app, "no version before the one that runs was confirmed")


def _change(app: App, target: Ran, running: Running | None, *, changes_it: bool = True) -> Change:
    was = target.change
    if was is None:
        raise _nothing(app, f"run {target.run} left no record of what it deployed")
    return Change(
        app=app.ref,
        platform=app.platform,
        spec=was.spec,
        before=changes.before_of(running),
        changes=changes_it,
        repository=was.repository,
        commit=was.commit,
        ref=was.ref,
        of=was.of or target.run,
        images=was.images,
    )


def _nothing(app: App, why: str) -> UsageError:
    return UsageError(
        "deploys.nothing",
        f"{app.ref} cannot be rolled back: {why}",
        hint=f"handrail deploy {app.name} --ref COMMIT",
    )
