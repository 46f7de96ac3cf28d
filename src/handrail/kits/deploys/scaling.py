"""`scale` of an app: set how many instances a group of it has.

Rules:
- A count is no part of a version: what runs keeps its commit, and an undo puts back the whole
  specification as it was.
- Handrail says so where the next deploy would set the count back: it stands in the repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from handrail.errors import UsageError
from handrail.kits.deploys import changes, fates, history, telling
from handrail.kits.deploys.apps import app_of, platform_of
from handrail.kits.deploys.bringing import At
from handrail.kits.deploys.changes import Change
from handrail.kits.deploys.changing import Changing
from handrail.kits.deploys.deploying import when
from handrail.kits.deploys.drafting import Case, draft_of
from handrail.kits.deploys.model import DryRun, GroupFate
from handrail.plans.model import Section

if TYPE_CHECKING:
    from handrail.core.world import Declared
    from handrail.estate.model import Resource
    from handrail.kits.deploys.model import Running
    from handrail.kits.deploys.outside import Outside
    from handrail.kits.deploys.ports import Platform
    from handrail.plans.drafted import Draft
    from handrail.plans.model import Request

_MOST = 10_000


class ScaleApp(Changing):
    """`KitAct` of `scale` on an app."""

    def draft(self, resource: Resource, request: Request, declared: Declared) -> Draft:
        """Say what it would do; see `KitAct`."""
        app, estate = app_of(resource), declared.estate
        at = platform_of(estate, app.platform, resource)
        platform = self.outside.open_platform(at)
        job = job_of(self.outside, resource)
        running = _running(platform, job)
        counts = counts_of(platform, running)
        group, count = read_count(request.parameters.get("count", ""), counts)
        was = counts[group]
        dry = _dry(counts, group, count)
        saved = history.saved(self.outside.world, app.ref)
        lines = (f"~ group {group} > count: {was} -> {count}",) if dry.changes else ()
        return draft_of(
            Case(
                app=app,
                resource=resource,
                platform=at,
                estate=estate,
                identity=platform.identify(),
                change=replace(
                    _change(app.ref, at.ref, running, group, count),
                    changes=dry.changes,
                    repository=app.repository,
                ),
                dry=dry,
                summary=f"scale {group} of {app.name} from {was} to {count} on {at.ref}",
                sections=(
                    Section("spec", lines),
                    Section("health", (telling.health(running),)),
                    Section("later", (f"a deploy sets the count of {app.spec} again",)),
                ),
                when=when(saved, running),
            )
        )

    def begin(self, at: At) -> str:
        """Scale, compare-and-set. Twice equals once: what has the count already keeps it."""
        running = at.running()
        is_there = self.whose(at, running) == "ours"
        token = running.token if running and is_there else at.change.token
        return at.platform.scale(at.name, at.change.group, at.change.count, token)

    def whose(self, at: At, running: Running | None) -> changes.Whose:
        """Return whose doing it is: a platform keeps no note of a count, so that itself tells."""
        change = at.change
        found = super().whose(at, running)
        if found != "other" or running is None or change.before is None:
            return found
        counts = counts_of(at.platform, running)
        return "ours" if counts.get(change.group) == change.count else "other"


def job_of(outside: Outside, resource: Resource) -> str:
    """Return what an app is called on its platform.

    Raises:
        UsageError: `deploys.nothing`: nobody knows: it declares none, and was never deployed.
    """
    app = app_of(resource)
    if app.job:
        return app.job
    saved = history.saved(outside.world, app.ref)
    if saved is None or saved.change is None:
        raise UsageError(
            "deploys.nothing",
            f"Handrail has deployed nothing of {app.ref} yet, and it declares no `job`",
            hint=f"handrail deploy {app.name}",
        )
    return saved.change.spec.job


def counts_of(platform: Platform, running: Running) -> Mapping[str, int]:
    """Return how many instances each group should have now, as the platform counts them."""
    dry = platform.dry_run(running.spec)
    return {group.group: fates.count_after((group,)) for group in dry.groups}


def read_count(text: str, counts: Mapping[str, int]) -> tuple[str, int]:
    """Return group and count of the parameter `count`: `3`, or `web=3`.

    Raises:
        UsageError: it is none, or there is no such group, or more than one could be meant.
    """
    group, equals, number = text.strip().rpartition("=")
    number = number.strip()
    if not (number.isascii() and number.isdigit()) or int(number[:9]) > _MOST:
        raise UsageError(
            "operations.parameter", f"`{text}` is no count up to {_MOST:,}", hint="as 3, or web=3"
        )
    known = ", ".join(sorted(counts))
    if not equals and len(counts) != 1:
        raise UsageError(
            "deploys.unknown-group", "it has more than one group", hint=f"as GROUP=3: {known}"
        )
    group = group.strip() if equals else next(iter(counts))
    if group not in counts:
        raise UsageError(
            "deploys.unknown-group", f"there is no group `{group}`", hint=f"it has {known}"
        )
    return group, int(number)


def _running(platform: Platform, job: str) -> Running:
    found = platform.current(job)
    if found is None:
        raise UsageError("deploys.nothing", f"nothing runs as `{job}`", hint="deploy it first")
    return found


def _dry(counts: Mapping[str, int], group: str, count: int) -> DryRun:
    """Return what a new count does to each group."""
    groups = []
    for name, was in counts.items():
        wanted = count if name == group else was
        made = {"ignore": min(was, wanted)}
        made |= {"place": max(wanted - was, 0), "stop": max(was - wanted, 0)}
        groups.append(GroupFate(name, {fate: n for fate, n in made.items() if n}))
    return DryRun(tuple(groups), ())


def _change(app: str, platform: str, running: Running, group: str, count: int) -> Change:
    made = Change(app, platform, running.spec, changes.before_of(running), changes=True)
    commit = running.note.get(changes.COMMIT, "")
    return replace(made, commit=commit, group=group, count=count)
