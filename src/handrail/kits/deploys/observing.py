"""What is wanted of an app, and what runs of it: read for one plan. Changes nothing.

Rules:
- The commit is fixed first; specification, variables and files are those of that commit.
- Images are fixed to digests, so that a tag which moves later moves nothing.
- A job that belongs to another app is not taken over because a specification names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from handrail.errors import DeclarationError, Place, RefusedError
from handrail.kits.deploys import changes, images, variables
from handrail.kits.deploys.images import Chosen, Words
from handrail.kits.deploys.importing import secrets
from handrail.kits.deploys.model import DryRun, Running, Spec

if TYPE_CHECKING:
    from handrail.estate.model import Estate, Resource
    from handrail.kits.deploys.apps import App
    from handrail.kits.deploys.model import Commit
    from handrail.kits.deploys.outside import Outside
    from handrail.kits.deploys.ports import Platform, Source

_MOST_SECRETS = 20


@dataclass(frozen=True)
class Wanted:
    """What a commit of an app's repository says that should run.

    Attributes:
        ref: as it was asked for.
        spec: whole: with its images and the digests of its files.
        open: where something that looks like a secret stands in a file of the commit, one line
            each: whoever reads the repository, or a plan, reads it.
    """

    source: Source
    ref: str
    spec: Spec
    chosen: Chosen
    open: tuple[str, ...] = ()

    @property
    def commit(self) -> Commit:
        """The commit that was fixed."""
        return self.source.commit


@dataclass(frozen=True)
class Now:
    """What runs, and what the platform says that the wanted would do to it."""

    running: Running | None
    dry: DryRun


def wanted(
    outside: Outside, app: App, resource: Resource, platform: Platform, ref: str, asked: str
) -> Wanted:
    """Return what the app's repository says at a ref.

    Args:
        outside: the ports.
        app: the app.
        resource: the same, as it is declared.
        platform: reads the specification.
        ref: branch, tag or commit; empty for the app's branch.
        asked: `task=image` pairs, with commas.

    Raises:
        UsageError: no such ref, task or image.
        DeclarationError: the specification is not there, or does not parse.
        PlatformError: the repository, platform or registry does not answer.
    """
    pairs = images.read_asked(asked)
    ref = ref or app.branch
    source = outside.sources.open(app.repository, ref)
    texts = _texts(app, source)
    spec = _spec(app, platform, texts)
    words = Words(source.commit.id, "" if source.commit.id.startswith(ref.lower()) else ref)
    chosen = images.choose(spec, app.images, pairs, words, outside.open_registry(resource))
    spec = platform.with_images(spec, chosen.pins) if chosen.pins else spec
    if spec.files:
        spec = platform.with_files(spec, source.files(spec.files))
    return Wanted(source, ref, spec, chosen, _open_secrets(texts))


def now(platform: Platform, spec: Spec) -> Now:
    """Return what runs under that name, and what `spec` would do to it."""
    running = platform.current(spec.job)
    return Now(running, platform.dry_run(spec))


def check_owner(estate: Estate, app: App, job: str, running: Running | None) -> None:
    """Raise where a job is another app's.

    Raises:
        RefusedError: what runs was deployed for another app, or another app declares that job.
    """
    other = running.note.get(changes.APP, "") if running else ""
    is_renamed = other not in estate.resources and app.job == job
    if not other or other == app.ref or is_renamed:
        others = estate.of_kinds(("app",))
        other = next((o.ref for o in others if o.ref != app.ref and _is_of(o, app, job)), "")
    if other:
        raise RefusedError(
            "plan.refused",
            f"`{job}` on {app.platform} is of {other}, not of {app.ref}",
            hint=f"give the job another name in {app.spec}; "
            f"if it is the same app, renamed, declare `job: {job}`",
        )


def _is_of(other: Resource, app: App, job: str) -> bool:
    settings = other.settings
    return settings.get("job") == job and settings.get("platform") == app.platform


def drift(platform: Platform, running: Running | None, deployed: Spec | None) -> tuple[str, ...]:
    """Return what runs otherwise than it was deployed, one line each; empty where nothing does.

    Args:
        platform: asked where the two are not written alike: what it adds by itself is no drift.
        running: what runs.
        deployed: as Handrail last deployed it; None where it never did.
    """
    if deployed is None:
        return ()
    if running is None:
        return ("nothing runs any more",)
    if changes.same(running.spec, deployed):
        return ()
    return platform.dry_run(deployed).diff


def _spec(app: App, platform: Platform, texts: Mapping[str, str]) -> Spec:
    values = variables.read(texts[app.variables], app.variables) if app.variables else {}
    spec = platform.parse(texts[app.spec], app.spec, values)
    if app.job and spec.job != app.job:
        raise DeclarationError(
            "deploys.spec",
            f"it is of the job `{spec.job}`, and {app.ref} declares `{app.job}`",
            at=Place(app.spec),
        )
    return spec


def _texts(app: App, source: Source) -> Mapping[str, str]:
    """Return the files that an app declares, by path, as they are at the commit."""
    declared = {"spec": app.spec, "variables": app.variables}
    return {path: _text(app, source, key, path) for key, path in declared.items() if path}


def _text(app: App, source: Source, key: str, path: str) -> str:
    text = source.read(path)
    if text is None:
        raise DeclarationError(
            "deploys.spec",
            f"`{path}` is not in {app.name}'s repository at {source.commit.id[: changes.SHORT]}",
            at=Place(path),
            hint=f"commit it, or say where it is: `{key}:` of {app.ref}",
        )
    return text


def _open_secrets(texts: Mapping[str, str]) -> tuple[str, ...]:
    found = [
        f"{path}:{line} holds {what}: let it refer to one"
        for path, text in texts.items()
        for what, line in secrets(text)
    ]
    return tuple(found[:_MOST_SECRETS])
