"""Nomad's JSON of a job as a specification: its tasks, their images, its groups."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from handrail.adapters.nomad.normal import normal, stored
from handrail.errors import UsageError
from handrail.kits.deploys.model import Spec


def spec_of(job: Mapping[str, Any], files: tuple[str, ...] = ()) -> Spec:
    """Return a job as it is to be, as a specification that needs these files."""
    return _spec(normal(job), files)


def stored_spec(job: Mapping[str, Any]) -> Spec:
    """Return a job that the server gave back as a specification."""
    return _spec(stored(job), ())


def _spec(body: Mapping[str, Any], files: tuple[str, ...]) -> Spec:
    images, tasks = {}, []
    for group, task in _tasks(body):
        name = f"{group}/{task.get('Name', '')}"
        tasks.append(name)
        image = task.get("Config", {}).get("image")
        if isinstance(image, str):
            images[name] = image
    return Spec(str(body.get("ID", "")), body, images, tuple(tasks), files)


def with_images(spec: Spec, images: Mapping[str, str]) -> Spec:
    """Return `spec` with the image of each named task set, and of no other.

    Raises:
        UsageError: there is no such task, several have that name, or it runs no image.
    """
    body = copy.deepcopy(dict(spec.body))
    wanted = {_task_named(spec, name): image for name, image in images.items()}
    for group, task in _tasks(body):
        image = wanted.get(f"{group}/{task['Name']}")
        if image is not None:
            task["Config"] = {**task["Config"], "image": image}
    return spec_of(body, spec.files)


def group_named(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a group of a job.

    Raises:
        UsageError: there is none of that name.
    """
    groups = [group for group in body.get("TaskGroups") or () if isinstance(group, dict)]
    for group in groups:
        if group.get("Name") == name:
            return group
    known = ", ".join(f"`{group.get('Name')}`" for group in groups)
    raise UsageError(
        "deploys.unknown-group",
        f"job `{body.get('ID')}` has no group `{name}`",
        hint=f"it has {known}" if known else "it has none",
    )


def _task_named(spec: Spec, name: str) -> str:
    found = [each for each in spec.tasks if name in {each, each.partition("/")[2]}]
    if not found:
        known = ", ".join(f"`{each}`" for each in spec.tasks)
        raise UsageError(
            "deploys.unknown-task",
            f"job `{spec.job}` has no task `{name}`",
            hint=f"it has {known}" if known else "it has none",
        )
    if len(found) > 1:
        raise UsageError(
            "deploys.unknown-task",
            f"job `{spec.job}` has {len(found)} tasks `{name}`",
            hint=f"write {' or '.join(f'`{each}`' for each in found)}",
        )
    if found[0] not in spec.images:
        known = ", ".join(f"`{each}`" for each in sorted(spec.images))
        raise UsageError(
            "deploys.unknown-task",
            f"task `{found[0]}` of job `{spec.job}` runs no image",
            hint=f"those with an image: {known}" if known else "none of its tasks does",
        )
    return found[0]


def _tasks(body: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for group in body.get("TaskGroups") or ():
        for task in group.get("Tasks") or ():
            yield str(group.get("Name", "")), task
