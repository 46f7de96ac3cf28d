"""A platform in memory: runs nothing, and keeps the promises of `ports.Platform` all the same.

Rules:
- Its specifications are YAML (or JSON): `job`, and `groups` with `count`, `canaries` and `tasks`;
  `${name}` stands for a variable. What else stands in them is kept as it is.
- What becomes of a version is said by its own key `fate`, or by the test beforehand (`fates`).
- A rollout gets where it goes by being looked at, `looks` times; nothing waits.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import yaml

from handrail.errors import DeclarationError, Place, PlatformError, RefusedError, UsageError
from handrail.kits.deploys.differing import differences
from handrail.kits.deploys.model import DryRun, File, GroupFate, Rollout, Running, Spec
from handrail.plans.canonical import encode, sha256
from handrail.plans.facts import Identity

Fate = Literal["healthy", "failed", "reverted", "stuck"]
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_-]*)\}")


@dataclass
class _Deployment:
    """One change of what runs, on its way."""

    id: str
    fate: Fate
    looks: int
    waits_for_promotion: bool
    state: Literal["going", "canaries", "healthy", "failed", "reverted"] = "going"
    why: str = ""


@dataclass
class _Job:
    """What runs under one name: its versions, the newest last; none where it was removed."""

    versions: list[tuple[Spec, Mapping[str, str]]] = field(default_factory=list)
    deployments: list[_Deployment] = field(default_factory=list)
    number: int = 0
    index: int = 0


class FakePlatform:
    """`ports.Platform` that is gone with the test.

    Attributes:
        looks: how often a rollout is looked at before it is where it goes.
        fates: by job, what becomes of its next versions in order; `healthy` when used up.
        away: how many of the next calls fail as if the leader were lost.
        cut: names of calls that are done, and whose answer is lost, each once.
        hear: told the name of each call before it is done; may raise.
        calls: names of the calls that changed something, in order.
    """

    def __init__(self, name: str = "fake", looks: int = 1) -> None:
        self._name = name
        self.looks = looks
        self.fates: dict[str, list[Fate]] = {}
        self.away = 0
        self.cut: list[str] = []
        self.hear: Callable[[str], None] = lambda _: None
        self.calls: list[str] = []
        self._jobs: dict[str, _Job] = {}
        self._staged: set[str] = set()
        self._made = 0

    # --- what a test does ------------------------------------------------

    def interfere(self, text: str) -> None:
        """Let somebody else deploy this specification, with no note, and be done at once."""
        spec = self.parse(text, "interfere", {})
        self._begin(spec, {}).state = "healthy"

    def drop(self, job: str) -> None:
        """Let somebody else remove a job."""
        self._jobs.pop(job, None)

    # --- specifications ------------------------------------------------

    def identify(self) -> Identity:
        """Return a name that stays; see `ports.Platform`."""
        self._called("identify")
        return Identity(f"fake:{self._name}", f"memory:{self._name}", "Fake 1.0")

    def parse(self, text: str, name: str, variables: Mapping[str, str]) -> Spec:
        """Read YAML; see `ports.Platform`."""
        self._called("parse")
        try:
            body = yaml.safe_load(_filled(text, name, variables))
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise _wrong(f"not YAML: {error.problem}", name, line) from error
        if not isinstance(body, dict) or not isinstance(body.get("groups"), dict):
            raise _wrong("expected `job` and `groups`", name, 1)
        return _spec(body)

    def with_images(self, spec: Spec, images: Mapping[str, str]) -> Spec:
        """Set images of tasks; see `ports.Platform`."""
        body = copy.deepcopy(dict(spec.body))
        for task, image in images.items():
            _task(body, task)["image"] = image
        return _spec(body)

    def with_files(self, spec: Spec, files: Mapping[str, File]) -> Spec:
        """Keep the digests of files; see `ports.Platform`."""
        for path in spec.files:
            if not any(at == path or at.startswith(f"{path}/") or path == "." for at in files):
                raise _wrong(f"`files` names `{path}`, which is not there", spec.job, 1)
        if not spec.files:
            return spec
        digests = {path: sha256(file.content) for path, file in files.items()}
        return _spec({**spec.body, "digests": digests})

    # --- what runs ------------------------------------------------

    def stage(self, spec: Spec, files: Mapping[str, File]) -> None:
        """Keep which content is there; see `ports.Platform`."""
        self._called("stage")
        wanted = _digests(spec)
        for path, digest in wanted.items():
            if path not in files or sha256(files[path].content) != digest:
                raise RefusedError("platform.moved", f"`{path}` is not what was planned")
        self._staged |= {*wanted.values()}

    def current(self, job: str) -> Running | None:
        """Return what runs; see `ports.Platform`."""
        self._called("current")
        found = self._jobs.get(job)
        if found is None or not found.versions:
            return None
        spec, note = found.versions[-1]
        deployment = found.deployments[-1]
        status = "running" if deployment.state in {"healthy", "reverted"} else "pending"
        return Running(
            spec, str(found.number), str(found.index), status, _healthy(spec, deployment), note
        )

    def jobs(self) -> tuple[str, ...]:
        """Return what runs; see `ports.Platform`."""
        self._called("jobs")
        return tuple(sorted(name for name, job in self._jobs.items() if job.versions))

    def dry_run(self, spec: Spec) -> DryRun:
        """Compare group by group; see `ports.Platform`."""
        self._called("dry_run")
        found = self._jobs.get(spec.job)
        before = found.versions[-1][0].body if found and found.versions else None
        olds, news = _groups(before or {}), _groups(spec.body)
        fates = [_fate(name, olds.get(name), news.get(name)) for name in sorted({*olds, *news})]
        return DryRun(tuple(fates), differences(before, spec.body))

    def apply(self, spec: Spec, token: str, note: Mapping[str, str]) -> str:
        """Begin a version; see `ports.Platform`."""
        self._called("apply")
        found = self._jobs.get(spec.job)
        if found and found.versions and found.versions[-1] == (_spec(spec.body), dict(note)):
            return found.deployments[-1].id
        self._check(spec.job, token)
        missing = {path for path, digest in _digests(spec).items() if digest not in self._staged}
        if missing:
            said = ", ".join(sorted(missing))
            raise UsageError("deploys.nothing", f"the content of {said} is not there")
        made = self._begin(_spec(spec.body), dict(note))
        self._done("apply")
        return made.id

    def remove(self, job: str, token: str) -> None:
        """End a job; see `ports.Platform`."""
        self._called("remove")
        found = self._jobs.get(job)
        if found is None or not found.versions:
            return
        self._check(job, token)
        found.versions.clear()
        found.index += 1
        _over(found, "it was removed")
        self._done("remove")

    def restart(self, job: str) -> str:
        """Begin a deployment of the same; see `ports.Platform`."""
        self._called("restart")
        found = self._running(job)
        made = self._deployment(job, found, found.versions[-1][0])
        self._done("restart")
        return made.id

    def scale(self, job: str, group: str, count: int, token: str) -> str:
        """Begin the same with another count; see `ports.Platform`."""
        self._called("scale")
        found = self._running(job)
        spec, note = found.versions[-1]
        body: dict[str, Any] = copy.deepcopy(dict(spec.body))
        if group not in body["groups"]:
            known = ", ".join(sorted(body["groups"]))
            raise UsageError(
                "deploys.unknown-group", f"`{job}` has no group `{group}`", hint=f"it has {known}"
            )
        if body["groups"][group].get("count", 1) == count:
            return found.deployments[-1].id
        self._check(job, token)
        body["groups"][group]["count"] = count
        made = self._begin(_spec(body), note)
        self._done("scale")
        return made.id

    # --- rollouts ------------------------------------------------

    def rollout(self, job: str, deployment: str, wait_s: float = 0.0) -> Rollout:
        """Look once, and so let it go on; see `ports.Platform`."""
        del wait_s
        self._called("rollout")
        found, one = self._find(job, deployment)
        if one.state == "going":
            one.looks -= 1
            if one.looks <= 0:
                self._arrive(found, one)
        spec = found.versions[-1][0] if found.versions else Spec(job, {})
        return Rollout(one.state, _healthy(spec, one), one.why)

    def promote(self, job: str, deployment: str) -> None:
        """Let canaries take over; see `ports.Platform`."""
        self._called("promote")
        _, one = self._find(job, deployment)
        if one.waits_for_promotion:
            one.waits_for_promotion = False
            one.state, one.looks, one.why = "going", self.looks, ""
        self._done("promote")

    def halt(self, job: str, deployment: str) -> None:
        """Let it go no further; see `ports.Platform`."""
        self._called("halt")
        _, one = self._find(job, deployment)
        if one.state in {"going", "canaries"}:
            one.state, one.why = "failed", "it was halted"
        self._done("halt")

    def _arrive(self, job: _Job, one: _Deployment) -> None:
        if one.waits_for_promotion and one.fate == "healthy":
            one.state, one.why = "canaries", "its canaries are healthy and wait to be promoted"
        elif one.fate == "stuck":
            one.why = "its instances are not healthy yet"
        else:
            one.state = one.fate
            one.why = {"healthy": "", "failed": "its instances fail their checks"}.get(
                one.fate, "its instances fail, and the version before was put back"
            )
        if one.fate == "reverted" and len(job.versions) > 1:
            job.versions.append(job.versions[-2])
            job.number += 1
            job.index += 1

    def _begin(self, spec: Spec, note: Mapping[str, str]) -> _Deployment:
        job = self._jobs.setdefault(spec.job, _Job())
        is_first = not job.versions
        job.versions.append((spec, note))
        job.number += 1
        job.index += 1
        made = self._deployment(spec.job, job, spec)
        canaries = any(int(g.get("canaries", 0)) for g in _groups(spec.body).values())
        made.waits_for_promotion = canaries and not is_first
        return made

    def _deployment(self, name: str, job: _Job, spec: Spec) -> _Deployment:
        _over(job, "another deployment took its place")
        said = self.fates.get(name) or [cast("Fate", spec.body.get("fate", "healthy"))]
        self._made += 1
        made = _Deployment(f"d{self._made}", said.pop(0), self.looks, waits_for_promotion=False)
        job.deployments.append(made)
        return made

    # --- the calls themselves ------------------------------------------------

    def _called(self, name: str) -> None:
        self.hear(name)
        if self.away > 0:
            self.away -= 1
            raise _lost()

    def _done(self, name: str) -> None:
        self.calls.append(name)
        if name in self.cut:
            self.cut.remove(name)
            raise _lost()

    def _check(self, job: str, token: str) -> None:
        """Refuse where what runs is not what the token is of."""
        found = self._jobs.get(job)
        now = str(found.index) if found and found.versions else ""
        if token != now:
            said = f"`{job}` was changed by somebody else since this was planned"
            raise RefusedError("platform.moved", said, hint="make the plan anew")

    def _running(self, job: str) -> _Job:
        found = self._jobs.get(job)
        if found is None or not found.versions:
            raise UsageError("deploys.nothing", f"nothing runs as `{job}`")
        return found

    def _find(self, job: str, deployment: str) -> tuple[_Job, _Deployment]:
        found = self._jobs.get(job, _Job())
        for one in found.deployments:
            if one.id == deployment:
                return found, one
        raise PlatformError("platform.failed", f"`{job}` has no deployment `{deployment}`")


def _spec(body: Mapping[str, object]) -> Spec:
    tasks = {
        f"{group}/{name}": task
        for group, settings in _groups(body).items()
        for name, task in (settings.get("tasks") or {}).items()
    }
    images = {name: str(task["image"]) for name, task in tasks.items() if "image" in (task or {})}
    files = cast("list[str]", body.get("files") or [])
    return Spec(str(body.get("job", "")), body, images, tuple(tasks), tuple(files))


def _groups(body: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    return cast("dict[str, dict[str, Any]]", body.get("groups") or {})


def _digests(spec: Spec) -> Mapping[str, str]:
    return cast("Mapping[str, str]", spec.body.get("digests") or {})


def _task(body: Mapping[str, object], task: str) -> dict[str, Any]:
    """Return the one task that is meant.

    Raises:
        UsageError: none is, more than one, or one without an image.
    """
    known: dict[str, dict[str, Any]] = {
        f"{group}/{name}": found
        for group, settings in _groups(body).items()
        for name, found in (settings.get("tasks") or {}).items()
    }
    matching = [name for name in known if task in {name, name.partition("/")[2]}]
    if len(matching) != 1 or "image" not in known[matching[0]]:
        what = "more than one task is called" if len(matching) > 1 else "no task with an image is"
        raise UsageError(
            "deploys.unknown-task", f"{what} `{task}`", hint=f"there are {', '.join(sorted(known))}"
        )
    return known[matching[0]]


def _filled(text: str, name: str, variables: Mapping[str, str]) -> str:
    """Return the text with its variables' values.

    Raises:
        DeclarationError: one has no value.
    """
    for found in _VARIABLE.finditer(text):
        if found[1] not in variables:
            line = text.count("\n", 0, found.start()) + 1
            raise _wrong(f"the variable `{found[1]}` has no value", name, line)
    return _VARIABLE.sub(lambda found: variables[found[1]], text)


def _fate(name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> GroupFate:
    before = int((old or {}).get("count", 1)) if old is not None else 0
    after = int((new or {}).get("count", 1)) if new is not None else 0
    if old is None or new is None:
        counts = {"place": after, "stop": before}
    else:
        same = encode({**old, "count": 0}) == encode({**new, "count": 0})
        kept, canaries = min(before, after), 0 if same else int(new.get("canaries", 0))
        fate = "ignore" if same else "destructive"
        counts = {"canary": canaries, fate: kept}  # canaries come besides
        counts |= {"place": max(after - before, 0), "stop": max(before - after, 0)}
    return GroupFate(name, {fate: count for fate, count in counts.items() if count})


def _healthy(spec: Spec, deployment: _Deployment) -> tuple[int, int]:
    wanted = sum(int(group.get("count", 1)) for group in _groups(spec.body).values())
    return (wanted if deployment.state in {"healthy", "reverted"} else 0, wanted)


def _over(job: _Job, why: str) -> None:
    """End what is under way, because of something else."""
    for one in job.deployments:
        if one.state in {"going", "canaries"}:
            one.state, one.why = "failed", why


def _wrong(said: str, name: str, line: int) -> DeclarationError:
    return DeclarationError("deploys.spec", said, at=Place(name, line))


def _lost() -> PlatformError:
    error = PlatformError("platform.unreachable", "the platform has no leader now")
    error.is_passing = True
    return error
