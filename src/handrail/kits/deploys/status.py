"""How every app stands: what was deployed last, what runs, and what its branch holds.

Rules:
- Everything is asked at once: all of it takes about as long as the slowest answer.
- Each platform is opened once, and each branch of a repository is looked at once.
- An app of which something cannot be read is told so, and hides no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from handrail.errors import HandrailError
from handrail.kits.deploys import changes, history, observing, telling
from handrail.kits.deploys.apps import App, app_of, platform_of
from handrail.kits.deploys.deploying import drifted_by

if TYPE_CHECKING:
    from handrail.estate.model import Estate, Resource
    from handrail.kits.deploys.history import Ran
    from handrail.kits.deploys.model import Commit, Running
    from handrail.kits.deploys.outside import Outside
    from handrail.kits.deploys.ports import Platform, Source

T = TypeVar("T")
Word = Literal["same", "drifted", "behind", "never deployed", "away"]
# A thread that waits costs little; with so many none of a hundred apps waits for another.
_THREADS = 256
_MOST_BEHIND = 200


@dataclass(frozen=True)
class AppStatus:
    """How one app stands.

    Attributes:
        word: the worst that is true: `away` where the platform could not be asked; else `never
            deployed` by Handrail, `drifted`, `behind` its branch, or `same`.
        why: one sentence for people.
        saved: the run whose version should be what runs; None where there is none.
        running: what runs; None where nothing does, or nobody knows.
        branch: that is deployed where nobody says another; `head` its last commit, None where
            that could not be read: `head_why` says why.
        behind: how many commits the branch has that are not deployed; None where nobody knows.
        drift: what runs otherwise than it was deployed, one line each.
    """

    ref: str
    platform: str
    word: Word
    why: str
    saved: Ran | None = None
    running: Running | None = None
    branch: str = ""
    head: Commit | None = None
    head_why: str = ""
    behind: int | None = None
    drift: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Answer(Generic[T]):
    """What was answered, or why nothing was."""

    value: T | None
    error: str = ""


@dataclass(frozen=True)
class _Runs:
    """What runs of an app, and how that differs from what was deployed."""

    running: Running | None
    drift: tuple[str, ...]


@dataclass(frozen=True)
class _Head:
    """The last commit of a branch, and how many are after the one that was deployed."""

    commit: Commit
    behind: int | None


def status(
    outside: Outside, estate: Estate, apps: Sequence[Resource] | None = None
) -> tuple[AppStatus, ...]:
    """Return how apps stand, in the order given; every declared app where none is.

    Changes nothing. Raises nothing that one app, platform or repository has caused.
    """
    chosen = tuple(estate.of_kinds(("app",))) if apps is None else tuple(apps)
    with ThreadPoolExecutor(_THREADS, "handrail-status") as threads:
        asking = _Asking(outside, estate, threads)
        declared = [(one, _answered(partial(asking.begin, one))) for one in chosen]
        # The record is read while the wire is waited for.
        pending = [asking.ask(resource, begun) for resource, begun in declared]
        return tuple(_told(outside, one) for one in pending)


@dataclass(frozen=True)
class _Begun:
    """One app of which the branch is being read."""

    app: App
    source: Future[_Answer[Source]]


@dataclass(frozen=True)
class _Pending:
    """One app, and the answers that are under way."""

    resource: Resource
    saved: Ran | None
    told: Future[tuple[_Answer[_Runs], _Answer[_Head]]]


class _Asking:
    """What is asked at once; the same platform or branch once."""

    def __init__(self, outside: Outside, estate: Estate, threads: ThreadPoolExecutor) -> None:
        self._outside, self._estate, self._threads = outside, estate, threads
        self._platforms: dict[str, _Answer[Platform]] = {}
        self._sources: dict[tuple[str, str], Future[_Answer[Source]]] = {}

    def begin(self, resource: Resource) -> _Begun:
        """Begin to read an app's branch."""
        app = app_of(resource)
        key = (app.repository, app.branch)
        if key not in self._sources:
            self._sources[key] = self._threads.submit(
                _answered, lambda: self._outside.sources.open(*key)
            )
        return _Begun(app, self._sources[key])

    def ask(self, resource: Resource, begun: _Answer[_Begun]) -> _Pending:
        """Begin to ask what runs of it."""
        saved = history.saved(self._outside.world, resource.ref)
        if begun.value is None:
            known: Future[tuple[_Answer[_Runs], _Answer[_Head]]] = Future()
            known.set_result((_Answer(None, begun.error), _Answer(None, begun.error)))
            return _Pending(resource, saved, known)
        opened = self._platform(begun.value.app, resource)
        return _Pending(resource, saved, self._threads.submit(_both, opened, begun.value, saved))

    def _platform(self, app: App, resource: Resource) -> _Answer[Platform]:
        if app.platform not in self._platforms:
            self._platforms[app.platform] = _answered(
                lambda: self._outside.open_platform(
                    platform_of(self._estate, app.platform, resource)
                )
            )
        return self._platforms[app.platform]


