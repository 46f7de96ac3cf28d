"""`deploy`: run what an app's repository says at a commit.

Rules:
- The plan fixes the commit, the specification with every image's digest, and what runs now. Where
  a branch or tag moves before the run, planning anew gives another plan, and that is refused.
- Who reviewed the commit is a fact; a forge that does not answer refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from handrail.errors import PlatformError
from handrail.kits.deploys import changes, history, observing, reviewing, telling
from handrail.kits.deploys.apps import app_of, platform_of
from handrail.kits.deploys.changes import Change
from handrail.kits.deploys.changing import Changing
from handrail.kits.deploys.drafting import Case, draft_of

if TYPE_CHECKING:
    from handrail.core.world import Declared, World
    from handrail.estate.model import Resource
    from handrail.kits.deploys.apps import App
    from handrail.kits.deploys.history import Ran
    from handrail.kits.deploys.model import Running
    from handrail.kits.deploys.observing import Now, Wanted
    from handrail.kits.deploys.ports import Platform
    from handrail.plans.drafted import Draft
    from handrail.plans.model import LastChange, Request, Section


class Deploy(Changing):
    """`KitAct` of `deploy`."""

    def draft(self, resource: Resource, request: Request, declared: Declared) -> Draft:
        """Say what it would do; see `KitAct`."""
        app, estate, asked = app_of(resource), declared.estate, request.parameters
        at = platform_of(estate, app.platform, resource)
        platform = self.outside.open_platform(at)
        ref, named = asked.get("ref", ""), asked.get("images", "")
        wanted = observing.wanted(self.outside, app, resource, platform, ref, named)
        now = observing.now(platform, wanted.spec)
        observing.check_owner(estate, app, wanted.spec.job, now.running)
        saved = history.saved(self.outside.world, app.ref)
        by = drifted_by(self.outside.world, app.ref, saved, now.running)
        reviewed, unreadable = self._reviewed(resource, wanted, request.person)
        return draft_of(
            Case(
                app=app,
                resource=resource,
                platform=at,
                estate=estate,
                identity=platform.identify(),
                change=_change(app, wanted, now),
                dry=now.dry,
                summary=f"deploy {app.name} at {telling.short(wanted.commit.id)} to {at.ref}",
                sections=_sections(platform, wanted, now, saved, by, reviewed),
                reviewed=reviewed,
                unreadable=unreadable,
                when=when(saved, now.running),
            )
        )

    def _reviewed(
        self, resource: Resource, wanted: Wanted, person: str
    ) -> tuple[LastChange, tuple[tuple[str, str], ...]]:
        """Return who wrote and reviewed the commit, and why that is not known."""
        reviews = self.outside.open_reviews(resource)
        commit = wanted.commit
        try:
            told = reviews.reviewers(commit.id) if reviews else None
        except PlatformError as error:
            return reviewing.change_of(commit, (), person), (("review", error.message),)
        return reviewing.change_of(commit, told, person), ()


def when(saved: Ran | None, running: Running | None) -> str:
    """Return when what runs was deployed, ISO 8601 UTC; empty where nobody knows."""
    if saved is None or running is None:
        return ""
    return saved.ended if changes.origin(running.note) == _origin(saved) else ""


def drifted_by(world: World, ref: str, saved: Ran | None, running: Running | None) -> str:
    """Return who changed what Handrail deployed of an app, for people."""
    if saved is None:
        return "nobody knows by whom"
    if running is None:
        return f"somebody stopped what run {saved.run} deployed"
    scaled = history.scaled(world, ref, saved)
    if scaled is not None:
        return f"{scaled.summary}, by {scaled.person} in run {scaled.run}"
    if changes.origin(running.note) not in {None, _origin(saved)}:
        by = running.note.get(changes.PERSON, "somebody")
        return f"by {by}, run {running.note.get(changes.RUN)}, from another journal than this"
    return f"somebody changed it since run {saved.run}, not by a deploy"


def _origin(saved: Ran) -> int:
    return (saved.change.of if saved.change else 0) or saved.run


def _change(app: App, wanted: Wanted, now: Now) -> Change:
    return Change(
        app=app.ref,
        platform=app.platform,
        spec=wanted.spec,
        before=changes.before_of(now.running),
        changes=now.dry.changes,
        repository=app.repository,
        commit=wanted.commit.id,
        ref=wanted.ref,
        images=telling.named_images(wanted.chosen),
    )


def _sections(
    platform: Platform,
    wanted: Wanted,
    now: Now,
    saved: Ran | None,
    by: str,
    reviewed: LastChange,
) -> tuple[Section, ...]:
    running = now.running
    deployed = running.note.get(changes.COMMIT, "") if running else ""
    since = wanted.source.since(deployed) if deployed else None
    spec = saved.change.spec if saved and saved.change else None
    return telling.sections(
        now.dry,
        observing.drift(platform, running, spec),
        by,
        telling.commit_lines(wanted.commit, since, deployed, reviewed.reviewers),
        telling.image_lines(wanted.chosen, running.spec.images if running else {}),
        running,
        wanted.open,
    )
