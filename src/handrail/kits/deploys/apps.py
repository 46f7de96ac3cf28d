"""An app as it is declared, and the platform that runs it.

Rules:
- `{environment}` in a path is the app's environment, and nothing else is filled in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from handrail.errors import DeclarationError, UsageError
from handrail.estate.model import Estate, Resource

_PLACEHOLDER = "{environment}"
_SOAK_S = 60


@dataclass(frozen=True)
class App:
    """What an app declares; see `declared.APP`.

    Attributes:
        spec: path of its specification in its repository, filled in; `variables` likewise, empty
            where there is no such file.
        job: empty where the specification alone names it.
        promotes: whether canaries are promoted by the watch.
    """

    ref: str
    name: str
    environment: str
    repository: str
    platform: str
    spec: str
    variables: str
    job: str
    branch: str
    images: Mapping[str, str]
    service: str
    soak_s: int
    promotes: bool
    capacity: int


def app_of(resource: Resource) -> App:
    """Return what an app declares.

    Raises:
        DeclarationError: `{environment}` stands in a path, and it declares none.
    """
    images = resource.settings.get("images")
    return App(
        ref=resource.ref,
        name=resource.name,
        environment=resource.environment,
        repository=_text(resource, "repository"),
        platform=_text(resource, "platform"),
        spec=_path(resource, "spec"),
        variables=_path(resource, "variables"),
        job=_text(resource, "job"),
        branch=_text(resource, "branch") or "main",
        images=dict(images) if isinstance(images, Mapping) else {},
        service=_text(resource, "service"),
        soak_s=_number(resource, "soak", _SOAK_S),
        promotes=resource.settings.get("canaries") is not False,
        capacity=_number(resource, "capacity", 0),
    )


def platform_of(estate: Estate, ref: str, by: Resource) -> Resource:
    """Return the platform that a resource names.

    Raises:
        UsageError: it is not declared, or is no platform.
    """
    found = estate.resources.get(ref)
    if found is None or found.kind != "platform":
        raise UsageError(
            "estate.unknown-resource",
            f"`{by.ref}` runs on `{ref}`, and no such platform is declared",
            at=by.place,
            hint="declare it under `platforms:`",
        )
    return found


def is_production(estate: Estate, *resources: Resource) -> bool:
    """Whether one of them is in an environment of production."""
    environments = [estate.environments.get(resource.environment) for resource in resources]
    return any(found is not None and found.production for found in environments)


def _text(resource: Resource, key: str) -> str:
    value = resource.settings.get(key)
    return value if isinstance(value, str) else ""


def _number(resource: Resource, key: str, otherwise: int) -> int:
    value = resource.settings.get(key)
    return value if isinstance(value, int) else otherwise


def _path(resource: Resource, key: str) -> str:
    path = _text(resource, key)
    if _PLACEHOLDER in path and not resource.environment:
        raise DeclarationError(
            "estate.missing-key",
            f"`{resource.ref}` has `{_PLACEHOLDER}` in its `{key}`, and no environment",
            at=resource.place,
            hint="write `environment: ...`",
        )
    return path.replace(_PLACEHOLDER, resource.environment)