def _both(
    opened: _Answer[Platform], begun: _Begun, saved: Ran | None
) -> tuple[_Answer[_Runs], _Answer[_Head]]:
    """Ask what runs of an app, then how far it is behind its branch, which is read meanwhile."""
    return _runs(opened, begun.app, saved), _head(begun.source.result(), saved)


def _runs(opened: _Answer[Platform], app: App, saved: Ran | None) -> _Answer[_Runs]:
    """Ask a platform what runs of an app, and whether that is as it was deployed."""
    platform = opened.value
    if platform is None:
        return _Answer(None, opened.error)
    spec = saved.change.spec if saved and saved.change else None
    job = app.job or (spec.job if spec else app.name)

    def ask() -> _Runs:
        running = platform.current(job)
        return _Runs(running, observing.drift(platform, running, spec))

    return _answered(ask)


def _told(outside: Outside, pending: _Pending) -> AppStatus:
    """Return how an app stands, once its answers are there."""
    resource, saved = pending.resource, pending.saved
    runs, read = pending.told.result()
    platform = str(resource.settings.get("platform") or "")
    branch = str(resource.settings.get("branch") or "main")
    head, behind = (read.value.commit, read.value.behind) if read.value else (None, None)
    found = AppStatus(resource.ref, platform, "away", runs.error, saved, None, branch, head)
    found = replace(found, head_why=read.error, behind=behind)
    if runs.value is None:
        return found
    found = replace(found, running=runs.value.running, drift=telling.shown(runs.value.drift))
    word, why = _judged(found)
    if word == "drifted":
        why = drifted_by(outside.world, resource.ref, saved, found.running)
    return replace(found, word=word, why=why)


def _judged(found: AppStatus) -> tuple[Word, str]:
    """Return the word for an app whose platform answered, and the sentence."""
    if found.saved is None:
        running = found.running
        by = running.note.get(changes.PERSON) if running else ""
        how = (
            f"{by} deployed it from elsewhere" if by else "it runs, and Handrail did not deploy it"
        )
        return "never deployed", how if running else "nothing runs"
    if found.drift:
        return "drifted", ""
    if found.behind:
        many = f"{found.behind}{'' if found.behind < _MOST_BEHIND else ' or more'}"
        return "behind", f"{found.branch} has {many} newer commit{'s' * (found.behind > 1)}"
    if found.head is None:
        return "same", f"as run {found.saved.run} deployed it; its branch: {found.head_why}"
    if found.behind is None:
        return "same", f"as run {found.saved.run} deployed it, which is not on {found.branch}"
    return "same", f"as run {found.saved.run} deployed it"


def _head(read: _Answer[Source], saved: Ran | None) -> _Answer[_Head]:
    """Return the last commit of a branch, and how far what was deployed is behind it."""
    source = read.value
    if source is None:
        return _Answer(None, read.error)
    return _answered(lambda: _Head(source.commit, _behind(source, saved)))


def _behind(source: Source, saved: Ran | None) -> int | None:
    """Return how many commits a branch has after the deployed one; None where nobody knows."""
    if saved is None or not saved.commit:
        return None
    if source.commit.id == saved.commit:
        return 0
    since = source.since(saved.commit, _MOST_BEHIND)
    return None if since is None else len(since)


def _answered(ask: Callable[[], T]) -> _Answer[T]:
    """Return what `ask` gives, or why it gives nothing."""
    try:
        return _Answer(ask())
    except HandrailError as error:
        return _Answer(None, error.message)
