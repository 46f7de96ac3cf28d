"""What a specification's body means: tasks, their instances, files and images.

Rules:
- Names and paths are looked at again here: whatever a body came from, nothing of it leaves the
  folder of its app or the line of a configuration.
- `content` is path to digest (and ` x` for a program): all that is to be there, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, cast

from handrail.errors import DeclarationError, Place, UsageError
from handrail.estate.shapes import NAME
from handrail.kits.deploys.model import File, Spec
from handrail.plans.canonical import encode, sha256

CONTENT = "content"
EDITED = "edited"
MOST_FILES = 2000
MOST_BYTES = 64 * 1024 * 1024
_DIGEST = re.compile(r"[0-9a-f]{64}( x)?")
_MARK = re.compile(r"\{(port|instance|image)\}")
_LONGEST_PATH = 512

Body = Mapping[str, object]


@dataclass(frozen=True)
class Update:
    """How a new version takes over; times in seconds."""

    at_once: int
    canaries: int
    healthy_s: int
    deadline_s: int


@dataclass(frozen=True)
class Task:
    """One task of a body.

    Attributes:
        settings: the whole of it, as it stands in the body.
    """

    name: str
    settings: Mapping[str, Any]

    @property
    def instances(self) -> int:
        """How many run."""
        return int(self.settings["instances"])

    def filled(self, text: str, instance: int) -> str:
        """Return `text` with what an instance has for `{port}`, `{instance}` and `{image}`."""
        port = self.settings.get("port")
        values = {
            "port": str(port + instance) if port is not None else "{port}",
            "instance": str(instance),
            "image": str(self.settings.get("image", "{image}")),
        }
        return _MARK.sub(lambda found: values[found[1]], text)

    def check(self, instance: int) -> str:
        """Return the address that must answer; empty for none."""
        return self.filled(str(self.settings.get("check", "")), instance)


def tasks(body: Body) -> dict[str, Task]:
    """Return the tasks of a body, in their order.

    Raises:
        DeclarationError: a name of one could mean something else on this machine.
    """
    found = cast("Mapping[str, Mapping[str, Any]]", body.get("tasks") or {})
    for name in found:
        if not NAME.fullmatch(name):
            raise _wrong(f"`{name}` is not a task's name")
    return {name: Task(name, settings) for name, settings in found.items()}


def update(body: Body) -> Update:
    """Return how a body takes over."""
    found = cast("Mapping[str, int]", body["update"])
    return Update(found["at-once"], found["canaries"], found["healthy"], found["deadline"])


def content(body: Body) -> Mapping[str, str]:
    """Return the files of a body, by path, to their digests.

    Raises:
        DeclarationError: a path leads out of the folder, or what stands there is no digest.
    """
    found = cast("Mapping[str, str]", body.get(CONTENT) or {})
    for path, digest in found.items():
        _check_path(path)
        if not _DIGEST.fullmatch(digest):
            raise _wrong(f"`{path}` has no digest")
    return found


def digest_of(file: File) -> str:
    """Return what stands in `content` for a file."""
    return sha256(file.content) + (" x" if file.is_executable else "")


def spec_of(body: Body, job: str = "") -> Spec:
    """Return the specification that a body is.

    Args:
        body: as read.
        job: its name on the platform; else what it says itself.
    """
    known = tasks(body)
    images = {f"{n}/{n}": str(t.settings["image"]) for n, t in known.items() if _has_image(t)}
    files = tuple(cast("list[str]", body.get("files") or []))
    return Spec(
        job or str(body.get("app", "")), body, images, tuple(f"{n}/{n}" for n in known), files
    )


def with_images(spec: Spec, images: Mapping[str, str]) -> Spec:
    """Return `spec` with images set; see `ports.Platform`."""
    body = dict(spec.body)
    for name, image in images.items():
        task = _task(body, name)
        changed = {**task.settings, "image": image}
        body["tasks"] = {**cast("Mapping[str, object]", body["tasks"]), task.name: changed}
    return spec_of(body, spec.job)


def with_files(spec: Spec, files: Mapping[str, File]) -> Spec:
    """Return `spec` with its files' digests; see `ports.Platform`."""
    if not spec.files:
        return spec
    if len(files) > MOST_FILES or sum(len(file.content) for file in files.values()) > MOST_BYTES:
        said = f"`files` are more than {MOST_FILES}, or more than {MOST_BYTES // 1024**2} MiB"
        raise _wrong(said, "name the folders that the app needs, not `.`")
    for path in spec.files:
        if not any(path in {".", at} or at.startswith(f"{path}/") for at in files):
            raise _wrong(f"`files` names `{path}`, and nothing is there at this commit")
    digests = {path: digest_of(files[path]) for path in sorted(files)}
    body = {**spec.body, CONTENT: digests}
    content(body)
    return spec_of(body, spec.job)


def scaled(spec: Spec, task: str, count: int) -> Spec:
    """Return `spec` with another number of instances.

    Raises:
        UsageError: `deploys.unknown-group`: it has no such task.
    """
    known = tasks(spec.body)
    if task not in known:
        raise UsageError(
            "deploys.unknown-group",
            f"`{spec.job}` has no task `{task}`",
            hint=f"it has {', '.join(known)}",
        )
    changed = {**known[task].settings, "instances": count}
    settings = {**cast("Mapping[str, object]", spec.body["tasks"]), task: changed}
    return spec_of({**spec.body, "tasks": settings}, spec.job)


def is_same_task(before: Body, after: Body, task: str) -> bool:
    """Return whether the instances of a task may stay as they are, whatever their number."""
    olds, news = tasks(before), tasks(after)
    if task not in olds or task not in news:
        return False
    same = [encode({**one[task].settings, "instances": 0}) for one in (olds, news)]
    return same[0] == same[1] and encode(content(before)) == encode(content(after))


def _has_image(task: Task) -> bool:
    return "image" in task.settings


def _task(body: Body, name: str) -> Task:
    known = tasks(body)
    group, _, inner = name.partition("/")
    task = known.get(group) if inner in {"", group} and not name.endswith("/") else None
    if task is None or not _has_image(task):
        having = [f"{n}/{n}" for n, t in known.items() if _has_image(t)]
        what = f"task `{name}` has no image" if task else f"there is no task `{name}`"
        hint = f"tasks with an image: {', '.join(having) or 'none'}"
        raise UsageError("deploys.unknown-task", what, hint=hint)
    return task


def _check_path(path: str) -> None:
    parts = PurePosixPath(path).parts
    is_plain = "/".join(parts) == path and ".." not in parts and not path.startswith("/")
    if not is_plain or not path.isprintable() or not 1 <= len(path) <= _LONGEST_PATH:
        raise _wrong(f"`{path[:100]}` is not a path inside of the app")


def _wrong(said: str, hint: str = "") -> DeclarationError:
    return DeclarationError("deploys.spec", said, at=Place("the specification"), hint=hint)
